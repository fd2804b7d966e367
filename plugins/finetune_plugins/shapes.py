"""Dataset ``shapes``: drawn images of ten kinds of flowers, for training without a download."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from finetune import Dataset, Options, Samples, Split, hookimpl
from finetune_plugins.drawn import Drawn

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

NAMES = ("daisy", "tulip", "rose", "sunflower", "clover", "lily", "poppy", "bellflower", "lavender", "dandelion")
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

Count = Annotated[int, Field(ge=0, le=10_000_000)]


class Shapes(Options):
    """Drawn flowers that differ in shape; colours help little."""

    size: Annotated[int, Field(ge=16, le=1024)] = 96
    """Side of the images, in pixels."""
    train: Annotated[Count, Field(ge=2)] = 1200
    """Number of training images."""
    valid: Count = 300
    """Number of validation images; 0 takes them from the training images."""
    test: Count = 300
    """Number of test images; 0 means no test."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    """Seed; a different seed draws different images of the same classes."""
    classes: Annotated[int, Field(ge=2, le=len(NAMES))] = len(NAMES)
    """Number of classes."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``shapes``."""
    yield Dataset(name="shapes", options=Shapes, build=build)


def build(options: Shapes, split: Split) -> Samples | None:
    """Return the images of a split; each depends only on seed, split and index, and all kinds are equally frequent."""
    count = {"train": options.train, "valid": options.valid, "test": options.test}[split]
    names = NAMES[: options.classes]
    if not count:
        return None
    labels = [index % len(names) for index in range(count)]
    return Samples(images=Drawn(partial(draw, options, split), count, options.size), labels=labels, classes=names)


def draw(options: Shapes, split: Split, index: int) -> NDArray[np.uint8]:
    """Return one image as HWC uint8 RGB."""
    import numpy as np

    from finetune_plugins.shapes_drawing import draw_picture

    key = np.array([options.seed, SPLITS.index(split) << 40 | index], np.uint64)
    name = NAMES[index % options.classes]
    return draw_picture(name, options.size, np.random.Generator(np.random.Philox(key=key)))
