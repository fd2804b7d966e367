"""What is noticed about classes and photos when the splits of a dataset are held side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.data.classes import Names, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from finetune.components import Split
    from finetune.data.findings import Kind, Notes
    from finetune.data.labelled import Part

IMBALANCED = 5.0  # times as many images in the largest class as in the smallest


def training(part: Part, classes: Sequence[str], notes: Notes) -> None:
    """Note classes that cannot be learnt, are easily mixed up, or are much rarer than others."""
    if not len(part):
        notes.add("split", "error", "train", "images", "there is none to train on")
        return
    if len(classes) < 2:
        notes.add("class", "error", "train", f"'{classes[0]}'", "is the only class; at least two are needed")
    counts = np.bincount(part.labels, minlength=len(classes))
    for index in np.flatnonzero(counts == 0):
        notes.add("class", "error", "train", f"'{classes[index]}'", "has no image to train on")
    place = {name: index for index, name in enumerate(classes)}
    for first, other in Names(classes).doubles():
        text = f"looks like '{first}', {difference(other, first)} ({images(counts[place[other]])} and "
        notes.add("class", "warning", "train", f"'{other}'", f"{text}{counts[place[first]]:,})")
    if imbalance(counts) > IMBALANCED:
        few, many = classes[int(np.argmin(counts))], classes[int(np.argmax(counts))]
        text = f"has {imbalance(counts):.3g} times as many images as '{few}'; judge by macro_f1 and each class's recall"
        notes.add("class", "warning", "train", f"'{many}'", text)


def images(count: int) -> str:
    """Return a number of images in words."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def imbalance(counts: NDArray[np.int64]) -> float:
    """Return how many times as many images the largest class has as the smallest that has any."""
    there = counts[counts > 0]
    return float(there.max() / there.min()) if len(there) else 1.0


def unknown(
    own: Sequence[str],
    classes: Sequence[str],
    counts: NDArray[np.int64],
    split: str,
    notes: Notes,
    *,
    trained: bool = False,
) -> None:
    """Note classes of a split that are not among the run's, or a ``trained`` model's; unused ones do no harm."""
    known = set(classes)
    strange = [(name, int(count)) for name, count in zip(own, counts, strict=True) if name not in known]
    names = Names(classes) if strange else None
    for name, count in strange:
        near = names.near(name) if names else ""
        text = f"is not a class of the {'model' if trained else 'training split'}{near}"
        text += f" ({count} image{'s' * (count != 1)})"
        kind: Kind = "unknown" if trained else "class"
        notes.add(kind, "error" if count else "warning", split, f"'{name}'", text)


def others(parts: Mapping[Split, Part], classes: Sequence[str], notes: Notes, *, own: bool) -> None:
    """Note what validation and test lack; ``own`` says that the dataset came with its validation split."""
    for split in ("valid", "test"):
        part = parts.get(split)
        if part is None:
            continue
        if not len(part) and len(parts["train"]):
            notes.add("split", "error", split, "images", "there is none to evaluate on")
            continue
        for index in np.flatnonzero(np.bincount(part.labels, minlength=len(classes)) == 0):
            text = "has no image here" if own or split == "test" else "has one photo, which stays in training"
            notes.add("class", "warning", split, f"'{classes[index]}'", text)


def duplicates(parts: Iterable[Part], classes: Sequence[str], notes: Notes) -> None:
    """Note photos that are in two splits, which makes an evaluation look better than it is, or in two classes."""
    held = list(parts)
    first: dict[str, tuple[Part, int]] = {}
    for part, indices in zip(held, suspects(held), strict=True):
        for index in indices.tolist():
            digest = part.hashes[index]
            if digest is None:
                continue
            other, place = first.setdefault(digest, (part, index))
            here, there = classes[part.labels[index]], classes[other.labels[place]]
            if other is part and here == there:
                continue
            leak = "leak, " if other is not part else ""
            labels = f"; labelled '{here}' here and '{there}' there" if here != there else ""
            text = f"{leak}the same photo as {other.name_of(place)} in {other.name}{labels}"
            notes.add("duplicate", "warning", part.name, part.name_of(index), text)


def suspects(parts: Sequence[Part]) -> list[NDArray[np.int64]]:
    """Return the images of each part whose content may be there twice.

    They are found by short keys, which take 24 bytes an image; a table of all contents takes 230.
    """
    keys = [np.fromiter(map(hash, part.hashes), np.int64, len(part.hashes)) for part in parts]
    ordered = np.sort(np.concatenate([*keys, np.empty(0, np.int64)]))
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return [np.flatnonzero(np.isin(each, again)) for each in keys]
