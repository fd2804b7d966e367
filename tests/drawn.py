"""Small folders of drawn photos, for tests that train."""

from __future__ import annotations

from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from finetune.data import splits

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 70, 210)}
SEED, SHARE = 42, 0.2  # of a recipe that does not say them


def folder(root: Path, *, each: int = 12, size: int = 40, seed: int = 0) -> Path:
    """Write ``each`` noisy JPEGs of one colour per class below ``root`` and return it.

    Of each class the last fifth, rounded, is held back for validation by default, however JPEGs are encoded here.
    """
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            held_back = number >= each - splits.count_drawn(each, SHARE)
            (root / name / f"{number:02d}.jpg").write_bytes(jpeg(rng, name, colour, size, held_back=held_back))
    return root


def jpeg(rng: np.random.Generator, name: str, colour: tuple[int, ...], size: int, *, held_back: bool) -> bytes:
    """Return a noisy JPEG of a class which is on one side of the split."""
    while True:
        pixels = np.clip(np.array(colour) + rng.normal(0, 40, (size, size, 3)), 0, 255).astype(np.uint8)
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        content = blake2b(file.getvalue(), digest_size=16).hexdigest()
        if (splits.compute_position(content, splits.make_key(SEED, name)) < SHARE) == held_back:
            return file.getvalue()
