"""Groups: images that belong together, such as those of one patient or one video, and stay on one side of a split."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.splits import position, split_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from finetune.components import Samples
    from finetune.data.findings import Notes
    from finetune.data.labelled import Part

    Groups = Sequence[str | None]
    Indices = NDArray[np.int64]

NAMED = 3  # groups that a finding names


def find_groups(samples: Samples, pattern: str | None, name_of: Callable[[int], str]) -> Groups:
    """Return the name of each image's group, None for an image that is on its own; empty where nothing says groups.

    A ``pattern`` is searched in the image's path below the folder that all images share, or in its name; without one
    the dataset itself may say groups.
    """
    if pattern is None:
        return tuple(str(each) if each is not None else None for each in samples.groups) if samples.groups else ()
    names = [name_of(index) for index in range(len(samples))]
    top = os.path.commonpath(names) if len(names) > 1 and all(map(os.path.isabs, names)) else ""
    found = (re.search(pattern, os.path.relpath(name, top) if top else name) for name in names)
    return tuple(each[1] if each else None for each in found)


def note_groups(part: Part, notes: Notes) -> None:
    """Note how many groups the images of a split form, and groups that no split or fold can be made of."""
    if not part.groups:
        return
    named, alone = {group for group in part.groups if group is not None}, sum(group is None for group in part.groups)
    if not named:
        notes.add("split", "warning", part.name, "groups", "no image is in one; check dataset.groups")
    elif len(named) == 1 and not alone:
        text = f"all images are in '{next(iter(named))}', so that none can be held back; check dataset.groups"
        notes.add("split", "warning", part.name, "groups", text)
    else:
        notes.add("split", "note", part.name, "groups", f"{len(named):,} of them, and {alone:,} images in none")


def split_by_group(labels: Indices, hashes: Groups, groups: Groups, share: float, seed: int) -> tuple[Indices, Indices]:
    """Return the indices that stay in training and those that go to validation, both ascending; no group is divided.

    A group goes to validation if a hash of its name, keyed by the seed, is below ``share`` of the range of hashes; an
    image on its own is a group. At least one group stays on either side, where there are two.
    """
    key = split_key(seed, "groups")
    names = [f"group {group}" if group is not None else f"image {hashes[i]}" for i, group in enumerate(groups)]
    places = {name: position(name, key) for name in dict.fromkeys(names)}
    held = {name for name, place in places.items() if place < share}
    if len(places) > 1 and not held:
        held = {min(places, key=lambda name: (places[name], name))}
    if len(places) > 1 and len(held) == len(places):
        held.remove(max(places, key=lambda name: (places[name], name)))
    valid = np.array([name in held for name in names], bool)
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def note_leaks(parts: Iterable[Part], notes: Notes) -> None:
    """Note groups that are in two splits, which makes an evaluation look better than it is."""
    seen: dict[str, str] = {}
    for part in parts:
        own = dict.fromkeys(group for group in part.groups if group is not None)
        shared = [group for group in own if seen.setdefault(group, part.name) != part.name]
        if shared:
            more = f" and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
            text = f"{len(shared)} are in '{seen[shared[0]]}', too: {', '.join(shared[:NAMED])}{more}"
            notes.add("split", "warning", part.name, "groups", f"{text}; the metrics look better than they are")
