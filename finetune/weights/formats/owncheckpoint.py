"""Checkpoints of a run as weights: extracts the network with the preprocessing, classes and options of the run.

A checkpoint has ``network/…``, ``optimizer/…`` and, if the run keeps a moving average of the weights, ``average/…``.
As weights it equals the run's model folder: the average if there is one, without the state of the optimizer.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.errors import WeightsError
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from finetune.weights.formats.tensorfile import Index

STATE = "finetune"  # metadata key of a run's state
NETWORK, AVERAGE = "network/", "average/"
STEP = re.compile(r"step-\d{8}\.safetensors")
BEST = "best.safetensors"


def as_weights(path: Path, index: Index) -> Index:
    """Reduce a checkpoint of a run to its network, by the network's own names; other files are unchanged.

    Raises ``WeightsError`` for a checkpoint whose state cannot be read.
    """
    if not is_checkpoint(index.metadata):
        return index
    records = {
        name.removeprefix(prefix): record
        for prefix in (NETWORK, AVERAGE)  # the average comes last, so that it replaces the weights
        for name, record in index.records.items()
        if name.startswith(prefix)
    }
    others = (name for name in index.records if not name.startswith((NETWORK, AVERAGE)))
    return replace(index, records=records, metadata=read_texts(path, index.metadata), others=(*index.others, *others))


def is_checkpoint(metadata: Mapping[str, str]) -> bool:
    """Return whether a file with this metadata is a checkpoint of a run."""
    return metadata.get(STATE, "").startswith("{")


def read_texts(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a weights file of the run: its backbone, images and classes."""
    if not is_checkpoint(metadata):
        return dict(metadata)
    try:
        state = json.loads(metadata[STATE])
        start, used = state["start"], state["recipe"]["backbone"]["use"]
        found: dict[str, Any] = {
            "backbone": {"use": used, "options": start["backbone"]},
            "image": start["image"],
            "classes": state["classes"],
        }
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        remedy = "use a different checkpoint of the run, or its model folder"
        raise WeightsError(f"'{path}' is a checkpoint whose state cannot be read ({error!r:.100}); {remedy}") from error
    return {key: json.dumps(value) for key, value in found.items()}


def describe_checkpoint(path: Path) -> str:
    """Describe a checkpoint of a run for the user; empty for other files."""
    with suppress(WeightsError, OSError, ValueError, RecursionError, LookupError, TypeError):
        if os.path.isfile(path) and tensorfile.detect_format(path) == "safetensors":
            index = tensorfile.read_index(path)
            state = json.loads(index.metadata[STATE])
            average = any(name.startswith(AVERAGE) for name in index.records)
            what = "the moving average of the weights" if average else "the network"
            where = f"epoch {state['epoch']}, step {state['step']}"
            return f"'{path}' is a checkpoint of a run ({where}): using {what}, without the optimizer's state"
    return ""


def find_checkpoint(folder: Path) -> Path | None:
    """Return the best checkpoint in a folder, or else the newest; None if there are none."""
    if os.path.isfile(folder / BEST):
        return folder / BEST
    steps = [path for path in folder.glob("step-*.safetensors") if STEP.fullmatch(path.name)]
    return max(steps, default=None)
