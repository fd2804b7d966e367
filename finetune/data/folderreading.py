"""Reading of a folder of images: the layout that was recognised or requested, and its class folders on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.classfolders import (
    explain_unclear,
    list_class_folders,
    list_inner_splits,
    normalise_pattern,
    split_pattern_at_class,
)
from finetune.data.folderlayout import ORDER, Layout, Unclear, is_plain, read_layout
from finetune.data.walk import (
    classify,
    classify_name,
    find_images,
    is_folder,
    is_hidden,
    is_visible_folder,
    list_folder,
    natural_key,
)
from finetune.errors import DataError
from finetune.files.outputs import existing_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from finetune.components import Split


DEPTH = 6  # levels below the root that are read folder by folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder: the images directly inside, and its visible folders in natural order."""

    name: str
    images: int = 0
    folders: tuple[Tree, ...] = ()

    @property
    def total(self) -> int:
        """The number of images at any depth."""
        return self.images + sum(each.total for each in self.folders)

    def named(self, name: str) -> Tree | None:
        return next((each for each in self.folders if each.name == name), None)


def read_tree(root: Path) -> Tree:
    """Read the tree of a folder; raises ``OSError`` if the folder itself cannot be read."""
    with os.scandir(root):
        pass
    return read_subtree(str(root), root.name, DEPTH, frozenset(), {})


def read_subtree(path: str, name: str, depth: int, above: frozenset[str], linked: dict[str, Tree]) -> Tree:
    """Read the tree of a folder; links back to one of the folders ``above`` it are skipped.

    ``linked`` holds the trees of folders that links lead to, so that each of them is read once.
    """
    if depth == 0:
        return Tree(name=name, images=len(find_images(path).images))
    real = os.path.realpath(path)
    if os.path.islink(path) and real in linked:
        return replace(linked[real], name=name)
    tree = read_entries(path, name, depth, above | {real}, linked)
    if os.path.islink(path):
        linked[real] = tree
    return tree


def read_entries(path: str, name: str, depth: int, inside: frozenset[str], linked: dict[str, Tree]) -> Tree:
    """Read the entries of a folder; ``inside`` are the real paths of the folder and of those above it."""
    images, names = 0, list[str]()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if classify_name(entry.name) == "image":
                    images += 1
                elif not is_hidden(entry.name) and is_folder(entry) and not leads_back(entry, inside):
                    names.append(entry.name)
    except OSError:  # reported where its images are read
        return Tree(name=name)
    names.sort(key=natural_key)
    folders = tuple(read_subtree(os.path.join(path, each), each, depth - 1, inside, linked) for each in names)
    return Tree(name=name, images=images, folders=folders)


def leads_back(entry: os.DirEntry[str], above: frozenset[str]) -> bool:
    """Return whether an entry is a link to one of the folders that contain it."""
    return entry.is_symlink() and os.path.realpath(entry.path) in above


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReading:
    """How a folder of images is read.

    ``layout`` says where the images of each split are; ``given`` are the splits that the recipe states.
    """

    root: Path
    layout: Layout
    given: frozenset[Split]

    @property
    def splits(self) -> Mapping[Split, str]:
        """Return the pattern of each split, in the order train, valid, test."""
        return self.layout.splits

    @property
    def is_plain(self) -> bool:
        """Return whether the classes are directly below the root, or below folders with the usual names of splits."""
        return bool(self.given) or is_plain(self.layout)

    @property
    def note(self) -> str:
        """Describe how the folders were read, in one line; empty if that is obvious."""
        if self.is_plain:
            return ""
        return "folders are read as " + ", ".join(
            f"{split} in {describe_pattern(pattern)}" for split, pattern in self.splits.items()
        )

    def folder_of(self, split: Split) -> Path:
        """Return the folder with the class folders of a split; raises ``DataError`` if it does not exist."""
        above, _ = split_pattern_at_class(self.splits[split])
        return existing_folder(self.root / above, f"dataset.{split}") if above else self.root

    def class_folders(self, split: Split) -> list[tuple[str, Path]]:
        """Return the name and the folder of each class of a split, in natural order."""
        return [(name, self.root / path) for name, path in list_class_folders(self.layout, split, self._names)]

    def is_unlabelled(self, split: Split) -> bool:
        """Return whether the folder of a split other than ``train`` holds images, but no class folders."""
        if split == "train":
            return False
        has_images = any(kind == "image" for _, kind in self.loose(split))
        return has_images and not self.class_folders(split)

    def inner_splits(self, split: Split, folder: Path) -> list[str]:
        """Return the folders inside a class folder that belong to other splits."""
        inside = list_inner_splits(self.layout, split, os.path.relpath(folder, self.root), self._names)
        return [str(self.root / each) for each in inside]

    def loose(self, split: Split) -> Iterator[tuple[str, str]]:
        """Yield the name and kind of each entry next to the class folders of a split."""
        for entry in list_folder(self.folder_of(split)):
            if leads_up(entry):
                yield entry.name, "link"
            elif not is_visible_folder(entry):
                yield entry.name, classify(entry)

    def unused(self) -> Iterator[tuple[Path, bool]]:
        """Yield each unused entry next to the split folders, and whether it holds images without labels."""
        yield from ((self.folder_of(split), True) for split in self.splits if self.is_unlabelled(split))
        bases = {self.root / split_pattern_at_class(pattern)[0] for pattern in self.splits.values()}
        classes = {name for name, _ in self.class_folders("train")} if "train" in self.splits else set()
        above = {parent for base in bases for parent in base.parents if parent.is_relative_to(self.root)} - bases
        for folder in sorted(above):
            for entry in list_folder(folder):
                path = folder / entry.name
                if any(base.is_relative_to(path) for base in bases):
                    continue
                if leads_up(entry):
                    continue
                if is_visible_folder(entry):
                    yield path, not self.given and entry.name not in classes and is_flat(path)
                elif classify_name(entry.name) == "image":
                    yield path, False

    def _names(self, folder: str) -> list[str]:
        entries = list_folder(self.root / folder)
        return [entry.name for entry in entries if is_visible_folder(entry) and not leads_up(entry)]


