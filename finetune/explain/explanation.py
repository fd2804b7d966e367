"""Explanations: an image with the heat map of a class, as an array, a picture or a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from finetune.files.atomic import atomic_path, expand_home, translate_disk_errors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.explain.maps import Method

WEAKEST, STRONGEST = 0.25, 0.6  # opacity of the coldest and the hottest position
LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)
# Colours from cold to hot, RGB; their lightness rises, so that they are also read without colours.
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an image is taken for a class.

    Attributes:
        path: The path as it was given, or ``images[3]`` for the fourth image without a file.
        label: The class that the map explains; the most likely one unless another was asked for.
        probability: The probability of that class.
        map: float32 (h, w), one value for each position of the network; positive values speak for the class. With the
            method ``cam`` its mean plus the head's bias is the class's logit.
        pixels: uint8 (H, W, 3), the part of the image that the network sees.
        method: ``cam`` or ``grad-cam``.
    """

    path: str | Path
    label: str
    probability: float
    map: NDArray[np.float32] = field(repr=False)
    pixels: NDArray[np.uint8] = field(repr=False)
    method: Method = "cam"

    @property
    def heat(self) -> NDArray[np.float32]:
        """Where the class is seen, float32 (H, W) from 0 to 1, in the size of ``pixels``."""
        return enlarge_map(self.map, *self.pixels.shape[:2])

    def overlay(self) -> NDArray[np.uint8]:
        """Return the heat map over the image in grey, uint8 (H, W, 3)."""
        return render_overlay(self.pixels, self.map)

    def save(self, path: str | Path) -> None:
        """Write the overlay as PNG or JPEG, by the file's ending; raises ``ResourceError`` if the disk refuses."""
        path = expand_home(path)
        kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        with translate_disk_errors(path), atomic_path(path) as part:
            part.write_bytes(self.encode(kind))

    def encode(self, kind: str = "PNG") -> bytes:
        """Return the overlay as the content of a file."""
        data = BytesIO()
        Image.fromarray(self.overlay()).save(data, kind)
        return data.getvalue()

    def _repr_png_(self) -> bytes:
        return self.encode()


def enlarge_map(map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the positive part of a map (h, w) as float32 (height, width) from 0 to 1."""
    positive = np.maximum(map, 0)
    scaled = Image.fromarray(positive / max(float(positive.max()), 1e-12))
    return np.clip(np.asarray(scaled.resize((width, height), Image.Resampling.BICUBIC), np.float32), 0, 1)


def render_overlay(pixels: NDArray[np.uint8], map: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a map (h, w) as colours over an image (H, W, 3) in grey, uint8 (H, W, 3)."""
    heat = enlarge_map(map, *pixels.shape[:2])[..., None]
    opacity = WEAKEST + (STRONGEST - WEAKEST) * heat
    grey = pixels.astype(np.float32) @ LUMINANCE
    mixed = (1 - opacity) * grey[..., None] + opacity * colour_heat(heat[..., 0])
    found: NDArray[np.uint8] = (mixed + 0.5).astype(np.uint8)
    return found


def colour_heat(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colours (…, 3) of values from 0 to 1."""
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(heat, stops, [colour[i] for colour in COLOURS]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)
