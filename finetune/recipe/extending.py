"""``extends``: a recipe that begins with what another one says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import RecipeError, UsageError
from finetune.recipe.document import Document, list_recipes, read_file, read_recipe, suggest_file
from finetune.recipe.mistakes import format_value
from finetune.recipe.models import Recipe
from finetune.recipe.nodes import Node
from finetune.recipe.overrides import TOLD_BY
from finetune.recipe.parts import SLOTS, get_section_model
from finetune.recipe.places import Mistake, clip_text, make_absolute
from finetune.recipe.runners import AutoRunner
from finetune.suggest import did_you_mean

KEY = "extends"
MAX_CHAIN = 8
ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class _File:
    """A recipe file: where it is, what messages call it, and where the relative paths in it start."""

    path: Path
    name: str
    folder: Path


def read_with_bases(source: Path | str | Mapping[str, Any]) -> Document:
    """Return a recipe together with what it extends, each value with its place.

    Raises ``RecipeError`` when there is nothing to go on with, such as a base that is missing or extends the recipe.
    """
    document = read_recipe(source)
    if isinstance(source, Mapping) or str(source) == "-":
        return _add_base(document, Path(), ())
    path = Path(source)
    return _add_base(document, path.parent, (_File(path.resolve(), str(path), path.parent),))


def list_files(source: Path | str | Mapping[str, Any] | None) -> list[Path]:
    """Return the file of a recipe and those that it extends; of standard input or a mapping there are none."""
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
    """Return a document after overrides; one that names another base comes too late, and is a mistake."""
    late = document.root.value.pop(KEY, None)
    if late is None:
        return document
    mistake = Mistake(late.place, (KEY,), "a base is read before the command line; write 'extends' into a file")
    return Document(root=document.root, mistakes=(*document.mistakes, mistake))


def _add_base(document: Document, beside: Path, chain: tuple[_File, ...]) -> Document:
    """Return the document merged over its base; ``beside`` is its folder as messages call it."""
    own = document.root.value
    node = own.pop(KEY, None)
    if node is None:
        return document
    try:
        file = _find_base(node, beside, chain)
    except _Refused as error:
        raise _make_error(document, Mistake(node.place, (KEY,), str(error))) from None
    try:
        base = read_file(file.path, file.name, file.folder, depth=node.place.depth + 1)
        base = _add_base(base, Path(file.name).parent, (*chain, file))
    except RecipeError as error:
        raise RecipeError([*map(str, document.mistakes), *error.mistakes]) from None
    return Document(root=_merge_nodes(base.root, document.root), mistakes=(*document.mistakes, *base.mistakes))


def _make_error(document: Document, mistake: Mistake) -> RecipeError:
    return RecipeError(map(str, (*document.mistakes, mistake)))


class _Refused(Exception):
    """A base that cannot be read; the message says why."""


def _find_base(node: Node, beside: Path, chain: tuple[_File, ...]) -> _File:
    """Return the file that ``extends`` names, relative to the recipe; refuse what cannot be meant."""
    wanted = node.value
    if not isinstance(wanted, str) or not wanted:
        hint = "; a recipe extends one other, which may extend a third" if isinstance(wanted, list) else ""
        raise _Refused(
            f"expected the path of a recipe or a name that `finetune ls` lists, got {format_value(wanted)}{hint}"
        )
    said = clip_text(wanted)
    file = (
        _find_file(wanted, node.place.folder, beside) if _is_path(wanted) else _find_bundled(wanted, node.place.folder)
    )
    paths = [each.path for each in chain]
    if file.path in paths:
        circle = " -> ".join([each.name for each in chain[paths.index(file.path) :]] + [file.name])
        raise _Refused(f"'{said}' leads back to itself: {circle}; take 'extends' out of one of them")
    if len(chain) >= MAX_CHAIN:
        raise _Refused(f"more than {MAX_CHAIN} recipes, each extending the next; write some of them out")
    return file


def _is_path(text: str) -> bool:
    return text.endswith(ENDINGS) or "/" in text


def _find_file(wanted: str, folder: Path, beside: Path) -> _File:
    said = clip_text(wanted)
    try:
        path = make_absolute(wanted, folder)
    except UsageError as error:
        raise _Refused(str(error)) from None
    if not os.path.exists(path):
        near = suggest_file(path)
        remedy = near if "did you mean" in near else "; a path starts at the folder of its recipe"
        raise _Refused(f"no file '{said}' in {folder}{remedy}")
    if not path.is_file():
        raise _Refused(f"'{said}' is no file; name a recipe such as base.yaml")
    name = path if wanted.startswith("~") else beside / wanted
    return _File(path.resolve(), str(name), path.parent.resolve())


def _find_bundled(wanted: str, folder: Path) -> _File:
    """Return the bundled recipe of a name; it has no photos beside it, so its paths start at ``folder``."""
    known = list_recipes()
    if wanted in known:
        return _File(known[wanted].resolve(), str(known[wanted]), folder)
    said = clip_text(wanted)
    if os.path.isfile(folder / f"{wanted}.yaml"):
        raise _Refused(f"no bundled recipe named '{said}'; did you mean '{said}.yaml'?")
    raise _Refused(f"no bundled recipe named '{said}'{did_you_mean(said, known)}")


def _merge_nodes(base: Node, own: Node) -> Node:
    """Return a base with what a recipe says, key by key within sections; its name is the recipe's own or none."""
    values = {name: node for name, node in base.value.items() if name != "name"}
    for name, node in own.value.items():
        before = values.get(name)
        if before is not None and isinstance(before.value, dict) and isinstance(node.value, dict):
            node = Node({**_keep_options(name, before, node), **node.value}, node.place)
        values[name] = node
    return Node(values, own.place)


def _keep_options(name: str, before: Node, node: Node) -> dict[str, Node]:
    """Return what is left of a section of the base: where another component is chosen, not the options of its own."""
    told_by = TOLD_BY.get(name, "use")
    if told_by not in node.value or node.value[told_by].value == _get_choice(name, before, told_by):
        return dict(before.value)
    kept = {told_by}
    if name in SLOTS:
        kept |= get_section_model(name).model_fields.keys()
    elif name == "runner":
        kept |= AutoRunner.model_fields.keys()
    return {key: child for key, child in before.value.items() if key in kept}


def _get_choice(name: str, before: Node, told_by: str) -> Any:
    """Return which component a section of the base chooses, by default the engine's usual one."""
    if told_by in before.value:
        return before.value[told_by].value
    field = Recipe.model_fields.get(name)
    return getattr(field.default, told_by, None) if field else None
