"""The images of one split as the loader takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

from finetune.components import Encoded
from finetune.text import escape_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.components import Image

T = TypeVar("T")


class Chosen(Sequence[T]):
    """Some items of a sequence, such as images, still read only when asked for."""

    def __init__(self, items: Sequence[T], rows: NDArray[np.int64]) -> None:
        self.items, self.rows = items, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Chosen[T]: ...
    def __getitem__(self, index: int | slice) -> T | Chosen[T]:
        if isinstance(index, slice):
            return Chosen(self.items, self.rows[index])
        return self.items[int(self.rows[index])]


def chosen(items: Sequence[T], rows: NDArray[np.int64]) -> Chosen[T]:
    """Return some items of a sequence; of those chosen before, from where they came."""
    return Chosen(items.items, items.rows[rows]) if isinstance(items, Chosen) else Chosen(items, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """The images of one split with their labels, int64 indices into the run's classes.

    ``source`` names what images without a file came from, ``hashes`` and ``looks`` (rows of ``looks.ROW``) are those of
    the scan; ``whose`` opens a message about code of the installed plugin that the images came from. ``groups`` name
    what images belong together, if that is known.
    """

    name: str
    images: Sequence[Image]
    labels: NDArray[np.int64]
    source: str = ""
    hashes: Sequence[str | None] = ()
    whose: str = ""
    looks: NDArray[np.void] | None = None
    groups: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.images)

    def describe(self, index: int) -> str:
        """Return ``name_of`` an image for a message: escaped, and on one line."""
        return escape_line(self.name_of(index))

    def name_of(self, index: int) -> str:
        """Return the path or name of an image as it is, or for an array the split it came from and its place there."""
        try:
            image = self.images[index]
        except Exception:  # often asked for the name of the very image that cannot be made
            image = None
        if isinstance(image, Path):
            return str(image)
        if isinstance(image, Encoded):
            return image.name
        row = self.images.rows[index] if isinstance(self.images, Chosen) else index
        return f"{self.source or self.name}[{row}]"

    def only(self, indices: NDArray[np.int64], name: str) -> Part:
        """Return some of the images as a part of their own."""
        return Part(
            name=name,
            images=chosen(self.images, indices),
            labels=self.labels[indices],
            source=self.source or self.name,
            hashes=chosen(self.hashes, indices) if self.hashes else (),
            whose=self.whose,
            looks=None if self.looks is None else self.looks[indices],
            groups=chosen(self.groups, indices) if self.groups else (),
        )
