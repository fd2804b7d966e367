"""Small photos drawn by code, identical on every machine, for tests of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Pixels

CLASSES = {"blue": (40, 70, 210), "green": (40, 180, 60), "red": (200, 40, 40)}


def draw_photos(root: Path, *, each: int = 4, size: int = 48) -> Path:
    """Write ``each`` JPEGs per class as ``red/red_0.jpg`` below ``root``, and return ``root``.

    The classes are blue, green and red. A photo is ``size`` pixels high and 4/3 as wide.
    """
    for number, (name, colour) in enumerate(CLASSES.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for count in range(each):
            tint = draw_picture(size, size * 4 // 3, seed=1000 * number + count) // 3
            pixels = tint + (np.array(colour) * 2 // 3).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}_{count}.jpg", quality=90)
    return root


def draw_picture(height: int, width: int, *, seed: int = 0) -> Pixels:
    """Return HWC uint8 RGB pixels without symmetry: gradients in three directions, with noise."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slopes = np.stack([x, y, (x + 2 * y) / 3], axis=-1)
    noise = np.random.Generator(np.random.Philox(key=[seed, 0])).random((height, width, 3))
    pixels: Pixels = ((0.8 * slopes + 0.2 * noise) * 255).astype(np.uint8)
    return pixels
