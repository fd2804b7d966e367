"""What a network says about one image."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Predictions in the order of their images; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        from finetune.display import html

        return html.predictions(self)
