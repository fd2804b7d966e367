"""Pen for outlines in the complex plane: 0 is the centre of a flower, 1 its radius to the right, 1j upwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from PIL.ImageDraw import ImageDraw

    Outline = NDArray[np.complex128]

Colour = tuple[int, int, int]
Glass = tuple[int, int, int, int]


@dataclass(slots=True)
class Pen:
    """Draws outlines: flattened by ``tilt``, turned and scaled by ``turn``, then moved to ``place`` in pixels."""

    draw: ImageDraw
    place: complex
    turn: complex
    tilt: float = 1.0

    def seen(self, outline: Outline | complex) -> Outline:
        """Convert points to pixels of the image, whose y axis points down."""
        points = np.asarray(outline, np.complex128)
        flat = points.real + 1j * self.tilt * points.imag
        placed: Outline = self.place + np.conj(flat * self.turn)
        return placed

    def shape(self, outline: Outline, colour: Colour | Glass) -> None:
        """Fill one outline."""
        self.draw.polygon(self.seen(outline).view(np.float64).tolist(), fill=colour)

    def shapes(self, outlines: Outline, colours: Iterable[Colour]) -> None:
        """Fill outlines, one per row, in order."""
        for flat, colour in zip(self.seen(outlines).view(np.float64).tolist(), colours, strict=False):
            self.draw.polygon(flat, fill=colour)

    def disc(self, middle: complex, radius: float, colour: Colour | Glass) -> None:
        """Fill a circle."""
        self.shape(middle + radius * make_circle(), colour)

    def dots(self, middles: Outline, radius: float, colours: Iterable[Colour]) -> None:
        """Fill small circles, which stay round despite the tilt."""
        size = radius * abs(self.turn)
        for (x, y), colour in zip(self.seen(middles).view(np.float64).reshape(-1, 2).tolist(), colours, strict=False):
            self.draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)

    def lines(self, starts: Outline | complex, ends: Outline, width: float, colour: Colour) -> None:
        """Draw straight lines, ``width`` in units."""
        pixels = max(1, round(width * abs(self.turn)))
        pairs = np.stack(np.broadcast_arrays(self.seen(starts), self.seen(ends)), axis=-1)
        for flat in np.ascontiguousarray(pairs).view(np.float64).reshape(-1, 4).tolist():
            self.draw.line(flat, fill=colour, width=pixels)

    def curve(self, points: Outline, width: float, colour: Colour) -> None:
        """Draw a line through points, ``width`` in units."""
        pixels = max(1, round(width * abs(self.turn)))
        self.draw.line(self.seen(points).view(np.float64).tolist(), fill=colour, width=pixels, joint="curve")


def mix_colours(first: Colour, second: Colour, share: float) -> Colour:
    """Return a colour between two, ``share`` of the way to the second."""
    r, g, b = (round(x + (y - x) * share) for x, y in zip(first, second, strict=True))
    return r, g, b


def lighten_colour(colour: Colour, share: float) -> Colour:
    """Return a colour mixed with white, or with black for a negative share."""
    return mix_colours(colour, (255, 255, 255), share) if share >= 0 else mix_colours(colour, (12, 8, 20), -share)


@cache
def make_circle(points: int = 24) -> Outline:
    """Return a circle of radius 1."""
    outline: Outline = np.exp(2j * math.pi * np.arange(points) / points)
    return outline


@cache
def make_petal(width: float, belly: float, tip: float, points: int = 11) -> Outline:
    """Return a petal from 0 to 1, ``width`` wide at ``belly``; ``tip`` is 0 for a round tip, 1 for a pointed one."""
    along = (1 - np.cos(np.linspace(0, math.pi, points))) / 2
    power = math.log(0.5) / math.log(belly)
    rise = along**power
    half = width / 2 * np.sin(math.pi * rise) ** (0.5 + 0.6 * tip)
    upper = along + 1j * half
    outline: Outline = np.concatenate([upper, np.conj(upper[-2:0:-1])])
    return outline


@cache
def make_heart(points: int = 28) -> Outline:
    """Return a heart from its tip at 0 to its notch, 0.76 away, and its lobes, 1 away."""
    t = math.pi + 2 * math.pi * np.arange(points) / points
    along = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    outline: Outline = (along + 17 + 16j * np.sin(t) ** 3) / 29
    return outline


def make_ring(outline: Outline, count: int, start: float, sizes: NDArray[np.float64] | float = 1.0) -> Outline:
    """Return ``count`` copies rotated around 0, one per row, the first by ``start`` radians."""
    turns = np.exp(1j * (start + 2 * math.pi * np.arange(count) / count)) * sizes
    copies: Outline = turns[:, None] * outline
    return copies
