"""Images with a corner that tells a turn from a flip, their files, and why one is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from finetune.data.images import decode
from finetune.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image


def photo(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """Return a smooth image with a bright top left corner, so that a turn or a flip shows."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    base = np.stack([1 - y * x, 1 - (x + y) / 2, (1 - x) * (1 - y)], axis=-1)
    noise = np.random.default_rng(seed).random((height, width, 3)) * 0.05
    return ((base * 0.9 + noise) * 255).clip(0, 255).astype(np.uint8)


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> Path:
    """Write an image and return its path."""
    path = folder / name
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def refused(path: Path) -> str:
    """Return the reason for which a file is refused; the message must open with its name."""
    with pytest.raises(DataError) as caught:
        decode(path)
    message = str(caught.value)
    assert message.startswith(f"'{path}' ")
    assert "\n" not in message
    return message.removeprefix(f"'{path}' ")
