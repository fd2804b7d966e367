"""Class folders of a layout: matches its patterns against a tree of folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from finetune.data.folderlayout import ORDER, format_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.components import Split
    from finetune.data.folderlayout import Layout, Unclear
    from finetune.data.folderreading import Tree

    Names = Callable[[str], list[str]]

LISTED = 5  # classes of each split that a message lists


def normalise_pattern(pattern: str) -> str:
    """Return a pattern with its ``*``, which users may leave out: ``train`` means ``train/*``, and ``.`` means ``*``.

    Raises ``ValueError`` for text that is not a pattern.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if "*" not in parts:
        parts.append("*")
    if sum("*" in part for part in parts) > 1:
        raise ValueError("use '*' once, between slashes, for the name of the class, such as 'train/*'")
    return ("/" if pattern.startswith("/") else "") + "/".join(parts)


def split_pattern_at_class(pattern: str) -> tuple[str, str]:
    """Return the path above the class folders, and the path inside each of them."""
    before, _, after = f"/{pattern}/".partition("/*/")
    return before.removeprefix("/"), after.removesuffix("/")


def list_class_folders(layout: Layout, split: Split, names: Names) -> Iterator[tuple[str, str]]:
    """Yield the name of each class of a split, and its folder relative to the root.

    ``names`` returns the visible folders in a folder, in order. Folders of other splits are not classes.
    """
    before, after = split_pattern_at_class(layout.splits[split])
    others = [split_pattern_at_class(pattern)[0] for each, pattern in layout.splits.items() if each != split]
    for name in names(before):
        folder = os.path.join(before, name)
        if any(f"{other}/".startswith(f"{folder}/") for other in others):
            continue
        inner = find_below(folder, after, names)
        if inner is not None:
            yield name, inner


def find_below(folder: str, path: str, names: Names) -> str | None:
    """Return the folder at a path inside another one, ignoring case; None if there is none."""
    for part in filter(None, path.split("/")):
        found = next((name for name in names(folder) if name.casefold() == part.casefold()), None)
        if found is None:
            return None
        folder = os.path.join(folder, found)
    return folder


def list_inner_splits(layout: Layout, split: Split, folder: str, names: Names) -> list[str]:
    """Return the folders inside a class folder that belong to other splits."""
    own = split_pattern_at_class(layout.splits[split])
    found = []
    for each, pattern in layout.splits.items():
        before, after = split_pattern_at_class(pattern)
        if each != split and before == own[0] and after and not own[1]:
            found.append(find_below(folder, after, names))
    return [each for each in found if each is not None]


def explain_unclear(unclear: Unclear, tree: Tree, root: str) -> str:
    """Describe an ambiguous tree: every possible reading, each with the recipe line that selects it."""
    lines = [f"'{root}' {unclear.why}"]
    for layout in unclear.readings:
        lines += [
            f"  {describe_layout(layout, tree)}",
            f"    dataset: {{use: folder, root: {quote_yaml(root)}, {format_options(layout)}}}",
        ]
    return "\n".join([*lines, "add the line that you mean to the recipe"])


def describe_layout(layout: Layout, tree: Tree) -> str:
    """Describe the classes of each split, with the number of images in each."""
    parts = []
    for split in ORDER:
        if split in layout.splits:
            counts = count_by_class(layout, split, tree)
            flat = count_below(tree, split_pattern_at_class(layout.splits[split])[0])
            if flat and not counts:
                parts.append(f"{split} {flat:,} image{'s' * (flat != 1)} without labels, not used")
                continue
            first = ", ".join(f"{name} {number:,}" for name, number in list(counts.items())[:LISTED])
            more = f" and {len(counts) - LISTED:,} more" if len(counts) > LISTED else ""
            plural = "class" if len(counts) == 1 else "classes"
            parts.append(f"{split} {len(counts):,} {plural}{f' ({first}{more})' if counts else ''}")
    return "; ".join(parts)


def count_by_class(layout: Layout, split: Split, tree: Tree) -> dict[str, int]:
    """Return the number of images of each class of a split."""

    def names(folder: str) -> list[str]:
        found = find_folder(tree, folder)
        return [each.name for each in found.folders] if found else []

    counts = {}
    for name, folder in list_class_folders(layout, split, names):
        inside = sum(count_below(tree, each) for each in list_inner_splits(layout, split, folder, names))
        if number := count_below(tree, folder) - inside:
            counts[name] = number
    return counts


def find_folder(tree: Tree, path: str) -> Tree | None:
    found: Tree | None = tree
    for part in filter(None, path.split("/")):
        found = found.named(part) if found else None
    return found


def count_below(tree: Tree, path: str) -> int:
    """Return the number of images below a path."""
    found = find_folder(tree, path)
    return found.total if found else 0


def quote_yaml(text: str) -> str:
    """Quote text where YAML needs it within braces."""
    plain = all(char.isalnum() or char in "/._-" for char in text) and not text[:1].isdigit()
    return text if plain else "'" + text.replace("'", "''") + "'"
