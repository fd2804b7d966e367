"""Looks of images: the size, colour mode and colour profile that a scan stores for each image."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.profiles import find_conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from finetune.data.audit import Notes

ROW = np.dtype([("width", "<i4"), ("height", "<i4"), ("mode", "<U4")])


@dataclass(frozen=True, slots=True)
class Look:
    """Size in pixels and mode of an image as it is stored in its file.

    ``profile`` is the name of a colour profile other than sRGB; ``problem`` says why the profile cannot be used.
    """

    width: int
    height: int
    mode: str = "RGB"
    profile: str = ""
    problem: str = ""


def look_at(image: Image.Image) -> Look:
    """Return the look of an opened image, which does not have to be loaded."""
    found = find_conversion(image)
    mode = sys.intern(image.mode)
    if found is None:
        return Look(image.width, image.height, mode)
    converted = found.transform is not None and mode != "LAB"
    profile = sys.intern(found.name or "unnamed") if converted else ""
    return Look(image.width, image.height, mode, profile, sys.intern(found.problem))


def parse_look(values: object) -> Look | None:
    """Parse a look from the JSON of a cache; None for anything else."""
    if not isinstance(values, list) or len(values) != 5 or not all(isinstance(each, str) for each in values[2:]):
        return None
    if not all(isinstance(each, int) and 0 < each < 2**31 for each in values[:2]):
        return None
    width, height, *words = values
    return Look(width, height, *map(sys.intern, words))


def build_table(looks: Sequence[Look | None]) -> NDArray[np.void]:
    """Return the sizes and modes of images as rows of ``ROW``; rows of unknown images are zero."""
    rows = np.zeros(len(looks), ROW)
    for place, look in enumerate(looks):
        if look is not None:
            rows[place] = (look.width, look.height, look.mode[:4])
    return rows


def note_profiles(looks: Sequence[Look | None], split: str, name_of: Callable[[int], str], notes: Notes) -> None:
    """Add a finding for each profile that cannot be used or is converted, with its number of images."""
    for attribute, severity in (("problem", "warning"), ("profile", "note")):
        values = [getattr(look, attribute) if look else "" for look in looks]
        for value, count in Counter(filter(None, values)).items():
            subject = f"{count} image{'s' * (count != 1)}"
            text = f"have {value}; their colours are used as they are"
            if attribute == "profile":
                text = f"have the colour profile '{value}'; their colours are converted to sRGB"
            if count == 1:
                text = text.replace("have", "has", 1).replace("their", "its", 1)
            notes.add("profile", severity, split, subject, f"{text} (first: {name_of(values.index(value))})")  # type: ignore[arg-type]
