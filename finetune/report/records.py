"""Records of a run folder as a report needs them; a record that is missing or damaged is empty."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data import splitfile
from finetune.errors import UsageError
from finetune.machine.environment import mask_secrets
from finetune.model import evaluation, metrics, predictions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Images with predictions: the split, and for each image its path, its ``SCORE`` and its label."""

    split: str
    paths: list[str]
    scored: NDArray[np.void]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The files of a run folder, the recipe without its secrets; ``scores`` is None if the run predicted no images."""

    folder: Path
    recipe: str
    lines: list[dict[str, Any]]
    result: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    scores: Scores | None = None

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return [str(name) for name in self.model.get("classes") or self.data.get("classes") or []]


def read_records(folder: Path) -> Records:
    """Read the files of a run folder; raises ``UsageError`` for a folder without a recipe."""
    try:
        recipe = mask_secrets((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{folder}: this is not a run; name the folder of a run, which has a recipe.yaml") from error
    names = ("result", "environment", "data", "weights")
    found = {name: read_json(folder / f"{name}.json") for name in names}
    model = read_json(folder / "model" / "model.json")
    classes = [str(name) for name in model.get("classes") or found["data"].get("classes") or []]
    scores = read_scores(folder, classes) if found["result"] else None
    return Records(folder=folder, recipe=recipe, lines=read_lines(folder), model=model, scores=scores, **found)


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a file; empty if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of ``metrics.jsonl`` that can be read."""
    found = []
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    for line in text.splitlines():
        try:
            each = json.loads(line)
        except ValueError:
            continue
        found += [each] if isinstance(each, dict) and "epoch" in each else []
    return found


def read_scores(folder: Path, classes: Sequence[str]) -> Scores | None:
    """Return the predictions for test images, else validation images, else out of fold; None without any."""
    places = {name: index for index, name in enumerate(classes)}
    try:
        rows = predictions.read_predictions(folder)
        for split in ("test", "valid"):
            if chosen := [row for row in rows if row.split == split]:
                return convert_rows(split, chosen, places)
        scored, labels, paths = evaluation.read_scores(folder / evaluation.NAME, classes)
    except (UsageError, KeyError):
        return None
    return Scores(split="out of fold", paths=paths, scored=scored, labels=labels)


def convert_rows(split: str, rows: Sequence[predictions.Row], places: dict[str, int]) -> Scores:
    """Return the rows of a split as arrays; raises ``KeyError`` for an unknown class."""
    scored = np.empty(len(rows), metrics.SCORE)
    for number, row in enumerate(rows):
        second = places.get(row.second, -1)
        scored[number] = (number, places[row.predicted], row.probability, row.own_probability, True, second)
    labels = np.array([places[row.label] for row in rows], np.int64)
    return Scores(split=split, paths=[row.path for row in rows], scored=scored, labels=labels)


def count_trained(folder: Path) -> dict[str, int]:
    """Return the number of training images of each class."""
    record = splitfile.read_split(folder)
    found: dict[str, int] = {}
    for row in record.of_split("train") if record else ():
        found[row.label] = found.get(row.label, 0) + 1
    return found
