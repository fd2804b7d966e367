"""The versions of the images that features may be kept of in a phase: what they take, and what is said of them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from finetune.features.keeping import GB
from finetune.training.frozen import NAMES, PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from finetune.features.keeping import Wanted
    from finetune.training.prepare import Prepared

    Wants = Mapping[str, Sequence[Wanted]]

LEAST = 0.1  # seconds that are worth saying


class Views:
    """The views of each part in the ``epochs`` of a phase; those of test images only in the ``last`` phase.

    Of the training images, those in ``fitted`` come on top.
    """

    def __init__(self, prepared: Prepared, epochs: Sequence[int], *, last: bool, fitted: Sequence[int] = ()) -> None:
        self.prepared, self.epochs, self.last, self.fitted = prepared, epochs, last, fitted
        recipe = prepared.plan.recipe
        self.mixes = bool(recipe.train.mixup or recipe.train.cutmix)
        self.count = max(1, min(recipe.cache.views, recipe.train.length)) if prepared.transforms else 1

    @property
    def most(self) -> int:
        """Return how many augmented views there are: of a phase that trains, or those that the head is fitted to."""
        return max(self.fitted, default=0) or self.count

    def of(self, epoch: int) -> int:
        """Return the view that an epoch gets of its training images."""
        return (epoch - 1) % self.count + 1

    def parts(self) -> dict[str, Sequence[int]]:
        """Return the views of each part that could be kept, the most wanted part first."""
        trained = set() if self.mixes else {self.of(epoch) for epoch in self.epochs}
        views = sorted({*trained, *self.fitted})
        found: dict[str, Sequence[int]] = {"train": views} if views else {}
        if self.prepared.data.valid is not None:
            found["valid"] = [PLAIN]
        if self.last and self.prepared.data.test is not None:
            found["test"] = [PLAIN]
        return found

    def sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """Return what the features of each part would take, in bytes, for those of one image."""
        data = self.prepared.data
        return {name: len(views) * len(getattr(data, name)) * 2 * prod(shape) for name, views in self.parts().items()}

    def counted(self, views: Mapping[str, int]) -> str:
        """Return numbers of photos and views in words."""
        parts = []
        for name, count in views.items():
            several = (
                f" in {count} view{'' if count == 1 else 's'}" if name == "train" and self.prepared.transforms else ""
            )
            parts += [f"{len(getattr(self.prepared.data, name)):,} {NAMES[name]} photos{several}"] if count else []
        return ", ".join(parts)


def fitting(sizes: Mapping[str, int], limit: int) -> frozenset[str]:
    """Return the parts that fit into ``limit`` bytes, the first ones first."""
    chosen: list[str] = []
    for name, size in sizes.items():
        if size <= limit:
            limit, chosen = limit - size, [*chosen, name]
    return frozenset(chosen)


def too_large(sizes: Mapping[str, int], chosen: frozenset[str], max_gb: float) -> list[str]:
    """Say which parts do not fit into what the recipe allows."""
    return [
        f"features of the {name} images are computed in every epoch: they take {size / GB:.3g} GB, "
        f"and cache.max_gb={max_gb:g} does not allow it"
        for name, size in sizes.items()
        if name not in chosen
    ]


def summary(views: Views, wanted: Wants, computes: Mapping[str, Any], stage: str, *, keeps: bool) -> list[str]:
    """Say what of the features after a stage is there, and what is to be computed."""
    known = {name: [each.seconds() for each in several] for name, several in wanted.items()}
    there = {name: sum(seconds is not None for seconds in each) for name, each in known.items()}
    lacks = {name: len(each) - there[name] for name, each in known.items()}
    by, notes = f"by {computes['name']} in {computes['precision'].replace('f32', 'fp32')}", []
    if any(there.values()):
        spent = sum(seconds for each in known.values() for seconds in each if seconds)
        what = views.counted(there)
        saved = f"; about {spent:.1f} s saved" if spent >= LEAST else ""
        notes.append(f"features after {stage}: {what} reused, computed {by} before{saved}")
    if any(lacks.values()) and keeps:
        later = lacks.get("train", 0) > 1 and not views.fitted
        each = ", each view in the first epoch that takes it" if later else ""
        notes.append(f"features after {stage}: {views.counted(lacks)} computed once and kept, {by}{each}")
    if not wanted or not keeps:
        notes.append(streamed(stage, computes))
    return notes


def streamed(stage: str, computes: Mapping[str, Any]) -> str:
    """Say what computes stages whose output is not kept."""
    by = f"{computes['name']} in {computes['precision'].replace('f32', 'fp32')}"
    return f"stages up to {stage} are computed in every epoch, by {by}"
