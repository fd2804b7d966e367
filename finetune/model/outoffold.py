"""Out-of-fold predictions of a run: each training image as a head labelled it that was fitted without it."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np

from finetune.data import splitfile
from finetune.errors import UsageError
from finetune.model import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.data.loading import Data

    Scored = NDArray[np.void]

NAME = "out_of_fold.csv"
HEADER = ["path", "label", "predicted", "probability", "own_probability", "top5", "fold"]


def write(folder: Path, data: Data, scored: Scored, folds: NDArray[np.int64]) -> None:
    """Write ``out_of_fold.csv``, a row for each training image that was judged, from its ``SCORE`` and fold."""
    names, labels = list(splitfile.image_names(data.train)), data.train.labels
    rows = (
        (
            splitfile.encodable(names[index]),
            data.classes[labels[index]],
            data.classes[predicted],
            f"{confidence:.6g}",
            f"{own:.6g}",
            str(int(top5)),
            str(folds[index]),
        )
        for index, predicted, confidence, own, top5 in scored.tolist()
    )
    splitfile.write_table(folder / NAME, HEADER, rows)


def find(model: Path | None) -> Path | None:
    """Return the ``out_of_fold.csv`` of the run of a model folder, if it held no images back and fitted its head only.

    Of a run that trained on after that, the file is about another head than the model's.
    """
    record = None if model is None else splitfile.read_of_file(model)
    if record is None or record.of_split("valid") or record.of_split("test"):
        return None
    path = record.folder / NAME
    try:
        epochs = json.loads((record.folder / "result.json").read_text(encoding="utf-8"))["epochs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if path.exists() and epochs == 0 else None


def read(path: Path, classes: Sequence[str]) -> tuple[Scored, NDArray[np.int64]]:
    """Return the ``SCORE`` of each image and its label; ``UsageError`` for a file that was damaged or has no images."""
    places = {name: index for index, name in enumerate(classes)}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = list(csv.reader(file, strict=True))
        if lines[:1] != [HEADER]:
            raise ValueError("another header")
        scored = np.empty(len(lines) - 1, metrics.SCORE)
        labels = np.empty(len(scored), np.int64)
        for number, (_, label, guess, confidence, own, top5, _) in enumerate(lines[1:]):
            scored[number] = (number, places[guess], float(confidence), float(own), top5 == "1")
            labels[number] = places[label]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}; name the data to evaluate on") from error
    if not len(scored):
        raise UsageError(f"{path}: the run had too few images to estimate its accuracy; name the data to evaluate on")
    return scored, labels
