"""Drawing of a flower in a garden: a blurred background, stem, grass and light."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from finetune_plugins.shapes_flowers import GREEN, KINDS, PETALS
from finetune_plugins.shapes_pen import Pen, lighten_colour, make_petal, mix_colours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune_plugins.shapes_pen import Colour

    Random = np.random.Generator

USUAL = 0.5  # share of flowers in a typical colour of their kind
GROUNDS: tuple[tuple[Colour, Colour], ...] = (  # above and below
    *(((150, 190, 226), (96, 140, 70)), ((112, 156, 84), (52, 88, 44)), ((60, 92, 66), (30, 50, 38))),
    *(((236, 206, 160), (132, 120, 72)), ((196, 172, 190), (92, 108, 88)), ((172, 150, 122), (92, 72, 54))),
    *(((206, 216, 214), (130, 150, 120)), ((250, 222, 196), (150, 160, 110)), ((84, 110, 140), (44, 66, 62))),
)


def draw_picture(kind: str, size: int, rng: Random) -> NDArray[np.uint8]:
    """Return an image of a kind of flower, HWC uint8 RGB of side ``size``, with all randomness from ``rng``."""
    times = 2 if size >= 64 else 3  # drawing larger and scaling down gives soft edges
    side = size * times
    image, ground = draw_backdrop(side, rng)
    draw = ImageDraw.Draw(image, "RGBA")
    flower = KINDS[kind]
    choice = flower.colours if rng.random() < USUAL else PETALS
    colour = jitter_colour(choice[rng.integers(len(choice))], rng)
    radius = side * rng.uniform(0.30, 0.42) * flower.size
    place = side * complex(rng.uniform(0.38, 0.62), rng.uniform(0.36, 0.56))
    angle = rng.uniform(-1, 1) * flower.sway
    leaf = jitter_colour(GREEN, rng)
    turn = radius * complex(math.cos(angle), math.sin(angle))
    pen = Pen(draw, place, turn, rng.uniform(0.78, 1.0))
    draw_stem(draw, complex(pen.seen(flower.foot)), angle if flower.foot else 0.0, radius, leaf, rng)
    flower.draw(pen, rng, colour)
    draw_grass(draw, side, mix_colours(leaf, ground, 0.4), rng)
    return light_pixels(np.asarray(image.reduce(times)), rng)


def draw_backdrop(side: int, rng: Random) -> tuple[Image.Image, Colour]:
    """Return a blurred garden, and its colour near the ground."""
    above, below = GROUNDS[rng.integers(len(GROUNDS))]
    cells = 6
    share = np.linspace(0, 1, cells)[:, None, None] ** rng.uniform(0.6, 1.8)
    colours = np.array(above) * (1 - share) + np.array(below) * share
    colours = colours + rng.normal(0, 20, (cells, cells, 1)) + rng.normal(0, 8, (cells, cells, 3))
    small = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(small, "RGBA")
    for _ in range(int(rng.integers(0, 7))):  # more flowers and spots of light
        x, y, radius = rng.uniform(-2, 34), rng.uniform(-2, 34), rng.uniform(1.5, 5)
        colour = jitter_colour(PETALS[rng.integers(len(PETALS))], rng)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour, int(rng.integers(40, 130))))
    small = small.filter(ImageFilter.BoxBlur(1))
    return small.resize((side, side), Image.Resampling.BICUBIC), jitter_colour(below, rng)


def draw_stem(
    draw: ImageDraw.ImageDraw, place: complex, angle: float, radius: float, colour: Colour, rng: Random
) -> None:
    """Draw a bent stem with two leaves from the flower to the lower edge."""
    down = 1j * np.exp(-1j * angle)
    foot = place + radius * 3.2 * (down + rng.normal(0, 0.12))
    t = np.linspace(0, 1, 10)
    middle = place + radius * 1.3 * down
    path = (1 - t) ** 2 * place + 2 * t * (1 - t) * middle + t**2 * foot
    dark = lighten_colour(colour, -0.3)
    for shift, width, shade in ((0.0, 0.1, dark), (-0.015 * radius, 0.055, colour)):
        points = (path + shift).view(np.float64).tolist()
        draw.line(points, fill=shade, width=max(1, round(width * radius)), joint="curve")
    for index, lean in ((5, -1), (6, 1)):
        turn = np.exp(1j * (math.pi / 2 + lean * rng.uniform(0.5, 1.1))) * radius * rng.uniform(0.7, 1.1)
        pen = Pen(draw, complex(path[index]), complex(turn))
        blade = make_petal(0.34, 0.45, 1.0)
        pen.shape(blade, dark)
        pen.shape(blade.real + 0.5j * blade.imag, colour)


def draw_grass(draw: ImageDraw.ImageDraw, side: int, colour: Colour, rng: Random) -> None:
    """Draw blades of grass in front of the flower, few of them tall."""
    for _ in range(int(rng.integers(2, 8))):
        x, lean, wide = rng.uniform(-0.05, 1.05) * side, rng.normal(0, 0.14) * side, rng.uniform(0.015, 0.035) * side
        high = side * rng.uniform(0.12, 0.34) * (2.4 if rng.random() < 0.12 else 1.0)
        middle, bend = side - 0.55 * high, x + 0.3 * lean
        left, right = ((x - wide, side), (bend - 0.7 * wide, middle)), ((bend + 0.7 * wide, middle), (x + wide, side))
        draw.polygon((*left, (x + lean, side - high), *right), fill=lighten_colour(colour, rng.normal(0, 0.15)))


def light_pixels(pixels: NDArray[np.uint8], rng: Random) -> NDArray[np.uint8]:
    """Return pixels with light from one side, a tint and grain."""
    size = len(pixels)
    across = np.linspace(-1, 1, size, dtype=np.float32)
    angle, depth = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.22)
    light = 1 + depth * (np.float32(math.cos(angle)) * across[None, :] + np.float32(math.sin(angle)) * across[:, None])
    tint = (rng.uniform(0.84, 1.1) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(rng.uniform(1.5, 6))
    made: NDArray[np.uint8] = np.clip(pixels * (light[..., None] * tint) + grain, 0, 255).astype(np.uint8)
    return made


def jitter_colour(colour: Colour, rng: Random) -> Colour:
    """Return a colour with a small random shift."""
    r, g, b = (max(0, min(255, round(c + d))) for c, d in zip(colour, rng.normal(0, 11, 3).tolist(), strict=True))
    return r, g, b
