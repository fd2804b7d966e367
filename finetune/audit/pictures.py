"""Picture checks: brightness, sharpness, content and colour of each image, and a perceptual hash."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

from finetune.data.imagefile import open_image
from finetune.data.images import to_rgb, turn_upright
from finetune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from finetune.components import Image as Picture
    from finetune.components import Pixels

SIDE = 256  # pixels of the longer side at which images are measured
HASH_SIDE = 8
WHITE = (255, 255, 255)
DARK, LIGHT = 64, 235  # of 255: the brightest percent below, or the darkest twentieth above
BLURRY = 12.0  # variance of the Laplacian at ``SIDE``
EMPTY = 2.5  # bits of entropy of the brightness
LONG = 3.0  # ratio of the sides
SMALL, LARGE = 0.1, 10.0  # area, relative to the median
GREY, COLOURED = 3.0, 0.8  # mean difference of the channels; share of colour images among which grey ones are odd

ROW = np.dtype(
    [
        *[("width", "<i4"), ("height", "<i4"), ("brightest", "<f4"), ("darkest", "<f4"), ("brightness", "<f4")],
        *[("sharpness", "<f4"), ("entropy", "<f4"), ("colour", "<f4"), ("hash", "<u8"), ("pixels", "<u8")],
    ]
)
KERNEL = ((0, 1, 0), (1, -4, 1), (0, 1, 0))


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says about its image: format, camera and day, each empty if it says nothing."""

    format: str = ""
    camera: str = ""
    day: str = ""


def measure_images(
    images: Sequence[Picture], workers: int, progress: Callable[[int], None] = lambda done: None
) -> tuple[NDArray[np.void], list[Metadata]]:
    """Measure images in threads; return rows of ``ROW`` and the metadata of each file, in order."""
    rows, about = np.zeros(len(images), ROW), [Metadata()] * len(images)

    def measure(index: int) -> None:
        rows[index], about[index] = measure_image(images[index])

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, _ in enumerate(pool.map(measure, range(len(images))), 1):
            progress(done)
    return rows, about


def measure_image(image: Picture) -> tuple[tuple[float, ...], Metadata]:
    """Measure one image; raises ``DataError`` if it can no longer be read."""
    if isinstance(image, np.ndarray):
        return measure_pixels(Image.fromarray(image), image.shape[1], image.shape[0]), Metadata()
    with open_image(image) as opened:
        about = read_metadata(opened)
        width, height = turn_sides(opened)
        scale = SIDE / max(opened.size)
        opened.draft("RGB", (math.ceil(scale * opened.width), math.ceil(scale * opened.height)))
        opened.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = to_rgb(turn_upright(opened), WHITE, "ignore")
    return measure_pixels(Image.fromarray(pixels), width, height), about


def turn_sides(image: Image.Image) -> tuple[int, int]:
    """Return width and height as the image is shown."""
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else (image.width, image.height)


def read_metadata(image: Image.Image) -> Metadata:
    """Read format, camera and day of an opened image."""
    exif = image.getexif()
    camera, day = str(exif.get(0x0110, "")).strip("\0 "), str(exif.get(0x0132, ""))[:10]
    return Metadata(image.format or "", camera, day)


def measure_pixels(image: Image.Image, width: int, height: int) -> tuple[float, ...]:
    """Return the row of an RGB image, whose file has the given sides."""
    small = image
    if max(image.size) > SIDE:
        small = image.copy()
        small.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    grey = small.convert("L")
    counts = np.array(grey.histogram(), np.float64) / (small.width * small.height)
    cumulated = np.cumsum(counts)
    used = counts[counts > 0]
    return (
        width,
        height,
        float(np.searchsorted(cumulated, 0.99)),
        float(np.searchsorted(cumulated, 0.05)),
        float(counts @ np.arange(256)),
        measure_sharpness(np.asarray(grey, np.uint8)),
        float(-(used * np.log2(used)).sum()),
        measure_colour(small),
        compute_hash(grey if small is image else image.convert("L")),
        hash_pixels(np.asarray(small, np.uint8)),
    )


def measure_colour(image: Image.Image) -> float:
    """Return the mean difference between the largest and the smallest channel."""
    red, green, blue = image.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    counts = np.array(ImageChops.subtract(highest, lowest).histogram(), np.float64)
    return float(counts @ np.arange(256) / counts.sum())


def measure_sharpness(grey: Pixels) -> float:
    """Return the variance of the Laplacian (Pech-Pacheco et al. 2000)."""
    if min(grey.shape) < 3:
        return 0.0
    plane = grey.astype(np.int16)
    laplacian = plane[1:-1, 1:-1] * np.int16(-4)
    for beside in (plane[:-2, 1:-1], plane[2:, 1:-1], plane[1:-1, :-2], plane[1:-1, 2:]):
        laplacian += beside
    return float(laplacian.astype(np.float32).var())


def compute_hash(image: Image.Image) -> int:
    """Return 64 bits, similar for similar grey images: whether each of 8 x 8 cells is brighter than the next."""
    grey = np.asarray(image.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def hash_pixels(pixels: Pixels) -> int:
    """Return a hash of decoded pixels, which is the same for copies in different files."""
    from hashlib import blake2b

    return int.from_bytes(blake2b(np.ascontiguousarray(pixels).data, digest_size=8).digest(), "little")


def find_quality_problems(rows: NDArray[np.void]) -> list[tuple[str, ...]]:
    """Return the names of what is odd about each image."""
    area = rows["width"].astype(np.float64) * rows["height"]
    relative = area / max(1.0, float(np.median(area)))
    ratio = np.maximum(rows["width"], rows["height"]) / np.maximum(1, np.minimum(rows["width"], rows["height"]))
    grey = rows["colour"] < GREY
    tests = {
        "dark": rows["brightest"] < DARK,
        "light": rows["darkest"] > LIGHT,
        "empty": rows["entropy"] < EMPTY,
        "blurry": (rows["sharpness"] < BLURRY) & (rows["entropy"] >= EMPTY),
        "odd shape": ratio > LONG,
        "odd size": (relative < SMALL) | (relative > LARGE),
        "greyscale": grey & (np.mean(~grey) >= COLOURED),
    }
    return [tuple(name for name, found in tests.items() if found[row]) for row in range(len(rows))]


def explain_unreadable(name: str, error: DataError) -> DataError:
    """Return the error for an image that changed since the scan."""
    return DataError(f"{name}: {error}; it was readable when the audit started")
