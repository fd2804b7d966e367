"""Small folders of drawn photos, for tests that train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 70, 210)}


def folder(root: Path, *, each: int = 12, size: int = 40, seed: int = 0) -> Path:
    """Write ``each`` noisy JPEGs of one colour per class below ``root`` and return it."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.jpg", quality=90)
    return root
