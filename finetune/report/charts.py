"""Charts as inline SVG, which follow the colours of the page, and the confusion matrix as a picture."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 34
TICKS = 4
SIDE = 640  # pixels of the picture of a confusion matrix, about


def draw_lines(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_label: str) -> Markup:
    """Return a line chart of points (x, y) by name."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("")
    low_x, high_x = widen(min(x for x, _ in points), max(x for x, _ in points))
    low_y, high_y = widen(min(0.0, *(y for _, y in points)), max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts = [draw_axes(low_x, high_x, low_y, high_y, x_label)]
    for number, (name, line) in enumerate(lines.items()):
        spots = [place(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline class="line line{number}" points="{path}"/>')
        parts += [f'<circle class="dot line{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in spots]
        parts.append(draw_text(f"key line{number}", LEFT + 130 * number, TOP - 12, name, "start"))
    return wrap_svg(title, parts)


def draw_reliability(bins: Sequence[Mapping[str, float]]) -> Markup:
    """Return the accuracy of predictions over their confidence, with the diagonal of perfect calibration."""
    parts = [draw_axes(0, 1, 0, 1, "confidence")]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts.append(f'<line class="ideal" x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" y2="{TOP}"/>')
    for each in bins:
        x, tall = LEFT + each["confidence"] * width, each["accuracy"] * height
        radius = 3 + 9 * each["share"] ** 0.5
        parts.append(
            f'<circle class="dot line0" cx="{x:.1f}" cy="{HEIGHT - BOTTOM - tall:.1f}" r="{radius:.1f}" opacity="0.75">'
            f"<title>{each['images']:.0f} images: confidence {each['confidence']:.2f}, "
            f"accuracy {each['accuracy']:.2f}</title></circle>"
        )
    return wrap_svg("Accuracy by confidence; larger dots are more images", parts)


def draw_axes(low_x: float, high_x: float, low_y: float, high_y: float, x_label: str) -> str:
    """Return axes with ticks, at whole numbers of epochs."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>']
    for number in range(TICKS + 1):
        y = bottom - number / TICKS * (bottom - TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(draw_text("tick", LEFT - 6, y + 4, f"{low_y + number / TICKS * (high_y - low_y):.2g}", "end"))
    for value in choose_ticks(low_x, high_x, whole=x_label == "epoch"):
        x = LEFT + (value - low_x) / (high_x - low_x) * (right - LEFT)
        parts.append(draw_text("tick", x, bottom + 15, f"{value:g}", "middle"))
    parts.append(draw_text("tick", (LEFT + right) / 2, HEIGHT - 4, x_label, "middle"))
    return "".join(parts)


def choose_ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """Return the values to write at an axis."""
    found = [low + number / TICKS * (high - low) for number in range(TICKS + 1)]
    return list(dict.fromkeys(float(round(each)) for each in found)) if whole else found


def draw_text(kind: str, x: float, y: float, text: str, anchor: str) -> str:
    """Return a text of a class, whose start, middle or end is at x."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def wrap_svg(title: str, parts: Sequence[str]) -> Markup:
    """Return a chart with its title for screen readers."""
    head = f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
    return Markup(f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>")


def widen(low: float, high: float) -> tuple[float, float]:
    """Return a range that is not empty."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw_confusion(counts: NDArray[np.int64]) -> str:
    """Return the confusion matrix as a PNG, one square for each pair of classes, darker for a larger share of the row.

    Any mistake is visible: the square root of the share is drawn, and cells are at least one pixel.
    """
    from PIL import Image

    shares = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    cell = max(1, SIDE // len(counts))
    right = np.eye(len(counts), dtype=bool)
    red, blue = np.array((190, 40, 40), float), np.array((40, 90, 170), float)
    colours = np.where(right[..., None], blue, red)
    pixels = (255 - shares[..., None] * (255 - colours)).astype(np.uint8)
    return encode_picture(Image.fromarray(pixels.repeat(cell, axis=0).repeat(cell, axis=1)), "PNG")


def encode_picture(picture: object, kind: str = "JPEG") -> str:
    """Return a Pillow image as a data URI."""
    data = BytesIO()
    options = {"quality": 72} if kind == "JPEG" else {"optimize": True}
    picture.save(data, kind, **options)  # type: ignore[attr-defined]
    return f"data:image/{kind.lower()};base64,{b64encode(data.getvalue()).decode()}"
