"""Checkpoints: the whole state of a run in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune import tensorfile
from finetune.atomic import atomic_path
from finetune.errors import UsageError, WeightsError

VERSION = 1
NAME = re.compile(r"step-(\d{8})\.safetensors")
BEST = "best.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Arrays by name, prefixed ``network/``, ``optimizer/`` or ``average/``, and the JSON state beside them."""

    arrays: dict[str, NDArray[np.float32]]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """Return the arrays below a prefix, without it."""
        start = len(prefix) + 1
        return {name[start:]: array for name, array in self.arrays.items() if name.startswith(f"{prefix}/")}


def save(folder: Path, arrays: Mapping[str, NDArray[np.float32]], state: Mapping[str, Any], *, best: bool, keep: int) -> Path:
    """Write ``step-N.safetensors``, point ``best.safetensors`` at it if it is the best, and keep the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state['step']:08d}.safetensors"
    tensorfile.write(path, dict(arrays), {"finetune": json.dumps({"version": VERSION, **state}, allow_nan=False)})
    if best:
        with atomic_path(folder / BEST) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:  # a file system without hard links
                temporary.write_bytes(path.read_bytes())
    for old in steps(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def steps(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; ``WeightsError`` where the file is not one."""
    file = tensorfile.read(path)
    try:
        state = json.loads(file.metadata["finetune"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is a weights file, not a checkpoint of a run; give it as backbone.weights") from error
    if state.get("version") != VERSION:
        raise WeightsError(f"{path} has checkpoint version {state.get('version')}; this program reads {VERSION}")
    return Checkpoint(arrays=file.tensors, state=state)


def newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest readable checkpoint of a folder, and what is wrong with those newer than it."""
    broken: list[str] = []
    for path in reversed(steps(folder)):
        try:
            return load(path), broken
        except WeightsError as error:
            broken.append(str(error))
    if broken:
        raise WeightsError("no checkpoint can be read: " + "; ".join(broken))
    raise UsageError(f"no checkpoint in {folder}; start a new run with `finetune run`")
