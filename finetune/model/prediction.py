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
