"""Completion candidates for arguments: recipes and overrides, runs, models, names of weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping  # noqa: TC003 - Typer reads the annotations
from functools import cache
from typing import Any

import typer  # noqa: TC002 - as above

from finetune.cli import source
from finetune.errors import FinetuneError, UsageError
from finetune.files.atomic import expand_home
from finetune.recipe import bundled

Offer = tuple[str, str]


class NoFiles(Exception):
    """There are no candidates, and files are not allowed either."""


def offer_words(context: typer.Context, incomplete: str) -> list[Offer]:
    """Return recipes for the first word of a command such as ``run``, then keys and values of the recipe."""
    before = tuple(context.params.get("words") or ())
    resumed = context.params.get("resume")
    if not before and not (resumed and resumed != source.AUTO):
        return list(offer_recipes(incomplete))
    found = [each for each in offer_changes(before, resumed, incomplete) if each[0].startswith(incomplete)]
    if not found:
        raise NoFiles
    return found


def offer_recipes(incomplete: str) -> Iterator[Offer]:
    """Yield bundled recipes, recipe files, and folders that may contain some."""
    yield from ((name, bundled.read_purpose(path)) for name, path in bundled.list_recipes().items())
    yield from ((path, "") for path in offer_files(incomplete) if path.endswith((".yaml", ".yml", "/")))


def offer_changes(before: tuple[str, ...], resumed: str | None, incomplete: str) -> Iterator[Offer]:
    """Yield completions of an override."""
    from finetune.recipe.completion import Writing

    writing = Writing(values=read_values(before, resumed), catalogue=cache(source.load_catalogue))
    key, has_value, value = incomplete.partition("=")
    if incomplete.startswith("~"):
        yield from ((f"~{text}", about) for text, about in writing.removable(incomplete[1:]))
    elif not has_value:
        yield from writing.keys(incomplete)
    else:
        yield from ((f"{key}={text}", about) for text, about in writing.choices(key))
        if writing.takes_files(key):
            yield from ((f"{key}={path}", "") for path in offer_files(value))


def read_values(before: tuple[str, ...], resumed: str | None) -> Mapping[str, Any]:
    """Return the values of a recipe after the overrides so far; empty if it cannot be read."""
    from finetune.recipe.document import from_mapping
    from finetune.recipe.extending import read_with_bases
    from finetune.recipe.plan import change_document

    asked = source.parse_words(before)
    name = asked.recipe or (os.path.join(resumed, "recipe.yaml") if resumed else "-")
    try:
        document = from_mapping({}) if name == "-" else read_with_bases(source.find_source(name))
    except FinetuneError:
        document = from_mapping({})
    return change_document(document, asked.changes).values


def offer_files(typed: str) -> Iterator[str]:
    """Yield the files and folders that start with ``typed``, folders with a trailing slash; hidden ones after a dot."""
    top, _, start = typed.rpartition("/")
    folder = f"{top}/" if "/" in typed else ""
    try:
        found = sorted(os.scandir(expand_home(folder) if folder else "."), key=lambda entry: entry.name)
    except (OSError, UsageError):
        return
    for entry in found:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            yield f"{folder}{entry.name}{'/' if entry.is_dir() else ''}"


def offer_runs(context: typer.Context, incomplete: str) -> Iterator[Offer]:
    """Yield the runs that ``--resume`` accepts."""
    yield source.AUTO, "the recipe's newest run"
    folder = "" if "/" in incomplete else f"{context.params.get('output') or 'runs'}/"
    for path in offer_files(folder or incomplete):
        if any(os.path.isfile(f"{path}{record}") for record in ("recipe.yaml", "sweep.json")):
            yield path.rstrip("/"), "finished" if os.path.isfile(f"{path}result.json") else ""


def offer_models(incomplete: str) -> Iterator[Offer]:
    """Yield run folders and model folders that contain a model."""
    for path in offer_files(incomplete if "/" in incomplete else "runs/"):
        if any(os.path.isfile(f"{path}{record}") for record in ("model/model.json", "model.json")):
            yield path.rstrip("/"), ""


def offer_components(context: typer.Context) -> list[Offer]:
    """Return ``show`` as the first word of ``plugins``, then the names of components with their kinds."""
    before = context.params.get("words") or []
    if not before:
        return [("show", "all about one component")]
    if len(before) > 1:
        raise NoFiles
    return [(component.name, component.kind) for _, component in source.load_catalogue()]


def offer_backbones() -> list[str]:
    """Return the names of backbones."""
    from finetune.components import Backbone

    return list(source.load_catalogue().names(Backbone))


def offer_weights() -> Iterator[Offer]:
    """Yield the names of weights with their sources."""
    from finetune.components import Backbone

    for _, component in source.load_catalogue():
        if isinstance(component, Backbone):
            yield from ((name, f"{component.name}: {record.source}") for name, record in component.weights.items())


def offer_forms() -> list[str]:
    """Return the formats and layouts in which weights can be written."""
    from finetune.components import Backbone

    networks = [each for _, each in source.load_catalogue() if isinstance(each, Backbone)]
    named = [layout.name for each in networks for layout in each.layouts if layout.writes]
    return list(dict.fromkeys(["safetensors", "ckpt", *named]))
