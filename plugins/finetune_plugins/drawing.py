"""Drawings of a run: images with captions in a grid, and the confusion matrix."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

    Font = FreeTypeFont | BitmapFont

Colour = tuple[int, int, int]
Caption = tuple[tuple[str, Colour], ...]

BLACK, GREY, PALE, WHITE = (33, 37, 41), (108, 117, 125), (233, 236, 239), (255, 255, 255)
RIGHT, WRONG = (33, 102, 172), (192, 57, 43)  # distinguishable with red-green blindness
NAMED = 30  # maximum number of classes for which the matrix shows names and counts
LONGEST = 200  # characters of a name
TOP = 10  # most frequent confusions listed below a matrix without names

# Pillow's own font has only ASCII letters; the first of these that has all letters of a name is used for it.
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf"),
    *("wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "PingFang.ttc"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An HWC uint8 RGB image with lines of text below it, each in its own colour."""

    pixels: NDArray[np.uint8]
    caption: Caption = ()


def draw_sheet(pictures: Sequence[Picture], *, side: int = 192) -> Image:
    """Draw pictures in rows of at most eight, each fitted into a square of ``side`` pixels."""
    from PIL import Image, ImageDraw

    gap, line, size = 8, 18, 13
    columns = min(8, max(2, math.isqrt(len(pictures) - 1) + 1), len(pictures))
    rows = -(-len(pictures) // columns)
    height = side + line * max(len(picture.caption) for picture in pictures) + gap
    canvas = Image.new("RGB", (columns * (side + gap) + gap, rows * height + gap), WHITE)
    draw = ImageDraw.Draw(canvas)
    for i, picture in enumerate(pictures):
        left, top = gap + i % columns * (side + gap), gap + i // columns * height
        image = Image.fromarray(picture.pixels)
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
        canvas.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
        for number, (text, colour) in enumerate(picture.caption):
            spot = (left + side // 2, top + side + number * line + line // 2)
            draw.text(spot, clip_text(text, size, side), fill=colour, font=choose_font(text, size), anchor="mm")
    return canvas


def draw_matrix(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> Image:
    """Draw a confusion matrix, ``confusion[true, predicted]``.

    Each row is coloured by its shares: blue for correct, red for wrong, grey for a class without images.
    """
    names = [make_drawable(name, f"class {number}") for number, name in enumerate(classes)]
    if len(classes) <= NAMED:
        return draw_named_matrix(confusion, names, title)
    return draw_large_matrix(confusion, names, title)


def draw_named_matrix(confusion: NDArray[np.int64], names: Sequence[str], title: str) -> Image:
    """Draw a matrix with class names at two sides and counts in its cells."""
    from PIL import Image, ImageDraw

    cell, size = (44, 14) if len(names) <= 12 else (32, 12)
    labels = [clip_text(name, size, 170) for name in names]
    margin = int(max(choose_font(label, size).getlength(label) for label in labels)) + 16
    left, top, side = margin + 24, 64, cell * len(names)
    width = max(left + side + 24, int(choose_font(title, 16).getlength(title)) + 48)
    canvas = Image.new("RGB", (width, top + side + margin + 32), WHITE)
    draw = ImageDraw.Draw(canvas)
    draw.text((24, 18), title, fill=BLACK, font=choose_font(title, 16), anchor="lt")
    canvas.paste(scale_pixels(colour_cells(confusion), (side, side)), (left, top))
    for at in range(0, side + 1, cell):
        draw.line([(left + at, top), (left + at, top + side)], fill=PALE)
        draw.line([(left, top + at), (left + side, top + at)], fill=PALE)
    draw_counts(draw, confusion, (left, top), cell)
    for i, label in enumerate(labels):
        middle = i * cell + cell // 2
        draw.text((left - 8, top + middle), label, fill=BLACK, font=choose_font(label, size), anchor="rm")
        draw_upright(canvas, label, size, (left + middle, top + side + 8))
    draw.text((left - 8, top - 6), "true", fill=GREY, font=choose_font("", 13), anchor="rs")
    draw.text(
        (left + side // 2, top + side + margin + 14), "predicted", fill=GREY, font=choose_font("", 13), anchor="mm"
    )
    return canvas


def draw_counts(draw: Any, confusion: NDArray[np.int64], corner: tuple[int, int], cell: int) -> None:
    """Write each count above 0 into its cell, in a light colour on dark cells."""
    dark = colour_cells(confusion).mean(axis=2) < 150
    for row, column in zip(*confusion.nonzero(), strict=True):
        text = str(confusion[row, column])
        size = 14 if cell > 40 else 12
        while size > 7 and choose_font("", size).getlength(text) > cell - 4:
            size -= 1
        spot = (corner[0] + column * cell + cell // 2, corner[1] + row * cell + cell // 2)
        draw.text(spot, text, fill=WHITE if dark[row, column] else BLACK, font=choose_font("", size), anchor="mm")


def draw_large_matrix(confusion: NDArray[np.int64], names: Sequence[str], title: str) -> Image:
    """Draw a matrix with class numbers at its sides, and below it the most frequent confusions."""
    from PIL import Image, ImageDraw

    count = len(names)
    cell = max(1, 720 // count)
    side = min(1024, cell * count)
    lines = [f"{number}: {names[true]} taken for {names[other]}" for true, other, number in find_worst(confusion)]
    lines[:0] = ["most frequent mistakes"] if lines else []
    left, top, line = 64, 64, 20
    canvas = Image.new("RGB", (left + side + 32, top + side + 64 + (len(lines) + 1) * line), WHITE)
    draw = ImageDraw.Draw(canvas)
    draw.text((24, 18), title, fill=BLACK, font=choose_font(title, 16), anchor="lt")
    canvas.paste(scale_pixels(colour_cells(confusion), (side, side)), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=GREY)
    for number in range(0, count, choose_tick_distance(count)):
        at = int((number + 0.5) * side / count)
        draw.text((left - 8, top + at), str(number), fill=GREY, font=choose_font("", 12), anchor="rm")
        draw.text((left + at, top + side + 8), str(number), fill=GREY, font=choose_font("", 12), anchor="mt")
    draw.text((left - 8, top - 8), "true", fill=GREY, font=choose_font("", 13), anchor="rs")
    draw.text((left + side // 2, top + side + 36), "predicted", fill=GREY, font=choose_font("", 13), anchor="mm")
    for number, text in enumerate(lines):
        spot = (left, top + side + 60 + number * line)
        colour = BLACK if number else GREY
        draw.text(spot, clip_text(text, 13, side), fill=colour, font=choose_font(text, 13), anchor="lt")
    return canvas


def find_worst(confusion: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return the most frequent confusions as (true, predicted, count), most frequent first."""
    import numpy as np

    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:TOP]
    pairs = (divmod(int(flat), len(wrong)) for flat in order)
    return [(true, other, int(wrong[true, other])) for true, other in pairs if wrong[true, other]]


def choose_tick_distance(count: int) -> int:
    """Return the distance between the numbers at an axis, for about ten numbers at most."""
    return next(step for step in (5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if count / step <= 11)


def colour_cells(confusion: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return an RGB colour for each cell from the square root of its share of the row, which shows single mistakes."""
    import numpy as np

    totals = confusion.sum(axis=1, keepdims=True)
    strength = np.sqrt(confusion / np.maximum(totals, 1))[..., None]
    ink = np.where(np.eye(len(confusion), dtype=bool)[..., None], RIGHT, WRONG)
    paper = np.where(totals == 0, 242, 255)[..., None]
    return np.asarray(paper + (ink - paper) * strength, np.uint8)


def scale_pixels(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image:
    """Enlarge pixels to sharp squares, or average them to a smaller size."""
    from PIL import Image

    image = Image.fromarray(pixels)
    return image.resize(size, Image.Resampling.NEAREST if size[0] >= image.width else Image.Resampling.BOX)


def draw_upright(canvas: Image, text: str, size: int, spot: tuple[int, int]) -> None:
    """Write text from bottom to top, with its end centred at ``spot``."""
    from PIL import Image, ImageDraw

    width = int(choose_font(text, size).getlength(text)) + 2
    label = Image.new("RGB", (width, size + 6), WHITE)
    ImageDraw.Draw(label).text((width, label.height // 2), text, fill=BLACK, font=choose_font(text, size), anchor="rm")
    canvas.paste(label.rotate(90, expand=True), (spot[0] - label.height // 2, spot[1]))


def make_drawable(name: str, instead: str) -> str:
    """Return a name that can be drawn on one line: unchanged, without accents, or what to draw ``instead``."""
    name = " ".join(name.encode("utf-8", "replace").decode().split())[:LONGEST]
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    if find_typeface(name) is not None:
        return name
    return plain if len(plain) >= len(name) else instead


def clip_text(text: str, size: int, width: int) -> str:
    """Return text shortened to ``width`` pixels, with an ellipsis if something is missing."""
    if choose_font(text, size).getlength(text) <= width:
        return text
    while text and choose_font(text, size).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def choose_font(text: str, size: int) -> Font:
    """Return a font with all letters of ``text``, or Pillow's own font."""
    return load_font(find_typeface(text) or "", size)


@cache
def load_font(name: str, size: int) -> Font:
    """Load a font by file name; the empty name is Pillow's own font."""
    from PIL import ImageFont

    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def find_typeface(text: str) -> str | None:
    """Return the font with all letters of ``text``: the empty name for Pillow's own font, None if there is no font."""
    letters = "".join(sorted({letter for letter in text if not letter.isascii() and letter != "…"}))
    if not letters:
        return ""
    return next((name for name in FONTS if has_letters(name, letters)), None)


@cache
def has_letters(name: str, letters: str) -> bool:
    """Return whether a font is installed and draws all letters, without boxes for missing ones."""
    try:
        face = load_font(name, 14)
    except OSError:
        return False
    missing = render_letter(face, "\U0010ffff")
    return all(render_letter(face, letter) != missing for letter in letters)


def render_letter(face: Font, letter: str) -> bytes:
    """Return the pixels of a letter as bytes."""
    return bytes(face.getmask(letter))
