"""Asking a dataset for a split, and not believing the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.components import Samples
from finetune.data.findings import LISTED
from finetune.data.imagefile import shown
from finetune.errors import DataError, FinetuneError, PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from finetune.components import Dataset, Options, Split


def build(dataset: Dataset, options: Options, split: Split, whose: str = "") -> Samples | None:
    """Return a split of a dataset, checked; None if it has none. Messages about its code open with ``whose`` it is.

    Raises ``PluginError`` if the dataset's code fails, ``DataError`` if what it returns does not fit together.
    """
    what = f"{whose}dataset '{dataset.name}', split {split}"
    try:
        samples = dataset.build(options, split)
    except FinetuneError:
        raise
    except Exception as error:
        raise PluginError(f"{what.removeprefix(whose)}: build failed: {type(error).__name__}: {error}") from error
    if samples is not None:
        check(samples, what)
    return samples


def check(samples: Samples, what: str) -> NDArray[np.int64]:
    """Return the labels as an array; raises ``DataError`` if classes, labels and images do not fit together."""
    if not isinstance(samples, Samples):
        raise DataError(f"{what}: build returned a {type(samples).__name__}; return finetune.Samples or None")
    check_classes(samples.classes, what)
    check_sizes(samples, what)
    return check_labels(samples.labels, len(samples.classes), what)


def check_sizes(samples: Samples, what: str) -> None:
    """Raise ``DataError`` unless there is a label for each image, and a digest and a group for each or for none."""
    images, labels = len(samples.images), len(samples.labels)
    if images != labels:
        raise DataError(f"{what}: {images} images but {labels} labels; give one label for each image")
    if samples.digests is not None and len(samples.digests) != images:
        raise DataError(f"{what}: {images} images but {len(samples.digests)} digests; give one for each image, or none")
    if samples.groups is not None and len(samples.groups) != images:
        raise DataError(f"{what}: {images} images but {len(samples.groups)} groups; give one for each image, or none")


def check_classes(classes: Sequence[str], what: str) -> None:
    """Raise ``DataError`` unless classes are texts that differ."""
    if not isinstance(classes, tuple | list) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{what}: classes must be a tuple of strings, not {classes!r:.80}")
    seen: set[str] = set()
    for name in classes:
        if not name or any("\ud800" <= char <= "\udfff" for char in name):  # bytes that were no UTF-8
            raise DataError(f"{what}: the class name '{shown(name)}' is empty or no valid Unicode; rename it")
        if name in seen:
            raise DataError(f"{what}: two classes named '{shown(name)}'; class names must differ")
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
    """Raise ``DataError`` for items that are no images at all: the dataset's code needs mending, not a file."""
    if wrong:
        lines = [f"  image {index}: {reason}" for index, reason in list(wrong.items())[:LISTED]]
        more = [f"  … and {len(wrong) - LISTED} more"] if len(wrong) > LISTED else []
        raise DataError("\n".join([f"{what}: {len(wrong)} of its items are no images; mend its code", *lines, *more]))
