"""``extends``: a recipe that starts from the values of another recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.errors import RecipeError, UsageError
from finetune.recipe.bundled import list_recipes
from finetune.recipe.document import Document, read_file, read_recipe, suggest_file
from finetune.recipe.mistakes import format_value
from finetune.recipe.models import Recipe
from finetune.recipe.nodes import Node
from finetune.recipe.overrides import SELECTORS
from finetune.recipe.parts import SLOTS, get_section_model
from finetune.recipe.places import Mistake, clip_text, make_absolute
from finetune.recipe.runners import AutoRunner
from finetune.suggest import did_you_mean

KEY = "extends"
MAX_CHAIN = 8
ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class _File:
    """A recipe file: its path, its name in messages, and the folder at which its relative paths start."""

    path: Path
    name: str
    folder: Path


def read_with_bases(source: Path | str | Mapping[str, Any]) -> Document:
    """Return a recipe merged with the recipes that it extends, with the place of each value.

    Raises ``RecipeError`` if reading cannot continue, for example if a base is missing or extends the recipe.
    """
    document = read_recipe(source)
    if isinstance(source, Mapping) or str(source) == "-":
        return _add_base(document, Path(), ())
    path = Path(source)
    return _add_base(document, path.parent, (_File(path.resolve(), str(path), path.parent),))


def list_files(source: Path | str | Mapping[str, Any] | None) -> list[Path]:
    """Return the file of a recipe and the files that it extends; empty for standard input and mappings."""
    if source is None or isinstance(source, Mapping) or str(source) == "-":
        return []
    path = Path(source)
    chain: tuple[_File, ...] = (_File(path.resolve(), str(path), path.parent),)
    document = read_recipe(source)
    while (node := document.root.value.get(KEY)) is not None:
        file = _find_base(node, Path(chain[-1].name).parent, chain)
        document = read_file(file.path, file.name, file.folder, depth=node.place.depth + 1)
        chain = (*chain, file)
    return [path, *(file.path for file in chain[1:])]


def reject_late_base(document: Document) -> Document:
    """Return a document after overrides, with a mistake if an override sets ``extends``, which comes too late."""
    late = document.root.value.pop(KEY, None)
    if late is None:
        return document
    mistake = Mistake(late.place, (KEY,), "cannot be set by an override; write 'extends' in a recipe file")
    return replace(document, mistakes=(*document.mistakes, mistake))


def _add_base(document: Document, shown_folder: Path, chain: tuple[_File, ...]) -> Document:
    """Return the document merged over its base; ``shown_folder`` is its folder in messages."""
    own = document.root.value
    node = own.pop(KEY, None)
    if node is None:
        return document
    try:
        file = _find_base(node, shown_folder, chain)
    except _Refused as error:
        raise _make_error(document, Mistake(node.place, (KEY,), str(error))) from None
    try:
        base = read_file(file.path, file.name, file.folder, depth=node.place.depth + 1)
        base = _add_base(base, Path(file.name).parent, (*chain, file))
    except RecipeError as error:
        raise RecipeError([*map(str, document.mistakes), *error.mistakes]) from None
    return Document(
        root=_merge_nodes(base.root, document.root),
        mistakes=(*document.mistakes, *base.mistakes),
        notes=(*document.notes, *base.notes),
    )


def _make_error(document: Document, mistake: Mistake) -> RecipeError:
    return RecipeError(map(str, (*document.mistakes, mistake)))


class _Refused(Exception):
    """A base cannot be read; the message is the reason."""


def _find_base(node: Node, shown_folder: Path, chain: tuple[_File, ...]) -> _File:
    """Return the file that ``extends`` names; raises ``_Refused`` for a circle or a chain that is too long."""
    wanted = node.value
    if not isinstance(wanted, str) or not wanted:
        hint = "; a recipe extends exactly one recipe, which may extend another" if isinstance(wanted, list) else ""
        raise _Refused(
            f"expected the path of a recipe or a name that `finetune ls` lists, got {format_value(wanted)}{hint}"
        )
    said = clip_text(wanted)
    file = (
        _find_file(wanted, node.place.folder, shown_folder)
        if _is_path(wanted)
        else _find_bundled(wanted, node.place.folder)
    )
    paths = [each.path for each in chain]
    if file.path in paths:
        circle = " -> ".join([each.name for each in chain[paths.index(file.path) :]] + [file.name])
        raise _Refused(f"'{said}' leads back to itself: {circle}; remove 'extends' from one of them")
    if len(chain) >= MAX_CHAIN:
        raise _Refused(f"more than {MAX_CHAIN} recipes extend each other; merge some of them into one")
    return file


def _is_path(text: str) -> bool:
    return text.endswith(ENDINGS) or "/" in text


def _find_file(wanted: str, folder: Path, shown_folder: Path) -> _File:
    said = clip_text(wanted)
    try:
        path = make_absolute(wanted, folder)
    except UsageError as error:
        raise _Refused(str(error)) from None
    if not os.path.exists(path):
        near = suggest_file(path)
        remedy = near if "did you mean" in near else "; a path is relative to the folder of its recipe"
        raise _Refused(f"no file '{said}' in {folder}{remedy}")
    if not path.is_file():
        raise _Refused(f"'{said}' is not a file; name a recipe such as base.yaml")
    name = path if wanted.startswith("~") else shown_folder / wanted
    return _File(path.resolve(), str(name), path.parent.resolve())


def _find_bundled(wanted: str, folder: Path) -> _File:
    """Return a bundled recipe by name; there are no images next to it, so its paths start at ``folder``."""
    known = list_recipes()
    if wanted in known:
        return _File(known[wanted].resolve(), str(known[wanted]), folder)
    said = clip_text(wanted)
    if os.path.isfile(folder / f"{wanted}.yaml"):
        raise _Refused(f"no bundled recipe named '{said}'; did you mean '{said}.yaml'?")
    raise _Refused(f"no bundled recipe named '{said}'{did_you_mean(said, known)}")


def _merge_nodes(base: Node, own: Node) -> Node:
    """Return a base with the values of a recipe merged in, key by key within sections; ``name`` is not inherited."""
    values = {name: node for name, node in base.value.items() if name != "name"}
    for name, node in own.value.items():
        before = values.get(name)
        if before is not None and isinstance(before.value, dict) and isinstance(node.value, dict):
            node = Node({**_keep_options(name, before, node), **node.value}, node.place)
        values[name] = node
    return Node(values, own.place)


def _keep_options(name: str, before: Node, node: Node) -> dict[str, Node]:
    """Return the keys of a base's section that still apply: without its options if another component is chosen."""
    selector = SELECTORS.get(name, "use")
    if selector not in node.value or node.value[selector].value == _get_choice(name, before, selector):
        return dict(before.value)
    kept = {selector}
    if name in SLOTS:
        kept |= get_section_model(name).model_fields.keys()
    elif name == "runner":
        kept |= AutoRunner.model_fields.keys()
    return {key: child for key, child in before.value.items() if key in kept}


def _get_choice(name: str, before: Node, selector: str) -> Any:
    """Return the component that a section of the base chooses; the default of the engine if it chooses none."""
    if selector in before.value:
        return before.value[selector].value
    field = Recipe.model_fields.get(name)
    return getattr(field.default, selector, None) if field else None
