"""Trial: runs the most unusual images of a dataset through both pipelines before training starts.

Transforms of a recipe may fail for only a few images: a crop that is larger than the smallest image, or a transform
that does not accept grey ones. Without a trial, such an error would occur in the middle of an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.loader import Loader
from finetune.errors import DataError, FinetuneError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from finetune.components import ImageSpec, Transform
    from finetune.data.labelled import Part
    from finetune.data.loading import Data


RUN = 16  # images per split that a run tries; a check tries three of each class
CHECK = 1000  # the most images per split that a check tries
DRAWS = 2  # how often each image is augmented
LISTED = 10  # failures listed in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The pipeline to try with at most ``most`` images of each split; ``seed`` is that of the run's augmentation."""

    spec: ImageSpec
    transforms: tuple[Transform, ...]
    seed: int
    most: int = RUN


def try_images(data: Data, trial: Trial) -> int:
    """Run the most unusual images through the pipelines, and return how many; raises one error for all failures."""
    failures: list[FinetuneError] = []
    tried = 0
    for part, train in ((data.train, True), (data.train, False), (data.valid, False), (data.test, False)):
        if part is None or not len(part):
            continue
        chosen = choose_unusual(part, trial.most)
        tried += 0 if part is data.train and train else len(chosen)
        failures += list(_find_failures(part, chosen, trial, train=train))
    if failures:
        raise _join_failures(failures)
    return tried


def choose_unusual(part: Part, most: int) -> list[int]:
    """Return the images that are most likely to fail, first those of the complete part, then of each class.

    These are the lowest, narrowest and largest images, the longest strips, and one of each colour mode. If sizes are
    unknown, as in a pack, the images are spread over the classes.
    """
    classes = np.flatnonzero(np.bincount(part.labels))
    if part.looks is None or not part.looks["width"].any():
        firsts = np.unique(part.labels, return_index=True)[1]
        spread = np.linspace(0, len(part) - 1, min(most, len(part))).astype(np.int64)
        return _take_distinct([*firsts[: most // 2], *spread], most)
    height, width = part.looks["height"].astype(np.int64), part.looks["width"].astype(np.int64)
    mode = part.looks["mode"]
    modes = np.unique(mode, return_index=True)[1]
    keys = (height, width, -height * width, width / np.maximum(height, 1), height / np.maximum(width, 1))
    overall = [int(np.argmin(key)) for key in keys[:3]] + [int(np.argmax(key)) for key in keys[3:]]
    strips = np.maximum(keys[3], keys[4])
    by_class = (np.minimum(height, width), -height * width, -(strips + 1e6 * (mode != "RGB")))
    columns = [_find_first_of_each(part.labels, key) for key in by_class]
    each = [int(column[place]) for place in range(len(classes)) for column in columns]
    return _take_distinct([*overall, *modes.tolist(), *each], most)


def _find_first_of_each(labels: NDArray[np.int64], key: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the image with the smallest key for each label that occurs."""
    ordered = np.lexsort((key, labels))
    firsts = np.unique(labels[ordered], return_index=True)[1]
    found: NDArray[np.int64] = ordered[firsts]
    return found


def _take_distinct(indices: Sequence[int], most: int) -> list[int]:
    return list(dict.fromkeys(map(int, indices)))[:most]


def _find_failures(part: Part, chosen: Sequence[int], trial: Trial, *, train: bool) -> Iterator[FinetuneError]:
    """Yield the errors of the chosen images, one per image.

    A transform with an attribute ``certain`` is tried in that form, which always applies its random steps.
    """
    transforms = tuple(getattr(each, "certain", each) for each in trial.transforms) if train else ()
    loader = Loader(part, trial.spec, batch_size=1, workers=0, seed=trial.seed, transforms=transforms, train=train)
    try:
        for index in chosen:
            try:
                for epoch in range(1, 1 + (DRAWS if transforms else 1)):
                    loader.load_image(index, epoch)
            except FinetuneError as error:
                yield error
    finally:
        loader.close()


def _join_failures(failures: list[FinetuneError]) -> FinetuneError:
    """Combine all failures into one error of the first one's class; equal errors of both pipelines count once."""
    distinct = list({str(error): error for error in failures}.values())
    first = distinct[0]
    if len(distinct) == 1:
        return first
    lines = [
        f"{len(distinct)} images cannot be prepared for the network:",
        *(f"  {error}" for error in distinct[:LISTED]),
    ]
    if len(distinct) > LISTED:
        lines.append(f"  … and {len(distinct) - LISTED} more")
    lines.append("change augment so that it accepts these images, or leave them out")
    kind = PluginError if isinstance(first, PluginError) else DataError
    error = kind("\n".join(lines))
    if isinstance(error, PluginError):
        error.remedy = getattr(first, "remedy", "")
    return error
