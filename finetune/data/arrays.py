"""Images and labels in memory, as a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from finetune.components import Dataset, NoOptions, Samples, Split
from finetune.data.colours import to_rgb
from finetune.data.imagefile import Refused
from finetune.data.images import WHITE, upright
from finetune.errors import DataError, UsageError
from finetune.files.home import expand_home

if TYPE_CHECKING:
    from finetune.components import Color, Pixels

NAME = "arrays"


def pictures(images: Any, color: Color = "convert") -> list[Path | Pixels]:
    """Return images as the engine takes them: paths as they are, Pillow images upright and in RGB, else arrays.

    ``color`` says what becomes of a colour profile that a Pillow image carries. Raises ``UsageError`` for a single
    image, whose elements would be no images.
    """
    single = isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind in "uif"
    if single or isinstance(images, str | bytes | Path | Image.Image) or not isinstance(images, Iterable):
        raise UsageError(f"images must be a list; for a single {type(images).__name__} write [image]")
    return [expand_home(i) if isinstance(i, str | Path) else _pixels(n, i, color) for n, i in enumerate(images)]


def _pixels(number: int, image: Any, color: Color) -> Pixels:
    if not isinstance(image, Image.Image):
        return np.asarray(image)
    try:
        return to_rgb(upright(image), WHITE, color)
    except (Refused, OSError) as error:
        raise DataError(f"images[{number}] {error}") from error


def samples(
    images: Any, labels: Sequence[Any], known: tuple[str, ...] | None = None, color: Color = "convert"
) -> Samples:
    """Return samples of images and their labels, which are names, or numbers from 0.

    Numbers are names too, in order of size, unless ``known`` classes have names that are no numbers: then a number
    is the place of a class among them.
    """
    listed, given = pictures(images, color), list(labels)
    if len(listed) != len(given):
        raise DataError(f"{len(listed)} images but {len(given)} labels; give one label for each image")
    names = [_name(number, label) for number, label in enumerate(given)]
    numeric = all(isinstance(label, int | np.integer) for label in given)
    if numeric and known is not None and not all(name.isdecimal() for name in known):
        return Samples(images=listed, labels=[int(label) for label in given], classes=known)
    classes = tuple(sorted(set(names), key=int if numeric else None))
    places = {name: place for place, name in enumerate(classes)}
    return Samples(images=listed, labels=[places[name] for name in names], classes=classes)


def _name(number: int, label: Any) -> str:
    if isinstance(label, str):
        return str(label)
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and label >= 0:
        return str(int(label))
    raise DataError(f"label {number} is {label!r:.60}; labels are names, or whole numbers from 0")


def dataset(images: Any, labels: Sequence[Any], color: Color = "convert") -> Dataset:
    """Return a dataset component of images and labels in memory; a validation split is taken from it."""
    found = samples(images, labels, color=color)

    def build(options: NoOptions, split: Split) -> Samples | None:
        return found if split == "train" else None

    return Dataset(name=NAME, build=build)