def read_folder(root: Path, given: Mapping[Split, str] | None = None) -> FolderReading:
    """Find out how to read a folder of images: by the patterns in ``given``, otherwise by its structure and names.

    With a pattern for ``train`` nothing is guessed. Without it, the layout is recognised from the folders that no
    pattern names. Raises ``DataError`` if several readings make sense; it lists each with the recipe line for it.
    """
    patterns = {split: normalise_pattern(pattern) for split, pattern in (given or {}).items()}
    layout = Layout(splits=patterns) if "train" in patterns else recognise_layout(root, patterns)
    splits = {split: layout.splits[split] for split in ORDER if split in layout.splits}
    return FolderReading(root=root, layout=replace(layout, splits=splits), given=frozenset(patterns))


def recognise_layout(root: Path, patterns: Mapping[Split, str]) -> Layout:
    """Recognise the layout of a folder by its structure, apart from the folders that ``patterns`` name."""
    if any(pattern.startswith("*") for pattern in patterns.values()):
        return Layout(splits={"train": "*", **patterns})
    tree = read_tree(root)
    rest = tree
    for pattern in patterns.values():
        rest = remove_folder(rest, split_pattern_at_class(pattern)[0].split("/"))
    found = read_layout(rest)
    if isinstance(found, Unclear):
        readings = tuple(replace(each, splits={**each.splits, **patterns}) for each in found.readings)
        raise DataError(explain_unclear(replace(found, readings=readings), tree, str(root)))
    return replace(found, splits={**found.splits, **patterns})


def remove_folder(tree: Tree, path: Sequence[str]) -> Tree:
    first, *rest = path
    kept = (remove_folder(each, rest) if rest and each.name == first else each for each in tree.folders)
    return replace(tree, folders=tuple(each for each in kept if rest or each.name != first))


def leads_up(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to its own folder, or to one above."""
    if not entry.is_symlink():
        return False
    return Path(os.path.realpath(os.path.dirname(entry.path))).is_relative_to(os.path.realpath(entry.path))


def is_flat(folder: Path) -> bool:
    """Return whether all images are directly in a folder, or in a subfolder of its name, so that none has a class."""
    parents = {image.parent for image in find_images(folder).images}
    return len(parents) == 1 and parents <= {folder, folder / folder.name}


def describe_pattern(pattern: str) -> str:
    """Describe where the images of a split are."""
    above, inside = split_pattern_at_class(pattern)
    if not inside:
        return f"'{above}'" if above else "the class folders"
    return f"'{inside}' of each class" + (f" in '{above}'" if above else "")


def split_pattern(pattern: str) -> str:
    """Return the complete form of a dataset option that says where the images of a split are.

    ``*`` stands for the name of the class; ``train`` means ``train/*``. Raises ``ValueError`` for an invalid pattern.
    """
    return normalise_pattern(pattern)
