"""Drawing of fractals: in the colours of a class on a blurred background, at a random angle, size and position."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from finetune_fractals.system import VARIANTS, compute_orbit, make_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune_fractals.system import Random

    Picture = NDArray[np.float32]

PALETTES = 20  # shared by many fractals, so that colour alone does not identify them
PALETTE_KEY = 1 << 62
MAPS = 4  # maximum of a system


def draw_picture(seed: int, number: int, size: int, rng: Random) -> NDArray[np.uint8]:
    """Return an image of fractal ``number``, HWC uint8 RGB of side ``size``, with all randomness from ``rng``."""
    canvas = draw_ground(size, rng)
    colours = tint_colours(choose_palette(seed, number % PALETTES), rng)
    for _ in range(1 if rng.random() < 0.7 else int(rng.integers(2, 4))):
        lay_fractal(canvas, seed, number, colours, rng)
    return light_canvas(canvas, rng)


@lru_cache(maxsize=PALETTES * 4)
def choose_palette(seed: int, number: int) -> Picture:
    """Return the colours (4, 3) in 0..255 of a fractal's maps: neighbours of one or two hues."""
    rng = make_generator(seed, PALETTE_KEY + number)
    hues = number / PALETTES + rng.choice((0.0, 0.0, 0.08, -0.08, 0.5), MAPS) + rng.normal(0, 0.02, MAPS)
    return convert_to_rgb(hues, rng.uniform(0.35, 1.0, MAPS), rng.uniform(0.55, 1.0, MAPS))


def convert_to_rgb(hue: NDArray[np.float64], saturation: NDArray[np.float64], value: NDArray[np.float64]) -> Picture:
    """Return colours (N, 3) in 0..255 for hues in turns, saturations and values in 0..1."""
    wheel = np.abs((hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    pure = np.clip(wheel, 0, 1)
    colours: Picture = (255 * value[:, None] * (1 - saturation[:, None] * (1 - pure))).astype(np.float32)
    return colours


def tint_colours(colours: Picture, rng: Random) -> Picture:
    """Return colours with a small random shift."""
    shade = rng.uniform(0.75, 1.2) * rng.uniform(0.88, 1.12, 3)
    return np.clip(colours * shade.astype(np.float32) + rng.normal(0, 10, colours.shape), 0, 255).astype(np.float32)


def draw_ground(size: int, rng: Random) -> Picture:
    """Return a blurred background (size, size, 3) in 0..255: coarse patches with finer ones over them."""
    base = rng.uniform(20, 235, 3)
    ground = np.zeros((size, size, 3), np.float32) + base.astype(np.float32)
    for cells, depth in ((3, rng.uniform(5, 45)), (int(rng.integers(5, 14)), rng.uniform(0, 25))):
        patches = rng.normal(0, depth, (cells, cells, 1)) + rng.normal(0, depth / 2, (cells, cells, 3))
        small = Image.fromarray(np.clip(patches + 128, 0, 255).astype(np.uint8))
        ground += np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float32) - 128
    return ground


def lay_fractal(canvas: Picture, seed: int, number: int, colours: Picture, rng: Random) -> None:
    """Draw a fractal over a canvas; it is more opaque where more points fall."""
    size = len(canvas)
    found = compute_orbit(seed, number, int(rng.integers(VARIANTS)))
    scale, angle = size * rng.uniform(0.28, 0.52), rng.normal(0, 0.5)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn = turn * (rng.choice((-1, 1)), 1) @ np.array([[1, rng.normal(0, 0.15)], [0, rng.uniform(0.75, 1.3)]])
    centre = size * rng.uniform(0.35, 0.65, 2)
    places = (found.points.astype(np.float32) @ (scale * turn).astype(np.float32) + centre).astype(np.int32)
    inside = ((places >= 0) & (places < size)).all(axis=1)
    places, maps = places[inside], found.maps[inside]
    flat = (places[:, 1] * size + places[:, 0]) * MAPS + maps
    counts = np.bincount(flat, minlength=size * size * MAPS).reshape(size, size, MAPS).astype(np.float32)
    hits = counts.sum(axis=2, keepdims=True)
    paint = counts @ colours / np.maximum(hits, 1)
    density = len(found.points) / (3.0 * scale * scale)
    cover = 1 - np.exp(-hits * (rng.uniform(1.5, 4) / max(density, 1)))
    light = 0.65 + 0.35 * np.minimum(hits / (4 * max(density, 1)), 1.2)
    canvas += cover * (paint * light - canvas)


def light_canvas(canvas: Picture, rng: Random) -> NDArray[np.uint8]:
    """Return pixels with random contrast, brightness and grain."""
    grain = rng.standard_normal((*canvas.shape[:2], 1), dtype=np.float32) * np.float32(rng.uniform(0, 8))
    middle = canvas.mean()
    made = (canvas - middle) * rng.uniform(0.7, 1.15) + middle * rng.uniform(0.75, 1.2) + grain
    pixels: NDArray[np.uint8] = np.clip(made, 0, 255).astype(np.uint8)
    return pixels
