"""From an image file to the input of the network, the same way in training, evaluation, prediction and export."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from finetune.data.imagefile import Refused, open_image
from finetune.data.looks import Look, look_at
from finetune.data.profiles import to_srgb
from finetune.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.components import Color, ImageSpec, Pixels
    from finetune.components import Image as Source


CONVERTIBLE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBA")
PREMULTIPLIED = ("La", "RGBa")
DEPTH = 257  # 16-bit values per 8-bit value: 65535 / 255


def to_rgb(image: Image.Image, background: tuple[int, int, int], color: Color = "convert") -> Pixels:
    """Return a loaded image as HWC uint8 RGB; raises ``Refused`` where the range of its values is anyone's guess.

    With ``color="convert"`` an embedded colour profile is obeyed. Lab images are converted in any case, since they
    hold no values of red, green and blue that could be taken as they are.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _convert_grey(image, background, color)
    if image.mode in PREMULTIPLIED:
        image = image.convert(image.mode.upper())
    if color == "convert" or image.mode == "LAB":
        image = to_srgb(image)
    if image.mode not in CONVERTIBLE:
        raise Refused(f"has the colour mode {image.mode}; save it as RGB")
    if image.has_transparency_data:
        image = _blend_over(image.convert("RGBA"), background)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _blend_over(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Lay an RGBA image over a colour; its own colours are not premultiplied."""
    result = Image.new("RGB", image.size, background)
    result.paste(image, mask=image.getchannel("A"))
    return result


def _convert_grey(image: Image.Image, background: tuple[int, int, int], color: Color) -> Pixels:
    """Return three equal channels of a grey image of more than 8 bits; one value may stand for transparent."""
    values = np.asarray(image)
    grey = Image.fromarray(_scale_floats(values) if image.mode == "F" else _scale_integers(values))
    if color == "convert" and "icc_profile" in image.info:
        grey.info["icc_profile"] = image.info["icc_profile"]
        grey = to_srgb(grey)
    pixels = np.array(grey.convert("RGB"))
    if isinstance(clear := image.info.get("transparency"), int):
        pixels[values == clear] = background
    return pixels


def _scale_integers(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale 16 bits to 8; some formats hand 16-bit images over as 32-bit integers."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Refused(f"holds integers from {low} to {high}; save it with 8 or 16 bits")
    wide = values.astype(np.uint32)
    return ((wide + DEPTH // 2) // DEPTH).astype(np.uint8)


def _scale_floats(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale 0..1 to 0..255; stretching any other range would give each image a brightness scale of its own."""
    floats = values.astype(np.float32)
    if not np.isfinite(floats).all():
        raise Refused("holds NaN or infinite values; save it with 8 or 16 bits")
    low, high = float(floats.min()), float(floats.max())
    if low < 0.0 or high > 1.0:
        raise Refused(f"holds real numbers from {low:g} to {high:g}, not 0 to 1; save it with 8 or 16 bits")
    scaled: NDArray[np.uint8] = np.rint(floats * 255.0).astype(np.uint8)
    return scaled


ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WHITE = (255, 255, 255)
SPARE = 2  # times the wanted side at which a JPEG is decoded; bilinear scaling then loses nothing that can be seen


def decode(
    source: Source, background: tuple[int, int, int] = WHITE, *, side: int = 0, color: Color = "convert"
) -> Pixels:
    """Return an image as HWC uint8 RGB, upright, first frame, transparent parts over ``background``.

    Colours are converted to sRGB by the profile in the file, or with ``color="ignore"`` taken as they are.
    16-bit grey is scaled by 1/257. A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets
    shorter than ``side``; 0 asks for every pixel. An array is checked and returned as it is. Raises ``DataError``
    naming the file if it is no regular file, no image, truncated, damaged, or larger than ``MAX_PIXELS``.

    Damage within the picture data of a JPEG, which has no checksum, goes unnoticed unless it makes the data run out.
    """
    if isinstance(source, np.ndarray):
        return check_array(source)
    with open_image(source) as image:
        if side and image.format != "HEIF":  # whose draft is an embedded thumbnail
            image.draft(None, (side, side))
        image.load()
        return to_rgb(turn_upright(image), background, color)


def examine(source: Source) -> Look:
    """Decode an image to see that it can be, and return its look; raises what ``decode`` raises.

    Its colours are not converted: that a profile can be used is known without doing so.
    """
    if isinstance(source, np.ndarray):
        height, width, _ = check_array(source).shape
        return Look(width, height)
    with open_image(source) as image:
        look = look_at(image)
        image.load()
        to_rgb(image, WHITE, "ignore")
    return look


def read_image(source: Source, spec: ImageSpec) -> Pixels:
    """Return ``decode`` of an image that is meant for ``spec``: large JPEGs at a fraction of their size."""
    return decode(source, spec.background, side=SPARE * max(spec.resize, spec.size), color=spec.color)


def check_array(pixels: NDArray[np.generic]) -> Pixels:
    """Return an array if it is HWC uint8 RGB with at least one pixel; raises ``DataError`` if not."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        shape = "x".join(map(str, pixels.shape))
        raise DataError(f"an array of shape {shape} and type {pixels.dtype} is no image; pass (height, width, 3) uint8")
    return pixels  # type: ignore[return-value]


def turn_upright(image: Image.Image) -> Image.Image:
    """Return a loaded image turned as its EXIF orientation says; Pillow itself turns TIFF and forgets the tag."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def fit(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Return the centre crop of ``spec.size`` after scaling the shorter side, or both, to ``spec.resize``.

    Bilinear with antialiasing; only what the crop shows is computed, so that a 1x30000 image is no problem.
    """
    height, width = pixels.shape[:2]
    full_height, full_width = compute_scaled_size(height, width, spec)
    top, left = (full_height - spec.size) // 2, (full_width - spec.size) // 2
    if (full_height, full_width) == (height, width):
        return np.ascontiguousarray(pixels[top : top + spec.size, left : left + spec.size])
    y, x = height / full_height, width / full_width
    box = (left * x, top * y, min((left + spec.size) * x, width), min((top + spec.size) * y, height))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box))


def compute_scaled_size(height: int, width: int, spec: ImageSpec) -> tuple[int, int]:
    """Return height and width after scaling and before the crop, never less than ``spec.size``."""
    side = max(spec.resize, spec.size)
    if not spec.keep_aspect:
        return side, side
    shorter = min(height, width)
    return max(side, math.floor(height * side / shorter + 0.5)), max(side, math.floor(width * side / shorter + 0.5))


def normalise(pixels: Pixels, spec: ImageSpec, out: NDArray[np.float32]) -> None:
    """Write ``(pixels / 255 - mean) / std`` into ``out``, float32 (3, H, W)."""
    scale, shift = np.array(spec.std) * 255.0, np.array(spec.mean) * 255.0
    for channel in range(3):
        np.subtract(pixels[..., channel], np.float32(shift[channel]), out=out[channel])
        np.multiply(out[channel], np.float32(1.0 / scale[channel]), out=out[channel])
