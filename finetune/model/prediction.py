"""What a network says about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.display import html
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from finetune.data.walk import Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The likeliest class of an image with its probability, and the few likeliest in ``top``, best first.

    ``path`` is what was given for the image, or ``images[3]`` for the fourth of images without a file.
    """

    path: str | Path
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return f"{escape_line(str(self.path))}: {self.label} ({self.probability:.1%})"

    def _repr_html_(self) -> str:
        return html.prediction(self.path, self.top)


class Predictions(list[Prediction]):
    """Predictions in the order of their images; a notebook shows them as a table.

    ``skipped`` are the images in folders that have no prediction, each with ``path`` and ``text``, which says why.
    """

    def __init__(self, found: Iterable[Prediction] = (), skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(found)
        self.skipped = tuple(skipped)

    def _repr_html_(self) -> str:
        return html.predictions([(each.path, each.top) for each in self])
