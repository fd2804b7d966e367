"""Heat maps point at the flower: the dataset ``shapes`` knows where it drew it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import Finetuner
from finetune_plugins import shapes, shapes_drawing

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SIDE, IMAGES = 96, 60


def draw_with_places(monkeypatch: pytest.MonkeyPatch, options: shapes.Shapes) -> tuple[list[Any], list[Any]]:
    """Return test images, and for each the pixels inside the circle around its flower."""
    pens: list[tuple[complex, float]] = []

    class Recorded(shapes_drawing.Pen):
        def __init__(self, draw: Any, place: complex, turn: complex, *more: Any) -> None:
            pens.append((place, abs(turn)))
            super().__init__(draw, place, turn, *more)

    monkeypatch.setattr(shapes_drawing, "Pen", Recorded)
    images, masks = [], []
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for index in range(IMAGES):
        pens.clear()
        images.append(shapes.draw(options, "test", index))
        place, radius = pens[0]  # of the flower; others draw its parts
        masks.append(np.hypot(x - place.real / 2, y - place.imag / 2) <= radius / 2)  # drawn in twice the size
    return images, masks


def test_the_strongest_tenth_lies_on_the_flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"use": "shapes", "train": 600, "valid": 120, "test": IMAGES, "classes": 6}
    size = {"size": SIDE, "resize": SIDE}
    ft = Finetuner("resnext_nano", image=size, freeze="none", device="cpu", progress=False, output=tmp_path)
    ft.fit(kinds, epochs=4)
    assert ft.evaluate()["accuracy"] > 0.8
    images, masks = draw_with_places(monkeypatch, shapes.Shapes(train=600, valid=120, test=IMAGES, classes=6))
    shares = []
    for each, mask in zip(ft.explain(images), masks, strict=True):
        strongest = np.argsort(-each.heat.ravel(), kind="stable")[: mask.size // 10]
        shares.append(mask.ravel()[strongest].mean())
    assert np.mean([mask.mean() for mask in masks]) < 0.5
    assert np.mean(shares) >= 0.8
