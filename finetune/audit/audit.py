"""An audit: the features of a frozen network, the checks on them, and what they found about each image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.audit import checks, datasets, duplicates, labels, pictures
from finetune.errors import DataError
from finetune.training.frozen_stages import PLAIN
from finetune.training.phase_data import PhaseData

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from finetune.audit.duplicates import Group
    from finetune.audit.labels import LabelScores
    from finetune.components import Image, ImageFinding
    from finetune.data.loading import Data
    from finetune.training.prepare import Prepared

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """All images of a data set in order of their splits, with what the checks need."""

    names: tuple[str, ...]
    splits: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    hashes: tuple[str | None, ...]
    features: NDArray[np.float32]
    rows: NDArray[np.void]
    metadata: tuple[pictures.Metadata, ...]
    sources: Sequence[Image] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found; ``facts`` describe the data set and the network, ready for JSON.

    ``checked`` has the findings of each check from a plugin, by its name.
    """

    images: Examined
    scores: LabelScores
    groups: tuple[Group, ...]
    outliers: NDArray[np.bool_]
    quality: tuple[tuple[str, ...], ...]
    facts: dict[str, Any]
    duplicate_of: dict[int, int] = field(default_factory=dict)
    checked: dict[str, tuple[ImageFinding, ...]] = field(default_factory=dict)

    @property
    def contradictions(self) -> list[Group]:
        """Groups of the same picture with different labels."""
        return [group for group in self.groups if len({int(self.images.labels[row]) for row in group.rows}) > 1]

    @property
    def leaks(self) -> list[Group]:
        """Groups of the same picture in different splits."""
        return [group for group in self.groups if len({self.images.splits[row] for row in group.rows}) > 1]


def audit_prepared(prepared: Prepared, say: Callable[[str], None], check: Callable[[], None]) -> Audit:
    """Audit the data of a prepared run by the features of its frozen network."""
    features = gather_features(prepared, say, check)
    say("measuring the images")
    images = examine_images(prepared.data, features, prepared.workers)
    say(f"comparing {len(images.names):,} images")
    facts = {"backbone": prepared.plan.recipe.backbone.use, "weights": prepared.weights.get("source", "none")}
    found = audit_images(images, facts)
    return replace(found, checked=checks.run_checks(prepared.plan.audit, images, say, check))


def gather_features(prepared: Prepared, say: Callable[[str], None], check: Callable[[], None]) -> NDArray[np.float32]:
    """Return the features (N, width) of all images in order of their splits; they are cached as in a run."""
    phase_data = PhaseData(prepared, None, say)
    try:
        phase_data.enter(len(prepared.network.stages), epochs=(), last=True, fitted=(PLAIN,))
        found = [phase_data.gather(PLAIN, check, part) for part in list_parts(prepared.data)]
    finally:
        phase_data.close()
    return np.concatenate(found)


def list_parts(data: Data) -> list[str]:
    """Return the names of the parts that exist."""
    return [name for name in SPLITS if getattr(data, name) is not None]


def examine_images(data: Data, features: NDArray[np.float32], workers: int) -> Examined:
    """Measure all images of a data set."""
    parts = [getattr(data, name) for name in list_parts(data)]
    images: list[Image] = [part.images[index] for part in parts for index in range(len(part))]
    names = tuple(part.name_of(index) for part in parts for index in range(len(part)))
    try:
        rows, metadata = pictures.measure_images(images, workers)
    except DataError as error:
        raise DataError(f"{error}; it was readable when the audit started") from error
    return Examined(
        names=names,
        splits=tuple(part.name for part in parts for _ in range(len(part))),
        labels=np.concatenate([part.labels for part in parts]).astype(np.int64),
        classes=data.classes,
        hashes=tuple(each for part in parts for each in (part.hashes or [None] * len(part))),
        features=features,
        rows=rows,
        metadata=tuple(metadata),
        sources=images,
    )


def audit_images(images: Examined, facts: dict[str, Any]) -> Audit:
    """Run all checks; the result depends only on images and features."""
    scores = labels.score_labels(images.features, images.labels, len(images.classes))
    groups = tuple(duplicates.find_duplicates(images.hashes, images.rows, images.features))
    counts = Counter(images.classes[label] for label in images.labels.tolist())
    order = datasets.measure_order(scores.neighbours, images.labels)
    return Audit(
        images=images,
        scores=scores,
        groups=groups,
        outliers=datasets.find_outliers(scores.neighbours),
        quality=tuple(pictures.find_quality_problems(images.rows)),
        duplicate_of={row: group.rows[0] for group in groups for row in group.rows[1:]},
        facts={
            **facts,
            "images": len(images.names),
            "splits": dict(Counter(images.splits)),
            "classes": len(images.classes),
            "unjudged_classes": sum(number < datasets.FEWEST for number in counts.values()),
            "rare_classes": datasets.find_rare_classes({name: counts.get(name, 0) for name in images.classes}),
            "confused_classes": datasets.find_confused_classes(images.labels, scores.predicted, images.classes),
            "order": {"p_value": order, "dependent": order is not None and order < datasets.SIGNIFICANT},
            "shortcuts": datasets.find_shortcuts(images.labels, list_properties(images)),
        },
    )


def list_properties(images: Examined) -> dict[str, Sequence[Any]]:
    """Return the properties of images that should not predict their labels."""
    found: dict[str, Sequence[Any]] = {
        "width": images.rows["width"].tolist(),
        "height": images.rows["height"].tolist(),
        "brightness": images.rows["brightness"].tolist(),
    }
    for name in ("format", "camera", "day"):
        found[name] = [getattr(each, name) for each in images.metadata]
    return found
