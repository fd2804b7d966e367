"""Ten kinds of flowers that differ in shape; each kind may have nearly any colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune_plugins.shapes_pen import lighten_colour, make_circle, make_heart, make_petal, make_ring, mix_colours

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune_plugins.shapes_pen import Colour, Outline, Pen

    Random = np.random.Generator

GOLDEN = math.pi * (3 - math.sqrt(5))  # radians between neighbouring seeds of a flower head (Vogel 1979)
PETALS: tuple[Colour, ...] = (
    *((246, 243, 236), (250, 228, 170), (250, 206, 46), (244, 142, 38), (214, 44, 44), (168, 26, 72)),
    *((242, 146, 178), (212, 66, 152), (142, 88, 186), (82, 100, 212), (132, 172, 236), (150, 190, 90)),
)
YELLOW, BROWN, BLACK, GREEN, PALE = (246, 196, 48), (96, 58, 30), (44, 28, 40), (92, 136, 52), (250, 244, 214)


@dataclass(frozen=True, slots=True)
class Kind:
    """How to draw a flower around 0, and its typical colours.

    ``sway`` is the maximum rotation in radians, ``size`` the radius relative to other kinds, ``foot`` the start of the
    stem.
    """

    draw: Callable[[Pen, Random, Colour], None]
    colours: tuple[Colour, ...]
    sway: float = math.pi
    size: float = 1.0
    foot: complex = 0


def draw_layered(pen: Pen, rng: Random, outlines: Outline, colour: Colour, light: float = 0.16) -> None:
    """Draw overlapping petals: a dark rim, the petal, and a lighter streak from its base."""
    base = outlines[:, :1]
    inner = outlines - base
    middle = inner.mean(axis=1, keepdims=True)
    axis = middle / np.abs(middle)
    inside = base + 0.04 * middle + 0.93 * inner
    upright = inner * np.conj(axis)
    streak = base + axis * (0.82 * upright.real + 0.45j * upright.imag)
    own = [lighten_colour(colour, shade) for shade in rng.normal(0, 0.05, len(outlines)).tolist()]
    shades = [shade for each in own for shade in (lighten_colour(each, -0.34), each, lighten_colour(each, light))]
    pen.shapes(np.stack([outlines, inside, streak], axis=1).reshape(-1, outlines.shape[1]), shades)


def spread_seeds(count: int, radius: float) -> Outline:
    """Return points arranged like the seeds of a flower head."""
    i = np.arange(count)
    points: Outline = radius * np.sqrt((i + 0.5) / count) * np.exp(1j * GOLDEN * i)
    return points


def draw_daisy(pen: Pen, rng: Random, colour: Colour) -> None:
    count = int(rng.integers(13, 20))
    sizes = rng.uniform(0.9, 1.0, count)
    draw_layered(pen, rng, make_ring(make_petal(0.24, 0.62, 0.0), count, rng.uniform(0, 6), sizes), colour)
    middle = mix_colours(YELLOW, BROWN, rng.uniform(0, 0.35))
    pen.disc(0, 0.27, lighten_colour(middle, -0.3))
    pen.disc(0.015 + 0.02j, 0.245, middle)
    pen.dots(spread_seeds(22, 0.21), 0.022, [lighten_colour(middle, 0.35), lighten_colour(middle, -0.2)] * 11)


def draw_sunflower(pen: Pen, rng: Random, colour: Colour) -> None:
    count, start = int(rng.integers(15, 21)), rng.uniform(0, 6)
    draw_layered(
        pen, rng, make_ring(make_petal(0.3, 0.42, 1.0), count, start, 1.0), lighten_colour(colour, -0.18), 0.08
    )
    draw_layered(pen, rng, make_ring(make_petal(0.28, 0.42, 1.0), count, start + math.pi / count, 0.9), colour)
    dark = mix_colours(BROWN, BLACK, rng.uniform(0, 0.7))
    pen.disc(0, 0.52, lighten_colour(dark, -0.4))
    pen.disc(0, 0.48, dark)
    pen.dots(
        spread_seeds(70, 0.45),
        0.024,
        [lighten_colour(dark, 0.35), lighten_colour(dark, 0.15), mix_colours(dark, YELLOW, 0.5)] * 24,
    )
    pen.disc(0, 0.13, lighten_colour(dark, -0.35))


def draw_tulip(pen: Pen, rng: Random, colour: Colour) -> None:
    wide, flare = rng.uniform(0.8, 1.0), rng.uniform(0.05, 0.3)
    leaf = make_petal(0.84, 0.4, 0.7)
    height = leaf.real
    upright = 1j * leaf * 1.7
    lean = upright + (0.34 + flare * height) * height * 1.7 * wide
    behind = upright * 0.98 + 0.2 * height
    draw_layered(pen, rng, np.stack([behind, -np.conj(behind)]) - 0.85j, lighten_colour(colour, -0.25), 0.05)
    draw_layered(pen, rng, np.stack([lean * 0.95, -np.conj(lean) * 0.95, upright * 0.86]) - 0.85j, colour)
    pen.curve(np.linspace(-0.75, 0.35, 6) * 1j, 0.025, lighten_colour(colour, -0.2))


def draw_rose(pen: Pen, rng: Random, colour: Colour) -> None:
    start = rng.uniform(0, 6)
    for size, count, shade in ((1.0, 5, -0.16), (0.82, 5, -0.04), (0.62, 4, 0.05), (0.44, 3, 0.12)):
        start += rng.uniform(0.5, 0.9)
        for turn in np.exp(1j * (start + 2 * math.pi * np.arange(count) / count)):
            outline = size * turn * (0.42 + 0.6 * make_circle() * (0.92 + 0.08 * make_circle() ** 3))
            own = lighten_colour(colour, shade + rng.normal(0, 0.03))
            pen.shape(outline, lighten_colour(own, -0.45))
            pen.shape(outline * 0.955, own)
            pen.shape(outline * 0.8, lighten_colour(own, -0.12))
    bend = np.linspace(0, 4.2 * math.pi, 40)
    pen.disc(0, 0.3, lighten_colour(colour, -0.12))
    pen.curve((0.03 + 0.27 * bend / bend[-1]) * np.exp(1j * (bend + start)), 0.045, lighten_colour(colour, -0.5))


def draw_lily(pen: Pen, rng: Random, colour: Colour) -> None:
    start = rng.uniform(0, 6)
    for turn, size in ((0.0, 1.0), (math.pi / 3, 0.94)):
        outlines = make_ring(make_petal(0.46, 0.5, 0.9), 3, start + turn, size)
        draw_layered(pen, rng, outlines, colour, 0.3)
        pen.lines(0.1 * outlines[:, 10], 0.8 * outlines[:, 10], 0.03, lighten_colour(colour, -0.25))
    spots = make_ring(np.array([0.3 + 0.06j, 0.4 - 0.05j, 0.5 + 0.05j, 0.34 - 0.07j]), 6, start)
    pen.dots(spots.ravel(), 0.024, [lighten_colour(colour, -0.55)] * 24)
    pen.disc(0, 0.1, mix_colours(colour, GREEN, 0.7))
    ends = make_ring(np.array([rng.uniform(0.42, 0.56)]), 6, start + rng.uniform(0.2, 0.7)).ravel()
    pen.lines(0, ends, 0.03, PALE)
    anthers = ends[:, None] + make_ring(0.11j * (make_petal(0.5, 0.5, 0.0) - 0.5), 6, start)
    pen.shapes(anthers, [mix_colours(BROWN, YELLOW, 0.25)] * 6)


def draw_clover(pen: Pen, rng: Random, colour: Colour) -> None:
    count = 4 if rng.random() < 0.25 else 3
    across = 1.0 if count == 3 else 0.84
    leaf = make_heart().real + 1j * across * make_heart().imag
    outlines = make_ring(leaf, count, rng.uniform(0, 6), rng.uniform(0.92, 1.0, count))
    for outline, shade in zip(outlines, rng.normal(0, 0.06, count).tolist(), strict=True):
        own, middle = lighten_colour(colour, shade), outline.mean()
        pen.shape(outline, lighten_colour(own, -0.42))
        pen.shape(0.05 * middle + 0.93 * outline, own)
        pen.shape(0.16 * middle + 0.66 * outline, lighten_colour(own, 0.4))
        pen.shape(0.5 * outline, own)
        pen.lines(0, outline[[9, 14, 19]] * 0.86, 0.02, lighten_colour(own, -0.22))
    pen.disc(0, 0.05, lighten_colour(colour, 0.3))


def draw_poppy(pen: Pen, rng: Random, colour: Colour) -> None:
    start = rng.uniform(0, 6)
    wave = 1 + 0.05 * np.sin(np.angle(make_circle()) * rng.integers(5, 8) + rng.uniform(0, 6))
    edge = 0.5 + (0.5 * make_circle().real + 0.62j * make_circle().imag) * wave
    for half_turns, size, shade in ((0.0, 1.0, -0.1), (0.5, 1.0, -0.1), *((0.25 + i / 2, 0.9, 0.0) for i in range(4))):
        direction = np.exp(1j * (start + math.pi * half_turns))
        outline, own = size * direction * edge, lighten_colour(colour, shade + rng.normal(0, 0.06))
        pen.shape(outline, lighten_colour(own, -0.36))
        pen.shape(0.03 * direction + outline * 0.945, own)
        pen.shape(0.2 * direction + outline * 0.6, lighten_colour(own, 0.1))
        pen.shape(direction * 0.34 * make_petal(0.9, 0.6, 0.0), mix_colours(own, BLACK, 0.85))
    pen.disc(0, 0.27, BLACK)
    stamens = make_ring(np.array([0.2, 0.29]), 15, start).ravel()
    pen.dots(stamens, 0.028, [mix_colours(BLACK, YELLOW, 0.4), mix_colours(BLACK, PALE, 0.35)] * 15)
    pen.disc(0, 0.13, mix_colours(GREEN, PALE, 0.3))
    pen.lines(0, make_ring(np.array([0.12 + 0j]), 8, start).ravel(), 0.02, mix_colours(GREEN, BLACK, 0.5))


def draw_bellflower(pen: Pen, rng: Random, colour: Colour) -> None:
    t = np.linspace(0, 1, 12)
    side = 1 if rng.random() < 0.5 else -1
    stalk = side * (1.2 * t**2 - 0.6 * t) + 1j * (1.95 * np.sin(t * math.pi * 0.6) - 1.05)
    green = mix_colours(GREEN, BLACK, 0.25)
    pen.curve(stalk, 0.06, green)
    bell = np.array([-0.07, -0.21 - 0.1j, -0.28 - 0.4j, -0.43 - 0.72j])
    hem = np.array([-0.26 - 0.64j, -0.14 - 0.78j, -0.64j, 0.14 - 0.78j, 0.26 - 0.64j])
    outline = np.concatenate([bell, hem, -np.conj(bell[::-1])])
    for index, shift in ((4, -side * 0.42), (6, side * 0.36), (8, -side * 0.34), (11, side * 0.14)):
        at = stalk[index] + shift
        pen.curve(np.array([stalk[index], (stalk[index] + at) / 2 + 0.12j, at]), 0.04, green)
        turn = np.exp(1j * (rng.normal(0, 0.1) + shift * 0.5)) * rng.uniform(0.72, 0.86)
        own = lighten_colour(colour, rng.normal(0, 0.05))
        pen.disc(at + turn * -0.76j, 0.05, PALE)
        pen.shape(at + turn * outline, lighten_colour(own, -0.4))
        pen.shape(at + turn * (outline * 0.92 - 0.02j), own)
        pen.shape(at + turn * ((outline.real * 0.3 - 0.06) + 1j * outline.imag * 0.8), lighten_colour(own, 0.22))
        pen.shape(at + turn * (0.14 * make_circle().real + 0.08j * make_circle().imag), green)


def draw_lavender(pen: Pen, rng: Random, colour: Colour) -> None:
    pen.curve(np.array([-1.1j, 1.0j]), 0.06, mix_colours(GREEN, BLACK, 0.2))
    slim = rng.uniform(0.8, 1.1)
    for height in np.linspace(-0.8, 1.0, 8).tolist():
        width = 0.24 * slim * (1.0 - 0.7 * max(0.0, height)) * rng.uniform(0.85, 1.15)
        for x in (-1.0, 1.0, -0.5, 0.5, 0.0):
            own = lighten_colour(colour, rng.normal(-0.04 - 0.12 * abs(x), 0.08))
            bud = 0.25 * np.exp(1j * (math.pi / 2 - 0.8 * x)) * make_petal(0.72, 0.6, 0.2)
            pen.shape(height * 1j + width * x + bud, lighten_colour(own, -0.4))
            pen.shape(height * 1j + width * x + bud * 0.94, own)
        pen.dots(height * 1j + 0.12j + width * rng.uniform(-1, 1, 3), 0.03, [lighten_colour(colour, 0.45)] * 3)


def draw_dandelion(pen: Pen, rng: Random, colour: Colour) -> None:
    pale = mix_colours(colour, PALE, 0.6)
    ends = spread_seeds(64, 0.96) * np.exp(1j * rng.uniform(0, 6))
    pen.disc(0, 1.05, (*pale, 60))
    pen.disc(0, 0.75, (*pale, 45))
    pen.lines(0.25 * ends, ends, 0.012, lighten_colour(pale, -0.25))
    tufts = ends[:, None] + 0.14 * np.exp(2j * math.pi * np.arange(5) / 5 + 1j * np.angle(ends)[:, None])
    pen.lines(ends[:, None], tufts, 0.014, lighten_colour(pale, 0.35))
    pen.disc(0, 0.17, mix_colours(BROWN, GREEN, 0.3))
    pen.dots(spread_seeds(14, 0.13), 0.02, [mix_colours(BROWN, PALE, 0.35)] * 14)


WHITE, CREAM, GOLD, ORANGE, RED, WINE = PETALS[:6]
PINK, MAGENTA, VIOLET, BLUE, SKY, LIME = PETALS[6:]

KINDS = {
    "daisy": Kind(draw_daisy, (WHITE, WHITE, PINK, GOLD)),
    "tulip": Kind(draw_tulip, (RED, GOLD, PINK, VIOLET), sway=0.45, foot=-0.8j),
    "rose": Kind(draw_rose, (RED, PINK, WINE, CREAM)),
    "sunflower": Kind(draw_sunflower, (GOLD, GOLD, ORANGE, CREAM)),
    "clover": Kind(draw_clover, (LIME, GREEN, GREEN, WINE)),
    "lily": Kind(draw_lily, (ORANGE, WHITE, PINK, GOLD)),
    "poppy": Kind(draw_poppy, (RED, RED, ORANGE, WHITE)),
    "bellflower": Kind(draw_bellflower, (BLUE, VIOLET, SKY, WHITE), sway=0.3, size=1.05, foot=-1j),
    "lavender": Kind(draw_lavender, (VIOLET, VIOLET, BLUE, PINK), sway=0.45, size=1.2, foot=-1j),
    "dandelion": Kind(draw_dandelion, (WHITE, CREAM)),
}
