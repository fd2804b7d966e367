"""Image decoding: turns an image file into network input, identically in training, evaluation and prediction."""

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
    """Convert a loaded image to HWC uint8 RGB; raises ``Refused`` if the range of its values is ambiguous.

    ``color="convert"`` applies an embedded colour profile. Lab images are always converted, since they have no red,
    green and blue values that could be used unchanged.
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
    """Blend an RGBA image, whose colours are not premultiplied, over a background colour."""
    result = Image.new("RGB", image.size, background)
    result.paste(image, mask=image.getchannel("A"))
    return result


def _convert_grey(image: Image.Image, background: tuple[int, int, int], color: Color) -> Pixels:
    """Convert a grey image of more than 8 bits to three equal channels; one value may mean transparent."""
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
    """Scale 16 bits to 8; for some formats Pillow returns 16-bit images as 32-bit integers."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Refused(f"holds integers from {low} to {high}; save it with 8 or 16 bits")
    wide = values.astype(np.uint32)
    return ((wide + DEPTH // 2) // DEPTH).astype(np.uint8)


def _scale_floats(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale 0..1 to 0..255; stretching any other range would give every image its own brightness scale."""
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
SPARE = 2  # a JPEG is decoded at no less than this times the requested side, so that scaling loses nothing visible


def decode(
    source: Source, background: tuple[int, int, int] = WHITE, *, side: int = 0, color: Color = "convert"
) -> Pixels:
    """Decode an image to HWC uint8 RGB: upright, first frame, transparent parts over ``background``.

    Colours are converted to sRGB by the profile in the file; ``color="ignore"`` uses them unchanged. 16-bit grey is
    scaled by 1/257. A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets shorter than ``side``;
    0 decodes every pixel. An array is checked and returned unchanged. Raises ``DataError`` naming the file if it is not
    a regular file, not an image, truncated, damaged, or larger than ``MAX_PIXELS``.

    Damage within the pixel data of a JPEG, which has no checksum, is not detected unless the data ends too early.
    """
    if isinstance(source, np.ndarray):
        return check_array(source)
    with open_image(source) as image:
        if side and image.format != "HEIF":  # the draft of a HEIF file is its embedded thumbnail
            image.draft(None, (side, side))
        image.load()
        return to_rgb(turn_upright(image), background, color)


def examine(source: Source) -> Look:
    """Check that an image can be decoded, and return its look; raises the errors of ``decode``.

    Colours are not converted, since whether a profile can be used is known without that.
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
    """Decode an image for ``spec``: large JPEGs at a fraction of their size."""
    return decode(source, spec.background, side=SPARE * max(spec.resize, spec.size), color=spec.color)


def check_array(pixels: NDArray[np.generic]) -> Pixels:
    """Return an array that is HWC uint8 RGB with at least one pixel; raises ``DataError`` for any other array."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        shape = "x".join(map(str, pixels.shape))
        wrong = f"an array of shape {shape} and type {pixels.dtype} is not an image"
        raise DataError(f"{wrong}; pass (height, width, 3) uint8")
    return pixels  # type: ignore[return-value]


def turn_upright(image: Image.Image) -> Image.Image:
    """Rotate a loaded image by its EXIF orientation; Pillow itself rotates TIFF and removes the tag."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # the pixels can be intact although the EXIF block is damaged
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def fit(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Scale the shorter side, or both, to ``spec.resize``, and return the centre crop of ``spec.size``.

    Scaling is bilinear with antialiasing. Only the pixels of the crop are computed, so that a 1x30000 image is cheap.
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
    """Return height and width after scaling and before cropping, at least ``spec.size``."""
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


def denormalise(image: NDArray[np.float32], spec: ImageSpec) -> Pixels:
    """Convert a normalised (3, H, W) float32 image to HWC uint8 pixels."""
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (spec.mean, spec.std))
    pixels = np.clip((image * std + mean) * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
