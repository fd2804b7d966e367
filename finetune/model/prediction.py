"""What a network says about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.text import escape_line

if TYPE_CHECKING:
    from pathlib import Path


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
        from finetune.display import html

        return html.prediction(self)


class Predictions(list[Prediction]):
    """Predictions in the order of their images; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        from finetune.display import html

        return html.predictions(self)
