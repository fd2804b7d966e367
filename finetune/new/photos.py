"""What a recipe should know of some photos: classes, counts, sizes, splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.components import Encoded
from finetune.data import sources
from finetune.data.imagefile import BadImage, opened, shown
from finetune.data.labelled import build
from finetune.errors import DataError
from finetune.plugins import named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.catalogue import Catalogue
    from finetune.components import Image, Samples, Split

LOOKED_AT = 400  # photos that are decoded, spread over all


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of some photos.

    ``section`` is the dataset of a recipe for them, ``counts`` the photos of each class in training, ``splits`` those
    of each split; ``sides`` are the 10th, 50th and 90th percentile of the shorter side of ``sampled`` photos in pixels.
    ``unreadable`` are others that were looked at, and ``findings`` what the dataset itself says of them.
    """

    section: dict[str, str]
    counts: dict[str, int]
    splits: dict[str, int]
    sides: tuple[int, int, int]
    sampled: int
    unreadable: tuple[str, ...]
    findings: tuple[str, ...] = ()

    @property
    def photos(self) -> int:
        """Return how many photos there are to train on, before some are taken for validation."""
        return sum(self.counts.values())

    @property
    def imbalance(self) -> float:
        """Return how many times the rarest class the most frequent one has."""
        return max(self.counts.values()) / max(1, min(self.counts.values()))


def look(photos: Path, catalogue: Catalogue) -> Seen:
    """Look at a folder of photos, a CSV file or a pack; raises ``DataError`` if it cannot be used."""
    section = sources.section(photos.absolute().resolve())
    dataset, options = sources.chosen(photos, {}, catalogue)
    found: dict[Split, Samples] = {}
    with named(catalogue.origin(dataset), f"build of dataset '{dataset.name}'"):
        for split in ("train", "valid", "test"):
            if (samples := build(dataset, options, split)) is not None:
                found[split] = samples
    if "train" not in found or not len(found["train"].images):
        raise DataError(f"{photos} has no photos to train on; put those of each class into a folder of its name")
    train = found["train"]
    counts = np.bincount(np.asarray(train.labels, np.int64), minlength=len(train.classes))
    if len(train.classes) < 2:
        only = train.classes[0]
        raise DataError(f"{photos} has one class only, '{only}'; make a folder for each class of photos")
    sides, unreadable, sampled = measured(train.images)
    return Seen(
        section={key: str(value) for key, value in section.items()},
        counts=dict(zip(train.classes, map(int, counts), strict=True)),
        splits={split: len(samples.images) for split, samples in found.items()},
        sides=sides,
        sampled=sampled,
        unreadable=unreadable,
        findings=tuple(shown(f"{each.subject}: {each.text}") for s in found.values() for each in s.findings),
    )


def measured(images: Sequence[Image]) -> tuple[tuple[int, int, int], tuple[str, ...], int]:
    """Return percentiles of the shorter side, what is wrong with photos that have none, and how many have one."""
    places = np.unique(np.linspace(0, len(images) - 1, min(len(images), LOOKED_AT)).astype(int)).tolist()
    shorter, unreadable = [], []
    for place in places:
        image = images[place]
        if isinstance(image, Path | Encoded):
            try:
                with opened(image) as header:
                    header.load()
                    shorter.append(min(header.size))
            except BadImage as error:
                unreadable.append(str(error))
        else:
            shorter.append(min(image.shape[:2]))
    low, middle, high = np.percentile(shorter, [10, 50, 90]).astype(int).tolist() if shorter else (0, 0, 0)
    return (low, middle, high), tuple(unreadable), len(shorter)
