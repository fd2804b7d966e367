"""Photos of a report: small pictures of images with their predictions, and heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from finetune.components import ImageSpec
from finetune.data.images import decode, fit, read_image
from finetune.errors import FinetuneError
from finetune.report.charts import encode_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetune.explain.explanation import Explanation
    from finetune.report.records import Scores

SIDE = 144  # pixels of a picture


class Photos:
    """Pictures of the images in ``scores``; an image that cannot be read has none.

    ``images`` are the images themselves, in the same order; without them, they are read from their files.
    """

    def __init__(self, scores: Scores, classes: Sequence[str], images: Sequence[Any] | None = None) -> None:
        self.scores, self.classes = scores, classes
        fits = images is not None and len(images) == len(scores.paths)
        self._images = images if fits else None
        self._pictures: dict[int, str] = {}
        self._heat: dict[int, str] = {}

    def describe(self, row: int) -> dict[str, Any]:
        """Return an image with its label, its prediction and its pictures."""
        score = self.scores.scored[row]
        return {
            "path": self.scores.paths[row],
            "label": self.classes[self.scores.labels[row]],
            "predicted": self.classes[score["predicted"]],
            "probability": float(score["confidence"]),
            "picture": self.draw(row),
            "heat": self._heat.get(row, ""),
        }

    def draw(self, row: int) -> str:
        """Return the picture of an image as a data URI; empty if its file cannot be read."""
        if row not in self._pictures:
            self._pictures[row] = draw_thumbnail(self.get_source(row))
        return self._pictures[row]

    def get_source(self, row: int) -> Any:
        """Return the image itself, or the path of its file."""
        return Path(self.scores.paths[row]) if self._images is None else self._images[row]

    def find(self, label: int, predicted: int) -> list[int]:
        """Return the rows of images of one class that were taken for another."""
        found = (self.scores.labels == label) & (self.scores.scored["predicted"] == predicted)
        return [int(row) for row in found.nonzero()[0]]

    def add_heat(self, rows: Sequence[int], explain: Callable[[Sequence[Any]], list[Explanation]] | None) -> str:
        """Compute the heat maps of images; return why there are none, or an empty text."""
        usable = [row for row in rows if self.draw(row)]
        if explain is None or not usable:
            return ""
        try:
            found = explain([read_whole(self.get_source(row)) for row in usable])
        except FinetuneError as error:
            return f"No heat maps: {error}."
        for row, each in zip(usable, found, strict=True):
            self._heat[row] = encode_picture(Image.fromarray(each.overlay()).resize((SIDE, SIDE)))
        return "The right half of each photo shows where the network sees the predicted class, brighter for more."


def read_whole(source: Any) -> Any:
    """Return a path unchanged, and any other image as its pixels."""
    return source if isinstance(source, Path) else decode(source)


def draw_thumbnail(source: Any, side: int = SIDE) -> str:
    """Return a small square picture of an image as a data URI; empty if it cannot be read."""
    spec = ImageSpec(size=side, resize=side)
    try:
        return encode_picture(Image.fromarray(fit(read_image(source, spec), spec)))
    except (FinetuneError, OSError, ValueError):
        return ""
