"""Pictures of ten kinds of flowers, drawn when they are asked for: something to learn from without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, overload

from pydantic import Field

from finetune import Dataset, Options, Samples, Split, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

NAMES = ("daisy", "tulip", "rose", "sunflower", "clover", "lily", "poppy", "bellflower", "lavender", "dandelion")
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
CACHE_BYTES = 512 << 20  # of pictures drawn already, for each split

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
    return Samples(images=Drawn(options, split, count), labels=labels, classes=names)


class Drawn(Sequence["Pixels"]):
    """Pictures that are drawn at first reading and kept as long as there is room; may be read by several threads."""

    def __init__(self, options: Shapes, split: Split, length: int) -> None:
        self.options = options
        self.split = split
        self.length = length
        self.kept: dict[int, Pixels] = {}
        self.room = CACHE_BYTES // (3 * options.size**2)

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pixels]: ...
    def __getitem__(self, index: int | slice) -> Pixels | list[Pixels]:
        """Return a picture as HWC uint8 RGB, which the caller may change."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        place = range(self.length)[index]
        pixels = self.kept.get(place)
        if pixels is None:
            pixels = self.draw(place)
            if len(self.kept) < self.room:
                self.kept[place] = pixels  # two threads may both draw it, and draw the same
        return pixels.copy()

    def draw(self, index: int) -> Pixels:
        import numpy as np

        from finetune_plugins.shapes_drawing import picture

        key = np.array([self.options.seed, SPLITS.index(self.split) << 40 | index], np.uint64)
        name = NAMES[index % self.options.classes]
        return picture(name, self.options.size, np.random.Generator(np.random.Philox(key=key)))
