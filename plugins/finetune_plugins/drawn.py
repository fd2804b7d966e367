"""Synthetic images that are drawn on first access, each from its index only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Callable

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
