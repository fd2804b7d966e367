"""Predictions of a run: ``predictions.csv`` has the prediction for each image that was held back."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.data import splitfile
from finetune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from finetune.data.labelled import Part
    from finetune.model.evaluation import Evaluation

NAME = "predictions.csv"
HEADER = ["path", "split", "label", "predicted", "probability", "own_probability", "second", "hash"]


@dataclass(frozen=True, slots=True)
class Row:
    """The prediction for an image; ``second`` and ``hash`` may be empty."""

    path: str
    split: str
    label: str
    predicted: str
    probability: float
    own_probability: float
    second: str
    hash: str

    @property
    def is_right(self) -> bool:
        """Whether the most likely class is the label."""
        return self.predicted == self.label


def write_predictions(folder: Path, found: Mapping[str, tuple[Part, Evaluation]], classes: Sequence[str]) -> None:
    """Write the predictions of each split with an evaluation, in the order of its images."""
    rows = (row for split, (part, each) in found.items() for row in convert_scores(split, part, each.scored, classes))
    splitfile.write_table(folder / NAME, HEADER, map(_format_row, rows))


def _format_row(row: Row) -> list[str]:
    numbers = (f"{row.probability:.6g}", f"{row.own_probability:.6g}")
    return [splitfile.escape_surrogates(row.path), row.split, row.label, row.predicted, *numbers, row.second, row.hash]


def convert_scores(split: str, part: Part, scored: NDArray[np.void], classes: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each image of a part, given its ``SCORE``."""
    hashes = part.hashes or [None] * len(part)
    names = splitfile.list_image_names(part)
    for name, label, content, score in zip(names, part.labels.tolist(), hashes, scored, strict=True):
        yield Row(
            name,
            split,
            classes[label],
            classes[score["predicted"]],
            float(score["confidence"]),
            float(score["own"]),
            classes[score["second"]],
            content or "",
        )


def _parse_row(
    path: str, split: str, label: str, predicted: str, probability: str, own: str, second: str, content: str
) -> Row:
    return Row(path, split, label, predicted, float(probability), float(own), second, content)


def read_predictions(folder: Path) -> list[Row]:
    """Read the predictions of a run folder; raises ``UsageError`` if there are none."""
    try:
        with (folder / NAME).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, strict=True)
            if next(lines, None) != HEADER:
                raise ValueError("unexpected header")
            return [_parse_row(*line) for line in lines]
    except FileNotFoundError:
        why = "the run is not finished, or it is from an earlier release"
        raise UsageError(f"{folder}: no {NAME}; {why}") from None
    except (OSError, ValueError, TypeError, IndexError, csv.Error) as error:
        raise UsageError(f"{folder / NAME} cannot be read: {error}; run the recipe again") from error
