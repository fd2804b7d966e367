"""Validation split: selects training images to hold back if a dataset has no validation split of its own."""

from __future__ import annotations

import math
import os
import re
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.components import Encoded
from finetune.data.loader import Stream, make_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from numpy.typing import NDArray

    from finetune.components import Image

    Method = Literal["hash", "stratified"]
    Indices = NDArray[np.int64]
    Hashes = Sequence[str | None]
    from collections.abc import Iterable, Sequence

    from finetune.components import Samples
    from finetune.data.audit import Notes
    from finetune.data.labelled import Part

    Groups = Sequence[str | None]


RANGE = 2.0**64  # number of different hashes


def split_by_hash(
    labels: Indices,
    hashes: Hashes,
    classes: Sequence[str],
    share: float,
    seed: int,
    name_of: Callable[[int], str] = str,
) -> tuple[Indices, Indices]:
    """Return the indices that stay in training and those that go to validation, both ascending.

    An image goes to validation if a hash of its content, keyed by the seed and the name of its class, is below
    ``share`` of the range of hashes. An image therefore stays in its split when images are added, removed or renamed,
    and copies are in the same split. A class with at least two different contents has at least one in each split: the
    smallest hash is held back if none would be, and the largest stays in training if all would be held back. An image
    without a content hash is identified by ``name_of`` its index.
    """
    valid = np.zeros(len(labels), bool)
    for members in group_by_class(labels):
        key = make_key(seed, classes[int(labels[members[0]])])
        contents = group_by_content(members, hashes, name_of)
        held_back = choose_held_back({content: compute_position(content, key) for content in contents}, share)
        valid[[index for content in held_back for index in contents[content]]] = True
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def group_by_class(labels: Indices) -> list[Indices]:
    """Return the indices of each class that has images, ascending."""
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def make_key(seed: int, class_name: str) -> bytes:
    return blake2b(f"{seed}\n{class_name}".encode("utf-8", "surrogatepass"), digest_size=32).digest()


def group_by_content(members: Indices, hashes: Hashes, name_of: Callable[[int], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index in members.tolist():
        content = hashes[index] or f"name {name_of(index)}"
        groups.setdefault(content, []).append(index)
    return groups


def compute_position(content: str, key: bytes) -> float:
    """Return the hash of a content as a number from 0 to 1."""
    data = content.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, key=key, digest_size=8).digest(), "big") / RANGE


def choose_held_back(positions: dict[str, float], share: float) -> list[str]:
    """Choose the contents of a class that go to validation."""
    if len(positions) < 2:
        return []
    held_back = [content for content, place in positions.items() if place < share]
    if not held_back:
        return [min(positions, key=lambda content: (positions[content], content))]
    if len(held_back) == len(positions):
        held_back.remove(max(positions, key=lambda content: (positions[content], content)))
    return held_back


def identify_image(images: Sequence[Image], index: int) -> str:
    """Return what identifies an image without a content hash: its file's name, or its index for an array."""
    image = images[index]
    if isinstance(image, Path):
        return image.name
    return image.name if isinstance(image, Encoded) else str(index)


def split_by_position(labels: Indices, hashes: Hashes, share: float, seed: int) -> tuple[Indices, Indices]:
    """Split as runs did before ``split_by_hash``, so that they can be resumed.

    Of a class with n different images, ``share * n`` (rounded) are drawn by their position, and at least one stays in
    each split; a class with a single image stays in training.
    """
    rng = make_generator(Stream.SPLIT, seed)
    valid = np.zeros(len(labels), bool)
    for members in group_by_class(labels):
        groups = list(group_by_content(members, hashes, str).values())
        for group in rng.permutation(len(groups))[: count_drawn(len(groups), share)]:
            valid[groups[group]] = True
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def count_drawn(count: int, share: float) -> int:
    """Return how many of ``count`` images ``split_by_position`` draws."""
    return min(max(math.floor(count * share + 0.5), 1), count - 1) if count > 1 else 0


NAMED = 3  # groups that a finding lists


def find_groups(samples: Samples, pattern: str | None, name_of: Callable[[int], str]) -> Groups:
    """Return the name of each image's group, None for an image without a group; empty if there are no groups.

    A ``pattern`` is searched in the image's path below the folder that all images share, or in its name. Without a
    pattern the dataset itself may state groups.
    """
    if pattern is None:
        return tuple(str(each) if each is not None else None for each in samples.groups) if samples.groups else ()
    names = [name_of(index) for index in range(len(samples))]
    top = os.path.commonpath(names) if len(names) > 1 and all(map(os.path.isabs, names)) else ""
    found = (re.search(pattern, os.path.relpath(name, top) if top else name) for name in names)
    return tuple(each[1] if each else None for each in found)


def note_groups(part: Part, notes: Notes) -> None:
    """Add findings for the number of groups in a split, and for groups that prevent a split."""
    if not part.groups:
        return
    named, alone = {group for group in part.groups if group is not None}, sum(group is None for group in part.groups)
    if not named:
        notes.add("split", "warning", part.name, "groups", "no image is in a group; check dataset.groups")
    elif len(named) == 1 and not alone:
        text = f"all images are in '{next(iter(named))}', so none can be held back; check dataset.groups"
        notes.add("split", "warning", part.name, "groups", text)
    else:
        notes.add("split", "note", part.name, "groups", f"{len(named):,} groups, and {alone:,} images without a group")


def split_by_group(labels: Indices, hashes: Groups, groups: Groups, share: float, seed: int) -> tuple[Indices, Indices]:
    """Return the indices that stay in training and those that go to validation, both ascending; groups stay together.

    A group goes to validation if a hash of its name, keyed by the seed, is below ``share`` of the range of hashes. An
    image without a group is a group of its own. If there are at least two groups, each split has at least one.
    """
    key = make_key(seed, "groups")
    names = [f"group {group}" if group is not None else f"image {hashes[i]}" for i, group in enumerate(groups)]
    places = {name: compute_position(name, key) for name in dict.fromkeys(names)}
    held = {name for name, place in places.items() if place < share}
    if len(places) > 1 and not held:
        held = {min(places, key=lambda name: (places[name], name))}
    if len(places) > 1 and len(held) == len(places):
        held.remove(max(places, key=lambda name: (places[name], name)))
    valid = np.array([name in held for name in names], bool)
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def note_leaks(parts: Iterable[Part], notes: Notes) -> None:
    """Add findings for groups in two splits, which make the metrics look better than they are."""
    seen: dict[str, str] = {}
    for part in parts:
        own = dict.fromkeys(group for group in part.groups if group is not None)
        shared = [group for group in own if seen.setdefault(group, part.name) != part.name]
        if shared:
            more = f" and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
            text = f"{len(shared)} are also in '{seen[shared[0]]}': {', '.join(shared[:NAMED])}{more}"
            notes.add("split", "warning", part.name, "groups", f"{text}; the metrics look better than they are")
