"""Layout of a folder of images: which folders are classes, and which are splits that hold classes.

Pure functions from a ``Tree`` to a ``Layout``, or to ``Unclear`` where more than one reading makes sense. A layout has
a pattern for each split: a path relative to the root in which ``*`` stands for the name of the class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune.data.splitfile import EXACT, FLEXIBLE, find_role, is_split_name, is_usual, split_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from finetune.components import Split
    from finetune.data.folderreading import Tree

WRAPPERS = (
    *("images", "image", "imgs", "img", "photos", "photo", "pictures", "pics", "data", "dataset", "datasets", "files"),
    *("jpegimages", "jpg", "jpeg", "jpegs", "png", "pngs", "input", "inputs", "raw", "all"),
)
UNLABELLED = ("unlabeled", "unlabelled", "unsup", "unsupervised", "predict", "pred", "inference", "submission")
ORDER: tuple[Split, ...] = ("train", "valid", "test")
DEEPEST = 3  # nested wrapper folders that are skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The pattern that finds the images of each split."""

    splits: Mapping[Split, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """Several layouts that fit a tree, the most likely first."""

    readings: tuple[Layout, ...] = field(default=())
    why: str = "can be read in more than one way"


def read_layout(tree: Tree) -> Layout | Unclear:
    """Recognise the layout of a tree by its structure and by the usual names of splits."""
    base, prefix = unwrap(tree)
    return read_class_first(base, prefix) or read_split_first(base, prefix)


def unwrap(tree: Tree) -> tuple[Tree, str]:
    """Return the folder that holds classes or splits, skipping wrappers around it, and its path with a slash."""
    prefix = ""
    for _ in range(DEEPEST):
        inner = find_wrapped(tree)
        if inner is None or (
            find_role(inner.name) and not all(find_role(each.name) for each in list_image_folders(inner))
        ):
            break
        tree, prefix = inner, f"{prefix}{inner.name}/"
    return tree, prefix


def find_wrapped(tree: Tree) -> Tree | None:
    """Return the inner folder if a folder is only a wrapper around it, otherwise None."""
    inside = list_image_folders(tree)
    if len(inside) != 1:
        return None
    inner = inside[0]
    if len(tree.folders) > 1 and inner.name.lower() not in WRAPPERS:
        return None
    below = list_image_folders(inner)
    roles = {find_role(each.name) for each in below}
    if (tree.images or inner.images) and not ("train" in roles and len(roles) > 1):
        return None
    worth = len(below) > 1 or any(find_role(each.name) for each in below) or find_wrapped(inner) is not None
    return inner if worth else None


def read_class_first(base: Tree, prefix: str) -> Layout | Unclear | None:
    """Return the layout of class folders that hold splits, such as ``rose/train``; None if it is a different one."""
    folders = list_image_folders(base)
    holding = [each for each in folders if holds_splits(each)]
    names = {inner.name.lower() for each in holding for inner in list_image_folders(each) if find_role(inner.name)}
    splits = {split: f"{prefix}*/{name}" for split, (name, *_) in group_by_split(sorted(names)).items()}
    if not holding or any(find_role(each.name) for each in holding):
        return None
    mixed = any(each.images for each in holding)
    if mixed and len(holding) * 2 < len(folders):
        return None
    splits = {"train": f"{prefix}*", **splits}
    if readings := find_complete_datasets(holding, prefix):
        return Unclear(readings=(*readings, Layout(splits=splits)))
    if not mixed and len(holding) == len(folders) and len(names) == len(group_by_split(sorted(names))):
        return Layout(splits=splits)
    return Unclear(readings=(Layout(splits=splits), Layout(splits={"train": f"{prefix}*"})))


def find_complete_datasets(folders: Sequence[Tree], prefix: str) -> list[Layout]:
    """Return one layout for each folder if all of them have the same classes in their splits, such as folds."""
    trains = [each for folder in folders for each in list_image_folders(folder) if find_role(each.name) == "train"]
    if not have_same_folders(trains):
        return []
    found = [(folder, group_by_split([each.name for each in list_image_folders(folder)])) for folder in folders]
    return [
        Layout(splits={split: f"{prefix}{folder.name}/{name}/*" for split, (name, *_) in names.items()})
        for folder, names in found
    ]


def holds_splits(folder: Tree) -> bool:
    """Return whether a class folder is divided into splits, or holds images next to folders named as splits."""
    inside = list_image_folders(folder)
    roles = {find_role(each.name) for each in inside}
    if folder.images:
        return bool(inside) and all(each.name.lower() in EXACT and each.images for each in inside)
    return None not in roles and "train" in roles and len(roles) > 1


def read_split_first(base: Tree, prefix: str) -> Layout | Unclear:
    """Return the layout of split folders that hold classes, or of classes with splits next to them."""
    named = [each for each in base.folders if find_role(each.name)]
    if named and len(named) == len(base.folders):
        deep = [each for each in named if not each.images]
        return read_splits_only(named if not any(each.folders for each in deep) else deep, base, prefix)
    named = [each for each in named if not each.images and each.total]
    if not named:
        return read_classes_only(base, prefix)
    found = group_by_split([each.name for each in named])
    if any(len(names) > 1 for names in found.values()):
        return read_doubled_splits(found, base, prefix)
    patterns = {split: build_split_pattern(base, names[0], prefix) for split, names in found.items()}
    rest = [each for each in base.folders if each not in named and each.total]
    splits = Layout(splits=patterns)
    mixed = Layout(splits={"train": f"{prefix}*", **patterns})
    classes = Layout(splits={"train": f"{prefix}*"})
    if "train" in found:
        return splits if len(found) > 1 or not could_be_classes(rest) else Unclear(readings=(splits, classes))
    clear = all(are_mostly_known(list_folder_names(each), {other.name.casefold() for other in rest}) for each in named)
    return mixed if clear or not rest else Unclear(readings=(mixed, classes))


def read_splits_only(folders: Sequence[Tree], base: Tree, prefix: str) -> Layout | Unclear:
    """Return the layout in which every folder is named as a split; flat ones next to ``train`` have no labels."""
    found = group_by_split([each.name for each in folders])
    if any(len(names) > 1 for names in found.values()):
        return read_doubled_splits(found, base, prefix)
    return Layout(splits={split: build_split_pattern(base, names[0], prefix) for split, names in found.items()})


def read_doubled_splits(found: Mapping[Split, Sequence[str]], base: Tree, prefix: str) -> Unclear:
    """Return one reading for each of the folders that are named as the same split."""
    split, names = next((split, names) for split, names in found.items() if len(names) > 1)
    readings = []
    for name in names:
        chosen = {each: build_split_pattern(base, others[0], prefix) for each, others in found.items()}
        readings.append(Layout(splits={**chosen, split: build_split_pattern(base, name, prefix)}))
    if not all(name.lower() in EXACT for name in names):
        readings.append(Layout(splits={"train": f"{prefix}*"}))
    both = "' and '".join(names)
    return Unclear(readings=tuple(readings), why=f"has '{both}', which name the same split; keep one")


def read_classes_only(base: Tree, prefix: str) -> Layout | Unclear:
    """Return the layout without split names; a folder that repeats the names of its siblings is a split as well."""
    everything = Layout(splits={"train": f"{prefix}*"})
    odd = [each for each in list_image_folders(base) if repeats_siblings(each, base)]
    if odd:
        names: tuple[Split, ...] = ("test", "valid")
        extra = {split: f"{prefix}{each.name}/*" for split, each in zip(names, odd, strict=False)}
        return Unclear(readings=(Layout(splits={"train": f"{prefix}*", **extra}), everything))
    folders = list_image_folders(base)
    if (labelled := find_labelled_folder(folders)) is not None:
        return Layout(splits={"train": f"{prefix}{labelled.name}/*"})
    if flat := find_flat_splits(folders):
        extra = {split: f"{prefix}{name}/*" for split, name in flat.items()}
        return Unclear(readings=(Layout(splits={"train": f"{prefix}*", **extra}), everything))
    if not have_same_folders(folders):
        return everything
    splits = {split: f"{prefix}{each.name}/*" for split, each in zip(ORDER, folders, strict=False)}
    return Unclear(readings=(Layout(splits=splits), everything))


def find_labelled_folder(folders: Sequence[Tree]) -> Tree | None:
    """Return the only folder with classes, if all other folders are flat and named as images without labels."""
    deep = [each for each in folders if not each.images]
    flat = [each for each in folders if each.images]
    is_clear = (
        len(deep) == 1
        and len(list_image_folders(deep[0])) > 1
        and flat
        and all(is_unlabelled(each.name) for each in flat)
    )
    return deep[0] if is_clear else None


def find_flat_splits(folders: Sequence[Tree]) -> dict[Split, str]:
    """Return flat folders that are named only as a split and are next to at least two classes.

    They are splits without labels, or classes. Next to a flat folder ``train`` they are classes.
    """
    named = [each.name for each in folders if each.images and (is_split_name(each.name) or is_unlabelled(each.name))]
    found = group_by_split(named)
    if "train" in found or len(folders) - len(named) < 2:
        return {}
    unlabelled = [name for name in named if is_unlabelled(name)]
    first = {split: names[0] for split, names in found.items()}
    return {"test": unlabelled[0], **first} if unlabelled else first


def is_unlabelled(name: str) -> bool:
    """Return whether a folder's name says that its images have no labels."""
    return bool({*split_words(name)} & {*UNLABELLED})


def have_same_folders(folders: Sequence[Tree]) -> bool:
    """Return whether several folders hold no images directly, but mostly folders of the same names."""
    inside = [list_folder_names(each) for each in folders if not each.images]
    if len(folders) < 2 or len(inside) < len(folders):
        return False
    common = frozenset.intersection(*inside)
    return len(common) > 1 and 2 * len(common) >= len(frozenset.union(*inside))


def repeats_siblings(folder: Tree, base: Tree) -> bool:
    """Return whether a folder holds no images directly, but folders with the names of its siblings."""
    siblings = {each.name.casefold() for each in base.folders if each is not folder}
    inside = list_folder_names(folder)
    return not folder.images and bool(inside & siblings) and (inside <= siblings or len(inside & siblings) > 1)


def could_be_classes(folders: Iterable[Tree]) -> bool:
    """Return whether folders next to ``train`` look like classes of their own, not like images without labels."""
    labelled = [each for each in folders if not find_role(each.name) and not is_unlabelled(each.name)]
    flat = [each for each in labelled if each.images]
    return len(flat) > 1 or len(flat) < len(labelled)


def group_by_split(names: Iterable[str]) -> dict[Split, list[str]]:
    """Group names by split; ``eval`` and ``holdout`` mean validation or test, whichever is not taken."""
    found: dict[Split, list[str]] = {}
    flexible = []
    for name in names:
        role = find_role(name)
        if role in ("train", "valid", "test"):
            found.setdefault(role, []).append(name)
        elif role is not None:
            flexible.append((name, FLEXIBLE[role]))
    for name, (first, second) in flexible:
        found.setdefault(second if first in found and second not in found else first, []).append(name)
    return {split: found[split] for split in ORDER if split in found}


def build_split_pattern(base: Tree, name: str, prefix: str) -> str:
    """Return the pattern of a split folder, skipping wrappers in it such as ``seg_train/seg_train``."""
    others = {inner for each in base.folders if each.name != name for inner in list_folder_names(each)}
    folder = base.named(name)
    while folder is not None:
        folder = find_only_folder(folder, others)
        name = f"{name}/{folder.name}" if folder else name
    return f"{prefix}{name}/*"


def find_only_folder(folder: Tree, others: set[str]) -> Tree | None:
    """Return the inner folder of a split folder that is only a wrapper, unless it is a class in ``others``."""
    inside = list_image_folders(folder)
    if len(inside) != 1 or folder.images or inside[0].images:
        return None
    inner = inside[0]
    if inner.name.casefold() == folder.name.casefold() or inner.name.lower() in WRAPPERS:
        return inner
    return find_wrapped(folder) if inner.name.casefold() not in others else None


def are_mostly_known(names: frozenset[str], known: set[str]) -> bool:
    return bool(names) and 2 * len(names & known) >= len(names)


def list_image_folders(folder: Tree) -> list[Tree]:
    """Return the folders in a folder that hold images at any depth."""
    return [each for each in folder.folders if each.total]


def list_folder_names(folder: Tree) -> frozenset[str]:
    """Return the names of the folders with images in a folder, ignoring case."""
    return frozenset(each.name.casefold() for each in list_image_folders(folder))


def is_plain(layout: Layout) -> bool:
    """Return whether a layout needs no explanation: only classes, or folders with the usual names of splits."""
    if dict(layout.splits) == {"train": "*"}:
        return True
    return all(pattern.endswith("/*") and is_usual(pattern[:-2], split) for split, pattern in layout.splits.items())


def format_options(layout: Layout) -> str:
    """Format the dataset options of a recipe that select a layout."""
    patterns = ((split, layout.splits[split]) for split in ORDER if split in layout.splits)
    return ", ".join(f'{split}: "{pattern}"' for split, pattern in patterns)
