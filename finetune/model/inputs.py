"""Inputs of a prediction: named files, the images found in folders, and the files skipped there."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.imagefile import BadImage, format_path
from finetune.data.walk import Skipped, find_images, image_endings
from finetune.display import html
from finetune.errors import DataError, UsageError
from finetune.files.atomic import expand_home
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


COMMON = (".jpg", ".jpeg", ".png")  # listed first in messages
LISTED = 10  # skipped images listed in a message
IGNORED = {"other": "not images", "hidden": "hidden or system files", "link": "links to folders that were already read"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Images in order, as paths or arrays.

    ``listed`` has the positions of images that were found in a folder; ``skipped`` has all other files in folders.
    """

    images: tuple[Any, ...]
    listed: frozenset[int]
    skipped: tuple[Skipped, ...]

    @property
    def missing(self) -> tuple[Skipped, ...]:
        """The skipped files that are, or may be, images."""
        return tuple(each for each in self.skipped if each.may_be_image)

    @property
    def ignored(self) -> dict[str, int]:
        """The number of skipped files that are not images, by reason."""
        return dict(Counter(each.reason for each in self.skipped if not each.may_be_image))


def gather_images(given: Iterable[Any]) -> Inputs:
    """Collect images from files, folders and arrays; folders are searched at any depth, like a folder dataset.

    Raises ``UsageError`` for a folder in which nothing looks like an image.
    """
    images: list[Any] = []
    listed: list[int] = []
    skipped: list[Skipped] = []
    for each in given:
        folder = expand_home(each) if isinstance(each, str | Path) else None
        if folder is None or not os.path.isdir(folder):
            images.append(each)  # exactly as given
            continue
        found = find_images(folder)
        skipped += found.skipped
        if not found.images and not any(other.may_be_image for other in found.skipped):
            endings = (*COMMON, *sorted(image_endings().difference(COMMON)))
            raise UsageError(f"no photos in {each}; photos end with {' '.join(endings)}")
        listed += range(len(images), len(images) + len(found.images))
        images += map(protect_path, found.images)
    return Inputs(images=tuple(images), listed=frozenset(listed), skipped=tuple(skipped))


def gather_asked(images: Any) -> Inputs | None:
    """Collect the images of a Python call, a folder or a list of files, folders and arrays; None for others."""
    if isinstance(images, str | Path) and os.path.isdir(expand_home(images)):
        images = [images]
    if not isinstance(images, list | tuple):
        return None
    return gather_images(images)


def list_unlabelled(inputs: Inputs, refused: Mapping[int, BadImage]) -> list[Skipped]:
    """Return the images in folders without a prediction; raises the ``BadImage`` of a directly named image."""
    for index in sorted(refused):
        if index not in inputs.listed:
            raise refused[index]
    return list_skipped(inputs, refused)


def protect_path(path: Path) -> Path:
    """Return the path of a found file, made absolute if it would be mistaken for one in a home folder."""
    try:
        return path if expand_home(path) == path else path.absolute()
    except UsageError:
        return path.absolute()


def list_skipped(inputs: Inputs, refused: Mapping[int, BadImage]) -> list[Skipped]:
    """Return every image without a prediction: those that the decoder ``refused``, and those skipped before."""
    bad = (
        Skipped(path=str(inputs.images[index]), reason="damaged", text=refused[index].reason)
        for index in sorted(refused)
    )
    return [*bad, *inputs.missing]


def report_skipped(inputs: Inputs, refused: Mapping[int, BadImage]) -> list[dict[str, str]]:
    """Return the path of every image without a prediction, and the reason, as JSON."""
    return [{"path": each.path, "reason": each.text} for each in list_skipped(inputs, refused)]


def describe_failure(inputs: Inputs, refused: Mapping[int, BadImage]) -> DataError | None:
    """Return the error that lists images without a prediction, up to ``LISTED``; None if every image has one."""
    found = list_skipped(inputs, refused)
    if not found:
        return None
    lines = [f"'{format_path(each.path)}' {each.text}" for each in found[:LISTED]]
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    total = len(inputs.images) + len(inputs.missing)
    return DataError(
        "\n".join([f"{len(found)} of {total} photos could not be labelled; repair or remove them", *lines, *more])
    )


def describe_ignored(inputs: Inputs) -> str:
    """Describe in one line how many files were ignored because they are not images; empty if there are none."""
    counts = ", ".join(f"{inputs.ignored[each]:,} {text}" for each, text in IGNORED.items() if each in inputs.ignored)
    return f"ignored: {counts}" if counts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The most likely class of an image with its probability, and the most likely classes in ``top``, best first.

    ``path`` is the path as it was given, or ``images[3]`` for the fourth image if images have no files. ``unknown``
    and ``known_score`` (0 to 1) say whether the image is of no known class, ``labels`` is the set of labels that has
    the true one with the wanted probability; they are None unless they were asked for.
    """

    path: str | Path
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    unknown: bool | None = None
    known_score: float | None = None
    labels: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{escape_line(str(self.path))}: {self.label} ({self.probability:.1%})"

    def _repr_html_(self) -> str:
        return html.render_prediction(self.path, self.top)


class Predictions(list[Prediction]):
    """Predictions in the order of their images; a notebook shows them as a table.

    ``skipped`` are the images in folders that have no prediction, each with ``path`` and ``text``, the reason.
    """

    def __init__(self, found: Iterable[Prediction] = (), skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(found)
        self.skipped = tuple(skipped)

    def _repr_html_(self) -> str:
        return html.render_predictions([(each.path, each.top) for each in self])
