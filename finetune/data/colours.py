"""From the colour modes that image files come in to 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from finetune.data.imagefile import Refused
from finetune.data.profiles import to_srgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.components import Color, Pixels

CONVERTIBLE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBA")
PREMULTIPLIED = ("La", "RGBa")
DEPTH = 257  # 16-bit values per 8-bit value: 65535 / 255


def to_rgb(image: Image.Image, background: tuple[int, int, int], color: Color = "convert") -> Pixels:
    """Return a loaded image as HWC uint8 RGB; raises ``Refused`` where the range of its values is anyone's guess.

    With ``color="convert"`` an embedded colour profile is obeyed. Lab images are converted in any case, since they
    hold no values of red, green and blue that could be taken as they are.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey(image, background, color)
    if image.mode in PREMULTIPLIED:
        image = image.convert(image.mode.upper())
    if color == "convert" or image.mode == "LAB":
        image = to_srgb(image)
    if image.mode not in CONVERTIBLE:
        raise Refused(f"has the colour mode {image.mode}; save it as RGB")
    if image.has_transparency_data:
        image = _over(image.convert("RGBA"), background)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _over(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Lay an RGBA image over a colour; its own colours are not premultiplied."""
    result = Image.new("RGB", image.size, background)
    result.paste(image, mask=image.getchannel("A"))
    return result


def _grey(image: Image.Image, background: tuple[int, int, int], color: Color) -> Pixels:
    """Return three equal channels of a grey image of more than 8 bits; one value may stand for transparent."""
    values = np.asarray(image)
    grey = Image.fromarray(_from_floats(values) if image.mode == "F" else _from_integers(values))
    if color == "convert" and "icc_profile" in image.info:
        grey.info["icc_profile"] = image.info["icc_profile"]
        grey = to_srgb(grey)
    pixels = np.array(grey.convert("RGB"))
    if isinstance(clear := image.info.get("transparency"), int):
        pixels[values == clear] = background
    return pixels


def _from_integers(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale 16 bits to 8; some formats hand 16-bit images over as 32-bit integers."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Refused(f"holds integers from {low} to {high}; save it with 8 or 16 bits")
    wide = values.astype(np.uint32)
    return ((wide + DEPTH // 2) // DEPTH).astype(np.uint8)


def _from_floats(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale 0..1 to 0..255; stretching any other range would give each image a brightness scale of its own."""
    floats = values.astype(np.float32)
    if not np.isfinite(floats).all():
        raise Refused("holds NaN or infinite values; save it with 8 or 16 bits")
    low, high = float(floats.min()), float(floats.max())
    if low < 0.0 or high > 1.0:
        raise Refused(f"holds real numbers from {low:g} to {high:g}, not 0 to 1; save it with 8 or 16 bits")
    scaled: NDArray[np.uint8] = np.rint(floats * 255.0).astype(np.uint8)
    return scaled
