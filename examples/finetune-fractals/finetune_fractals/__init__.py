"""Dataset ``fractals``: images of fractals, drawn from formulas, for pretraining without photos.

After Kataoka et al., "Pre-training without natural images" (2020, https://arxiv.org/abs/2101.08515): each class is one
iterated function system, drawn in different light, size and position.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from finetune import Dataset, Options, Samples, Split, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

SPLITS: tuple[Split, ...] = ("train", "valid", "test")

CACHED = 50_000  # images: 600 MB at 64 pixels

Count = Annotated[int, Field(ge=0, le=10_000_000)]


class Fractals(Options):
    """Coloured fractals in front of blurred backgrounds."""

    size: Annotated[int, Field(ge=16, le=1024)] = 64
    """Side of the images, in pixels."""
    classes: Annotated[int, Field(ge=2, le=10_000)] = 500
    """Number of fractals."""
    train: Annotated[Count, Field(ge=2)] = 40_000
    """Number of training images."""
    valid: Count = 2_000
    """Number of validation images; 0 takes them from the training images."""
    test: Count = 0
    """Number of test images; 0 means no test."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Seed; a different seed makes different fractals."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``fractals``."""
    yield Dataset(name="fractals", options=Fractals, build=build)


def build(options: Fractals, split: Split) -> Samples | None:
    """Return the images of a split; each depends only on seed, split and index; all fractals are equally frequent."""
    count = {"train": options.train, "valid": options.valid, "test": options.test}[split]
    if not count:
        return None
    digits = len(str(options.classes - 1))
    return Samples(
        images=Drawn(options, split, count),
        labels=[index % options.classes for index in range(count)],
        classes=tuple(f"fractal {number:0{digits}}" for number in range(options.classes)),
    )


class Drawn(Sequence["NDArray[np.uint8]"]):
    """Images that are drawn when they are read."""

    def __init__(self, options: Fractals, split: Split, count: int) -> None:
        self.options, self.split, self.count = options, split, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NDArray[np.uint8]:  # type: ignore[override]  # slices are not used
        return draw(self.options, self.split, range(self.count)[index]).copy()


@lru_cache(maxsize=CACHED)
def draw(options: Fractals, split: Split, index: int) -> NDArray[np.uint8]:
    """Return one image as HWC uint8 RGB."""
    import numpy as np

    from finetune_fractals.drawing import draw_picture

    key = np.array([options.seed, SPLITS.index(split) << 40 | index], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    return draw_picture(options.seed, index % options.classes, options.size, rng)
