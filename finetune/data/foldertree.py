"""Tree of folders as it is on disk, as plain data: what the reading of a layout needs to know."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetune.data.filenames import is_hidden, kind_of, natural_key
from finetune.data.walk import find_images, is_folder

if TYPE_CHECKING:
    from pathlib import Path

DEPTH = 6  # levels below the root whose folders are told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder: the images directly inside, and its visible folders in natural order."""

    name: str
    images: int = 0
    folders: tuple[Tree, ...] = ()

    @property
    def total(self) -> int:
        """Return the number of images at any depth."""
        return self.images + sum(each.total for each in self.folders)

    def named(self, name: str) -> Tree | None:
        """Return the folder of this name directly inside."""
        return next((each for each in self.folders if each.name == name), None)


def survey(root: Path) -> Tree:
    """Return the tree of a folder; raises ``OSError`` if the folder itself cannot be read."""
    with os.scandir(root):
        pass
    return look(str(root), root.name, DEPTH, frozenset(), {})


def look(path: str, name: str, depth: int, above: frozenset[str], linked: dict[str, Tree]) -> Tree:
    """Return the tree of a folder below those ``above``, to which no link leads back.

    ``linked`` are the trees of folders that links led to, so that each is looked at once.
    """
    if depth == 0:
        return Tree(name=name, images=len(find_images(path).images))
    real = os.path.realpath(path)
    if os.path.islink(path) and real in linked:
        return replace(linked[real], name=name)
    tree = look_inside(path, name, depth, above | {real}, linked)
    if os.path.islink(path):
        linked[real] = tree
    return tree


def look_inside(path: str, name: str, depth: int, inside: frozenset[str], linked: dict[str, Tree]) -> Tree:
    """Return the tree of a folder, which is the last of those that are being looked at."""
    images, names = 0, list[str]()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if kind_of(entry.name) == "image":
                    images += 1
                elif not is_hidden(entry.name) and is_folder(entry) and not leads_back(entry, inside):
                    names.append(entry.name)
    except OSError:  # reported where its images are read
        return Tree(name=name)
    names.sort(key=natural_key)
    folders = tuple(look(os.path.join(path, each), each, depth - 1, inside, linked) for each in names)
    return Tree(name=name, images=images, folders=folders)


def leads_back(entry: os.DirEntry[str], above: frozenset[str]) -> bool:
    """Return whether an entry is a link to a folder that holds it."""
    return entry.is_symlink() and os.path.realpath(entry.path) in above
