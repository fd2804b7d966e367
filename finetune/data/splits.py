"""Validation split: which of the training images are held back when a dataset has no validation split of its own."""

from __future__ import annotations

import math
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.components import Encoded
from finetune.data.seeding import Stream, generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from numpy.typing import NDArray

    from finetune.components import Image

    Method = Literal["hash", "stratified"]
    Indices = NDArray[np.int64]
    Hashes = Sequence[str | None]

RANGE = 2.0**64  # of the hashes


def split_by_hash(
    labels: Indices,
    hashes: Hashes,
    classes: Sequence[str],
    share: float,
    seed: int,
    name_of: Callable[[int], str] = str,
) -> tuple[Indices, Indices]:
    """Return the indices that stay in training and those that go to validation, both ascending.

    An image goes to validation if a hash of its content, keyed by the seed and by the name of its class, is below
    ``share`` of the range of hashes. So an image stays on its side whichever images come, go or are renamed, and
    copies are on the same side. A class with at least two different contents has at least one on either side: the
    smallest hash is held back if none would be, and the largest stays in training if all would be held back.
    An image without a content hash is identified by ``name_of`` its index.
    """
    valid = np.zeros(len(labels), bool)
    for members in members_of_classes(labels):
        key = split_key(seed, classes[int(labels[members[0]])])
        contents = group_by_content(members, hashes, name_of)
        held_back = choose_held_back({content: position(content, key) for content in contents}, share)
        valid[[index for content in held_back for index in contents[content]]] = True
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def members_of_classes(labels: Indices) -> list[Indices]:
    """Return the indices of each class that has any, ascending."""
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def split_key(seed: int, class_name: str) -> bytes:
    """Return the key of the hashes of a class."""
    return blake2b(f"{seed}\n{class_name}".encode("utf-8", "surrogatepass"), digest_size=32).digest()


def group_by_content(members: Indices, hashes: Hashes, name_of: Callable[[int], str]) -> dict[str, list[int]]:
    """Return the members in groups of one content."""
    groups: dict[str, list[int]] = {}
    for index in members.tolist():
        content = hashes[index] or f"name {name_of(index)}"
        groups.setdefault(content, []).append(index)
    return groups


def position(content: str, key: bytes) -> float:
    """Return where a content lies between 0 and 1."""
    data = content.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, key=key, digest_size=8).digest(), "big") / RANGE


def choose_held_back(positions: dict[str, float], share: float) -> list[str]:
    """Return the contents of a class that go to validation."""
    if len(positions) < 2:
        return []
    held_back = [content for content, place in positions.items() if place < share]
    if not held_back:
        return [min(positions, key=lambda content: (positions[content], content))]
    if len(held_back) == len(positions):
        held_back.remove(max(positions, key=lambda content: (positions[content], content)))
    return held_back


def split_name(images: Sequence[Image], index: int) -> str:
    """Return what tells an image without a content hash from others: its file's name, or its place for an array."""
    image = images[index]
    if isinstance(image, Path):
        return image.name
    return image.name if isinstance(image, Encoded) else str(index)


def split_by_position(labels: Indices, hashes: Hashes, share: float, seed: int) -> tuple[Indices, Indices]:
    """Return a split as runs had it before ``split_by_hash``; they resume with it.

    Of a class with n different images ``share * n`` are drawn by their position, rounded, but at least one stays on
    either side; a class with a single image stays in training.
    """
    rng = generator(Stream.SPLIT, seed)
    valid = np.zeros(len(labels), bool)
    for members in members_of_classes(labels):
        groups = list(group_by_content(members, hashes, str).values())
        for group in rng.permutation(len(groups))[: drawn_count(len(groups), share)]:
            valid[groups[group]] = True
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def drawn_count(count: int, share: float) -> int:
    """Return how many of ``count`` images ``split_by_position`` draws."""
    return min(max(math.floor(count * share + 0.5), 1), count - 1) if count > 1 else 0
