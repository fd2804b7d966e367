"""Dataset ``shapes``: drawn images of ten kinds of flowers, for training without a download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, overload

from pydantic import Field

from finetune import Dataset, Options, Samples, Split, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


CACHE_BYTES = 512 << 20  # size of the cache of drawn images, per split


class Drawn(Sequence["Pixels"]):
    """A sequence of square images that are drawn on first access and cached up to a limit; thread-safe."""

    def __init__(self, draw: Callable[[int], Pixels], length: int, size: int) -> None:
        self.draw = draw
        self.length = length
        self.kept: dict[int, Pixels] = {}
        self.room = CACHE_BYTES // (3 * size**2)

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pixels]: ...
    def __getitem__(self, index: int | slice) -> Pixels | list[Pixels]:
        """Return an image as HWC uint8 RGB, which the caller may change."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        place = range(self.length)[index]
        pixels = self.kept.get(place)
        if pixels is None:
            pixels = self.draw(place)
            if len(self.kept) < self.room:
                self.kept[place] = pixels  # two threads may both draw it, with the same result
        return pixels.copy()


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
