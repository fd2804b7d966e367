"""Checkpoints: the whole state of a run in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import UsageError, WeightsError
from finetune.files.atomic import atomic_path
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

VERSION = 1
NAME = re.compile(r"step-(\d{8})\.safetensors")
BEST = "best.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Arrays by name, prefixed ``network/``, ``optimizer/`` or ``average/``, and the JSON state beside them."""

    arrays: dict[str, NDArray[Any]]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays below a prefix, without it."""
        start = len(prefix) + 1
        return {name[start:]: array for name, array in self.arrays.items() if name.startswith(f"{prefix}/")}


def save(folder: Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any], *, best: bool, keep: int) -> Path:
    """Write ``step-N.safetensors``, if best as ``best.safetensors`` too, and keep the newest ``keep``."""
    path = folder / f"step-{state['step']:08d}.safetensors"
    tensorfile.write(path, dict(arrays), {"finetune": json.dumps({"version": VERSION, **state}, allow_nan=False)})
    if best:
        link_best(path)
    for old in steps(folder)[:-keep]:
        with suppress(OSError):  # gone already, or the disk refuses: the next one tries again
            old.unlink()
    return path


def link_best(path: Path) -> None:
    """Give a checkpoint the name of the best as well."""
    with atomic_path(path.parent / BEST) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            temporary.write_bytes(path.read_bytes())


def relink_best(folder: Path, saved: Checkpoint, *, best: bool) -> None:
    """Name the checkpoint that a run resumes from the best, if it is: the run may have been killed just before."""
    path = folder / f"step-{saved.state['step']:08d}.safetensors"
    if best and path.exists():
        link_best(path)


def steps(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; ``WeightsError`` where the file is not one."""
    file = tensorfile.read(path)
    try:
        state = json.loads(file.metadata["finetune"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a checkpoint of a run; weights are given as backbone.weights") from error
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
