"""Labelled images of one split: checks what a dataset returns, and holds it for the loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np

from finetune.components import Encoded, Samples
from finetune.data.audit import LISTED
from finetune.data.imagefile import format_path
from finetune.errors import DataError, FinetuneError, PluginError
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from finetune.catalogue import Chosen
    from finetune.components import Dataset, Image, Split


def build_split(chosen: Chosen[Dataset], split: Split) -> Samples | None:
    """Build and check a split of a dataset; None if the dataset does not have this split.

    Raises ``PluginError`` if the dataset's code fails, and ``DataError`` if it returns inconsistent samples.
    """
    what = f"dataset '{chosen.component.name}', split {split}"
    try:
        samples = chosen.component.build(chosen.options, split)
    except FinetuneError:
        raise
    except Exception as error:
        raise PluginError(f"{what}: build failed: {type(error).__name__}: {error}") from error
    if samples is not None:
        check_samples(samples, f"{chosen.prefix}{what}")
    return samples


def check_samples(samples: Samples, what: str) -> NDArray[np.int64]:
    """Return the labels as an array; raises ``DataError`` if classes, labels and images are inconsistent."""
    if not isinstance(samples, Samples):
        raise DataError(f"{what}: build returned a {type(samples).__name__}; return finetune.Samples or None")
    check_classes(samples.classes, what)
    check_sizes(samples, what)
    return check_labels(samples.labels, len(samples.classes), what)


def check_sizes(samples: Samples, what: str) -> None:
    """Raise ``DataError`` unless every image has a label, and either all or no images have digests and groups."""
    images, labels = len(samples.images), len(samples.labels)
    if images != labels:
        raise DataError(f"{what}: {images} images but {labels} labels; give one label for each image")
    if samples.digests is not None and len(samples.digests) != images:
        raise DataError(f"{what}: {images} images but {len(samples.digests)} digests; give one for each image, or none")
    if samples.groups is not None and len(samples.groups) != images:
        raise DataError(f"{what}: {images} images but {len(samples.groups)} groups; give one for each image, or none")


def check_classes(classes: Sequence[str], what: str) -> None:
    """Raise ``DataError`` unless classes are distinct strings."""
    if not isinstance(classes, tuple | list) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{what}: classes must be a tuple of strings, not {classes!r:.80}")
    seen: set[str] = set()
    for name in classes:
        if not name or any("\ud800" <= char <= "\udfff" for char in name):  # bytes that were not UTF-8
            raise DataError(f"{what}: the class name '{format_path(name)}' is empty or not valid Unicode; rename it")
        if name in seen:
            raise DataError(f"{what}: two classes named '{format_path(name)}'; class names must differ")
        seen.add(name)


def check_labels(labels: Sequence[int], classes: int, what: str) -> NDArray[np.int64]:
    """Return the labels as an array; raises ``DataError`` unless they are indices of classes."""
    array = np.asarray(labels)
    if len(array) and (array.dtype.kind not in "iu" or array.ndim != 1):
        odd = next((i for i, label in enumerate(labels) if not _is_index(label)), 0)
        raise DataError(f"{what}: label {odd} is {labels[odd]!r}; labels must be whole numbers, one for each image")
    outside = np.flatnonzero((array < 0) | (array >= classes))
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"{what}: label {first} is {array[first]}, but there are {classes} classes; "
            f"labels must be 0 to {classes - 1}"
        )
    return array.astype(np.int64)


def _is_index(label: object) -> bool:
    return isinstance(label, int | np.integer) and not isinstance(label, bool)


def check_items(wrong: Mapping[int, str], what: str) -> None:
    """Raise ``DataError`` for items that are not images, which is a fault of the dataset's code, not of a file."""
    if wrong:
        lines = [f"  image {index}: {reason}" for index, reason in list(wrong.items())[:LISTED]]
        more = [f"  … and {len(wrong) - LISTED} more"] if len(wrong) > LISTED else []
        problem = f"{what}: {len(wrong)} items are not images; fix the dataset's `build`"
        raise DataError("\n".join([problem, *lines, *more]))


T = TypeVar("T")


class Subset(Sequence[T]):
    """A subset of a sequence, such as images; items are still read only when they are requested."""

    def __init__(self, items: Sequence[T], rows: NDArray[np.int64]) -> None:
        self.items, self.rows = items, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Subset[T]: ...
    def __getitem__(self, index: int | slice) -> T | Subset[T]:
        if isinstance(index, slice):
            return Subset(self.items, self.rows[index])
        return self.items[int(self.rows[index])]


def select_items(items: Sequence[T], rows: NDArray[np.int64]) -> Subset[T]:
    """Select rows of a sequence; selecting from a ``Subset`` refers to the original sequence."""
    return Subset(items.items, items.rows[rows]) if isinstance(items, Subset) else Subset(items, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """The images of one split with their labels, int64 indices into the run's classes.

    Attributes:
        source: Where images without a file come from.
        hashes: The content hash of each image, from the scan.
        prefix: The beginning of messages about the code of the plugin that the images come from.
        looks: Rows of ``looks.ROW``, from the scan.
        groups: The name of the group that each image belongs to, where that is known.
    """

    name: str
    images: Sequence[Image]
    labels: NDArray[np.int64]
    source: str = ""
    hashes: Sequence[str | None] = ()
    prefix: str = ""
    looks: NDArray[np.void] | None = None
    groups: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.images)

    def describe(self, index: int) -> str:
        """Return the name of an image for a message: escaped, on one line."""
        return escape_line(self.name_of(index))

    def name_of(self, index: int) -> str:
        """Return the unescaped path or name of an image; for an array, the name of its split and its index there."""
        try:
            image = self.images[index]
        except Exception:  # this is often called for an image that cannot be created
            image = None
        if isinstance(image, Path):
            return str(image)
        if isinstance(image, Encoded):
            return image.name
        row = self.images.rows[index] if isinstance(self.images, Subset) else index
        return f"{self.source or self.name}[{row}]"

    def select(self, indices: NDArray[np.int64], name: str) -> Part:
        """Return a part with some of the images."""
        return Part(
            name=name,
            images=select_items(self.images, indices),
            labels=self.labels[indices],
            source=self.source or self.name,
            hashes=select_items(self.hashes, indices) if self.hashes else (),
            prefix=self.prefix,
            looks=None if self.looks is None else self.looks[indices],
            groups=select_items(self.groups, indices) if self.groups else (),
        )
