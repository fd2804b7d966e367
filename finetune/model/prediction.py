"""What a network says about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from finetune.data.walk import Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The likeliest class of an image with its probability, and the few likeliest in ``top``, best first."""

    path: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return f"{self.path}: {self.label} ({self.probability:.1%})"

    def _repr_html_(self) -> str:
        from finetune.display import html

        return html.prediction(self)


class Predictions(list[Prediction]):
    """Predictions in the order of their images; a notebook shows them as a table.

    ``skipped`` are the images in folders that have no prediction, each with ``path`` and ``text``, which says why.
    """

    def __init__(self, found: Iterable[Prediction] = (), skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(found)
        self.skipped = tuple(skipped)

    def _repr_html_(self) -> str:
        from finetune.display import html

        return html.predictions(self)
