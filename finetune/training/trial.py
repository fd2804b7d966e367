"""Trial of images: puts the most unusual images of a dataset through both pipelines before anything is trained.

What a recipe does to images may fail for a few of them alone: a crop that is larger than the smallest image, a
transform that takes no grey one. Without a trial, that is found out in the middle of an epoch.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.loader import Loader
from finetune.errors import DataError, FinetuneError, PluginError, ResourceError
from finetune.machine import device
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.components import ImageSpec, Transform
    from finetune.data.labelled import Part
    from finetune.data.loading import Data
    from finetune.recipe.plan import Plan


RUN = 16  # images of a split that a run tries; a check tries three of each class
CHECK = 1000  # images of a split that a check tries at most
DRAWS = 2  # times that each image is augmented
LISTED = 10  # failures that are spelt out


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What images are put through, ``most`` of each split; ``seed`` is the run's, whose augmentation they get."""

    spec: ImageSpec
    transforms: tuple[Transform, ...]
    seed: int
    most: int = RUN


def try_images(data: Data, trial: Trial) -> int:
    """Put the most unusual images through the pipelines, and return how many; raise one error for all that fail."""
    failures: list[FinetuneError] = []
    tried = 0
    for part, train in ((data.train, True), (data.train, False), (data.valid, False), (data.test, False)):
        if part is None or not len(part):
            continue
        chosen = unusual(part, trial.most)
        tried += 0 if part is data.train and train else len(chosen)
        failures += list(_failures(part, chosen, trial, train=train))
    if failures:
        raise _together(failures)
    return tried


def unusual(part: Part, most: int) -> list[int]:
    """Return the images of a part that are most likely to fail: those of the whole part first, then of each class.

    They are the lowest, the narrowest and the largest, the longest strips, and one of each colour mode. Where no sizes
    are known, as of a pack, they are spread over the classes.
    """
    classes = np.flatnonzero(np.bincount(part.labels))
    if part.looks is None or not part.looks["width"].any():
        firsts = np.unique(part.labels, return_index=True)[1]
        spread = np.linspace(0, len(part) - 1, min(most, len(part))).astype(np.int64)
        return _distinct([*firsts[: most // 2], *spread], most)
    height, width = part.looks["height"].astype(np.int64), part.looks["width"].astype(np.int64)
    mode = part.looks["mode"]
    modes = np.unique(mode, return_index=True)[1]
    keys = (height, width, -height * width, width / np.maximum(height, 1), height / np.maximum(width, 1))
    overall = [int(np.argmin(key)) for key in keys[:3]] + [int(np.argmax(key)) for key in keys[3:]]
    strips = np.maximum(keys[3], keys[4])
    by_class = (np.minimum(height, width), -height * width, -(strips + 1e6 * (mode != "RGB")))
    columns = [_first_of_each(part.labels, key) for key in by_class]
    each = [int(column[place]) for place in range(len(classes)) for column in columns]
    return _distinct([*overall, *modes.tolist(), *each], most)


def _first_of_each(labels: NDArray[np.int64], key: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return for each label that occurs the image with the smallest key."""
    ordered = np.lexsort((key, labels))
    firsts = np.unique(labels[ordered], return_index=True)[1]
    found: NDArray[np.int64] = ordered[firsts]
    return found


def _distinct(indices: Sequence[int], most: int) -> list[int]:
    return list(dict.fromkeys(map(int, indices)))[:most]


def _failures(part: Part, chosen: Sequence[int], trial: Trial, *, train: bool) -> Iterator[FinetuneError]:
    """Yield what fails for the chosen images, one error an image.

    A transform with an attribute ``certain`` is tried in that form, which does all that it else does by chance.
    """
    transforms = tuple(getattr(each, "certain", each) for each in trial.transforms) if train else ()
    loader = Loader(part, trial.spec, batch_size=1, workers=0, seed=trial.seed, transforms=transforms, train=train)
    try:
        for index in chosen:
            try:
                for epoch in range(1, 1 + (DRAWS if transforms else 1)):
                    loader.image(index, epoch)
            except FinetuneError as error:
                yield error
    finally:
        loader.close()


def _together(failures: list[FinetuneError]) -> FinetuneError:
    """Return one error for all failures, of the kind of the first; the same one of both pipelines counts once."""
    distinct = list({str(error): error for error in failures}.values())
    first = distinct[0]
    if len(distinct) == 1:
        return first
    lines = [
        f"{len(distinct)} images fail on their way to the network:",
        *(f"  {error}" for error in distinct[:LISTED]),
    ]
    if len(distinct) > LISTED:
        lines.append(f"  … and {len(distinct) - LISTED} more")
    lines.append("change augment so that it takes them, or leave these images out")
    kind = PluginError if isinstance(first, PluginError) else DataError
    error = kind("\n".join(lines))
    if isinstance(error, PluginError):
        error.remedy = getattr(first, "remedy", "")
    return error


MB = 2**20
LEAST = 1.0  # MB that are free where a run is written; what it needs in all is known once the network is built


def check(plan: Plan, resume: Path | None = None) -> None:
    """Raise ``UsageError`` for a device that the machine lacks, ``ResourceError`` for a disk that takes no run.

    A run that resumes is written into its folder ``resume``, wherever the recipe's output is.
    """
    check_device(plan)
    check_output(resume or plan.recipe.output)


def check_device(plan: Plan) -> None:
    """Raise ``UsageError`` where the machine lacks the device of a plan, or has fewer of them."""
    runner = plan.recipe.runner
    device.check_count(device.choose(runner.device), runner.devices)


def check_output(output: Path) -> float | None:
    """Return how many MB are free where a run goes; raise ``ResourceError`` where none can be written.

    Returns None for a file system that does not report its size, as some network drives do not.
    """
    place, name = existing(output), escape_line(str(output))
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "takes no files" if place.is_dir() else "is a file"
        raise ResourceError(
            f"runs cannot be written to {name}: {escape_line(str(place))} {why}; choose another with --output"
        )
    usage = shutil.disk_usage(place)
    if not usage.total:
        return None
    free = usage.free / MB
    if free < LEAST:
        raise ResourceError(f"the disk of {name} is full; free some space or choose another with --output")
    return free


def existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
