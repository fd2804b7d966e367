"""Line charts: as SVG for a browser, and in characters for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Point = tuple[float, float]
WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 56
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")
LOGARITHMIC = 9.99  # times the least positive value, from which on the axis is logarithmic
ZEROS = 0.12  # share of a logarithmic axis that is reserved for zeros
MARKS = "●○◆◇■□"


def draw_svg(
    lines: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x: str,
    y: str,
    mark: Point | None = None,
    names: str = "",
    rate: bool = False,
) -> str:
    """Draw a chart of named lines; ``mark`` is a point to highlight, ``names`` the keys in which the lines differ.

    ``rate`` makes the horizontal axis logarithmic, as for learning rates.
    """
    points = [point for line in lines.values() for point in line]
    across, up = Axis([px for px, _ in points], rate=rate), Axis([py for _, py in points], linear=True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        draw_text(WIDTH / 2, 22, title, "middle", size=15),
        draw_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x, "middle"),
        f'<g transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)">'
        f"{draw_text(0, 0, y, 'middle')}</g>",
    ]
    for value in across.choose_ticks():
        px = map_x(across, value)
        parts.append(f'<path d="M{px:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d0d7de"/>')
        parts.append(draw_text(px, HEIGHT - BOTTOM + 18, f"{value:g}", "middle"))
    for value in up.choose_ticks():
        py = map_y(up, value)
        parts.append(f'<path d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(draw_text(LEFT - 8, py + 4, f"{value:g}", "end"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = [(map_x(across, px), map_y(up, py)) for px, py in line]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in drawn)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(drawn) <= 50:
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{colour}"/>' for px, py in drawn]
        if len(lines) > 1:
            parts.append(draw_text(WIDTH - RIGHT - 8, TOP + 18 * (number + 1), f"{names} {name}", "end", colour=colour))
    if mark is not None:
        px, py = map_x(across, mark[0]), map_y(up, mark[1])
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="9" fill="none" stroke="#d1242f" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>", ""])


def draw_text(x: float, y: float, words: str, anchor: str, *, size: int = 13, colour: str = "#24292f") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{escape(words)}</text>"
    )


def map_x(axis: Axis, value: float) -> float:
    """Return the horizontal position of a value in pixels."""
    return LEFT + axis.locate(value) * (WIDTH - LEFT - RIGHT)


def map_y(axis: Axis, value: float) -> float:
    """Return the vertical position of a value in pixels, from the top."""
    return HEIGHT - BOTTOM - axis.locate(value) * (HEIGHT - TOP - BOTTOM)


class Axis:
    """An axis from the least to the largest value, linear or logarithmic.

    The scale is logarithmic for positive values that span a decade or more, and always for a ``rate``, such as a
    learning rate. Zeros have a place of their own at the left end of a logarithmic axis. With ``linear`` or negative
    values the scale is linear.
    """

    def __init__(self, values: Sequence[float], *, linear: bool = False, rate: bool = False) -> None:
        low, high = min(values), max(values)
        positive = [value for value in values if value > 0]
        self.log = not linear and low >= 0 and bool(positive)
        if self.log:
            self.log = rate or max(positive) / min(positive) >= LOGARITHMIC
        self.start = 0.0  # share of the axis at which the logarithmic scale begins
        if self.log:
            self.start = ZEROS if low == 0 else 0.0
            low = min(positive)
        if low == high:
            low, high = (low / 2, low * 2) if self.log else (low - 0.5, high + 0.5)
        self.low, self.high = low, high

    def locate(self, value: float) -> float:
        """Return the position of a value, from 0 (left end) to 1 (right end)."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        if value == 0:
            return 0.0
        return self.start + (1 - self.start) * math.log(value / self.low) / math.log(self.high / self.low)

    def choose_ticks(self) -> list[float]:
        """Return round values on the axis."""
        if self.log:
            return [*([0.0] if self.start else []), *self.list_powers()]
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * each for each in (1, 2, 5, 10) if unit * each >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]

    def list_powers(self) -> list[float]:
        """Return powers of ten on a logarithmic axis, with round values between them if there are few."""
        first, last = math.floor(math.log10(self.low)), math.floor(math.log10(self.high) + 1e-9)
        decades = math.log10(self.high / self.low)
        if decades > 2.5:
            first = math.ceil(math.log10(self.low) - 1e-9)
            return [10.0**power for power in range(first, last + 1, max(1, (last - first) // 6))]
        digits = (1, 2, 5) if decades > 0.7 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
        found = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        inside = [value for value in found if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
        return inside if len(inside) > 1 else [self.low, self.high]


def draw_characters(lines: Mapping[str, Sequence[Point]], *, width: int = 64, height: int = 12) -> str:
    """Draw a chart of named lines for a terminal, with a mark for each point."""
    points = [point for line in lines.values() for point in line]
    across, up = Axis([x for x, _ in points]), Axis([y for _, y in points], linear=True)
    field = [[" "] * width for _ in range(height)]
    for mark, line in zip(MARKS * len(lines), lines.values(), strict=False):
        for x, y in line:
            field[height - 1 - round(up.locate(y) * (height - 1))][round(across.locate(x) * (width - 1))] = mark
    ends = {0: f"{up.high:.4g}", height - 1: f"{up.low:.4g}"}
    edge = max(map(len, ends.values()))
    rows = [f"{ends.get(number, ''):>{edge}} │{''.join(row)}".rstrip() for number, row in enumerate(field)]
    right = f"{across.high:g}"
    return "\n".join(
        [*rows, f"{'':>{edge}} └{'─' * width}", f"{'':>{edge}}  {f'{across.low:g}':<{width - len(right)}}{right}"]
    )
