"""Pictures of ten kinds of flowers, drawn when they are asked for: something to learn from without a download."""

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
    """Drawn flowers, told apart by their forms; colours help little."""

    size: Annotated[int, Field(ge=16, le=1024)] = 96
    """Side of the pictures, in pixels."""
    train: Annotated[Count, Field(ge=2)] = 1200
    """Pictures to train on."""
    valid: Count = 300
    """Pictures to evaluate on; 0 takes them from those to train on."""
    test: Count = 300
    """Pictures to test on; 0 leaves the test out."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    """Another seed draws other pictures of the same kinds."""
    classes: Annotated[int, Field(ge=2, le=len(NAMES))] = len(NAMES)
    """How many kinds there are."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``shapes``."""
    yield Dataset(name="shapes", options=Shapes, build=build)


def build(options: Shapes, split: Split) -> Samples | None:
    """Return the pictures of a split; each depends on seed, split and index only, every kind is there as often."""
    count = {"train": options.train, "valid": options.valid, "test": options.test}[split]
    names = NAMES[: options.classes]
    if not count:
        return None
    labels = [index % len(names) for index in range(count)]
    return Samples(images=Drawn(partial(draw, options, split), count, options.size), labels=labels, classes=names)


def draw(options: Shapes, split: Split, index: int) -> NDArray[np.uint8]:
    """Return one picture as HWC uint8 RGB."""
    import numpy as np

    from finetune_plugins.shapes_drawing import picture

    key = np.array([options.seed, SPLITS.index(split) << 40 | index], np.uint64)
    name = NAMES[index % options.classes]
    return picture(name, options.size, np.random.Generator(np.random.Philox(key=key)))
