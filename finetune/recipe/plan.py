"""Plans: recipes with all components chosen and all options checked, before MindSpore is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import RecipeError, UsageError
from finetune.recipe import extending
from finetune.recipe import overrides as changes
from finetune.recipe.document import SMALLEST, Document
from finetune.recipe.mistakes import LIST, MAPPING, Known, Problem, join_alternatives
from finetune.recipe.models import BackboneSection, Recipe, Section
from finetune.recipe.nodes import dumps
from finetune.recipe.parts import (
    SLOTS,
    Part,
    check_across_keys,
    collect_findings,
    find_unused_options,
    get_default,
    get_section_model,
    locate_keys,
    resolve_positions,
    select_parts,
    validate_options,
    validate_values,
)
from finetune.recipe.places import KeyPath, Mistake, clip_text, is_weights_file, make_absolute, resolve_paths
from finetune.recipe.runners import AutoRunner

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue, Chosen
    from finetune.components import Audit, Augmentation, Backbone, Callback, Dataset, Freezer, Options

MAX_MISTAKES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A recipe that is ready to run: it is complete, its paths are absolute, and its components are loaded.

    ``notes`` list the options that have no effect.
    """

    recipe: Recipe
    backbone: Chosen[Backbone]
    dataset: Chosen[Dataset]
    augment: tuple[Chosen[Augmentation], ...]
    freezer: Chosen[Freezer]
    callbacks: tuple[Chosen[Callback], ...]
    audit: tuple[Chosen[Audit], ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)


def load_plan(source: Path | str | Mapping[str, Any], overrides: Sequence[str], catalogue: Catalogue) -> Plan:
    """Return the plan of a recipe in a file, on standard input (``-``) or in a mapping, including its bases.

    Relative paths start at the recipe's folder; in overrides, mappings and standard input they start at the current
    folder. Raises ``RecipeError`` with all mistakes, in the order of the file and then of its bases, and
    ``PluginError`` if validating the options of a plugin's component fails.
    """
    document = extending.reject_late_base(change_document(extending.read_with_bases(source), overrides))
    found: list[Problem] = []
    plan = _make_plan(document, _complete_values(document.values, source), catalogue, found)
    if plan is None or document.mistakes:
        raise RecipeError(_list_mistakes(document, found))
    return replace(plan, notes=(*map(str, document.notes), *plan.notes))


def change_document(document: Document, overrides: Sequence[str]) -> Document:
    """Return a recipe with overrides applied, starting from the default lists of sections that it leaves out."""
    defaults = {slot: get_default(slot) for slot, kind in SLOTS.items() if kind.many}
    kept = {slot: get_section_model(slot).model_fields for slot in SLOTS} | {"runner": AutoRunner.model_fields}
    return changes.apply_overrides(document, overrides, defaults, kept)


def _list_mistakes(document: Document, found: Sequence[Problem]) -> list[str]:
    """Return all mistakes in the order of the file; a key that could not be read is reported only once."""
    unread = {mistake.path for mistake in document.mistakes}
    later = [Mistake(document.place(p.path), p.path, p.text) for p in found if p.path not in unread or not p.path]
    in_order = sorted([*document.mistakes, *later], key=_get_sort_key)
    lines = list(dict.fromkeys(map(str, in_order)))
    more = len(lines) - MAX_MISTAKES
    return [*lines[:MAX_MISTAKES], f"and {more} more mistakes"] if more > 0 else lines


def _get_sort_key(mistake: Mistake) -> tuple[bool, int, int, int]:
    """Return the sort key of a mistake: the recipe comes first, then its bases, then the command line."""
    place = mistake.place
    return place.line == changes.OVERRIDDEN, place.depth, place.line, place.column


def dump_plan(plan: Plan) -> str:
    """Return the plan as a recipe with all defaults and absolute paths; loading it gives an equal plan."""
    unused = {"audit"} if not plan.recipe.audit else set()
    return dumps(plan.recipe.model_dump(mode="json", by_alias=True, exclude=unused))


def dump_given(plan: Plan) -> str:
    """Return the plan as a recipe without defaults, for rules that depend on whether a key is set."""
    said = plan.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return dumps({**said, "name": plan.recipe.name, "output": str(plan.recipe.output)})


def _complete_values(values: dict[str, Any], source: Path | str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with the file's name as ``name``, and with the default choice in sections that make none."""
    if not isinstance(source, Mapping) and str(source) != "-":
        stem = re.sub(r"[^\w.-]+", "-", Path(source).stem).strip("-.")[:80]
        values = {"name": stem or "run", **values}
    for name, about in Recipe.model_fields.items():
        given = values.get(name)
        if about.discriminator and isinstance(given, dict):
            selector = str(about.discriminator)
            values[name] = {selector: getattr(about.default, selector), **given}
    return values


def _make_plan(document: Document, values: dict[str, Any], catalogue: Catalogue, found: list[Problem]) -> Plan | None:
    """Return the plan, or None after adding the problems to ``found``."""
    parts = select_parts(values, catalogue, found)
    homes = locate_keys(parts)
    wrong: list[Problem] = []
    recipe = validate_values(Recipe, values, Known(Recipe, (extending.KEY,), homes), wrong)
    found += [_add_remedy(problem, values, catalogue) for problem in wrong]
    given = [validate_options(part, catalogue, homes, found) for part in parts]
    found += check_across_keys(values, parts)
    said = list(collect_findings(parts, given, values, catalogue, recipe))
    said += [] if recipe is None else find_unused_options(recipe)
    found += [Problem(each.path, "check", each.finding.text) for each in said if each.finding.severity == "error"]
    if found or recipe is None:
        return None
    plan = _complete_plan(recipe, list(zip(parts, given, strict=True)), _Paths(document, found), catalogue)
    notes = tuple(str(Mistake(document.place(each.path), each.path, each.finding.text)) for each in said)
    return None if found else replace(plan, notes=notes)


def _add_remedy(problem: Problem, values: Mapping[str, Any], catalogue: Catalogue) -> Problem:
    slot = problem.path[0] if problem.path else None
    if slot in SLOTS and problem.expected in ((MAPPING,), (LIST,)):
        return _add_choices(problem, str(slot), values.get(str(slot)), catalogue)
    if problem.kind != "missing":
        return problem
    text = f"missing; the smallest recipe is '{SMALLEST}'"
    if slot in SLOTS and problem.path[-1] == "use":
        given = values.get(str(slot))
        glued = [key for key in given if key.startswith("use:")] if isinstance(given, dict) else []
        text = f"missing; choose one of: {', '.join(catalogue.names(SLOTS[str(slot)]))}"
        text = f"missing; put a space after the ':' of '{clip_text(glued[0])}'" if glued else text
    return Problem(problem.path, problem.kind, text) if slot in SLOTS else problem


def _add_choices(problem: Problem, slot: str, value: Any, catalogue: Catalogue) -> Problem:
    """Return the problem of a section that is a name, or a list with one name, with a hint on what to write."""
    for index in problem.path[1:]:
        value = value[index] if isinstance(value, list) and isinstance(index, int) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or slot == "dataset":
        return problem
    names = catalogue.names(SLOTS[slot])
    in_list = problem.expected == (LIST,)
    written, name = ("[{use: %s}]" if in_list else "{use: %s}"), clip_text(value)
    if value in names:
        remedy = f"write {written % name}"
    elif near := get_close_matches(value.lower(), names, n=1, cutoff=0.6):
        remedy = f"did you mean {written % near[0]}?"
    else:
        remedy = f"write {written % 'NAME'}, where NAME is {join_alternatives(names)}"
    return Problem(problem.path, problem.kind, f"{problem.text.partition(';')[0]}; {remedy}")


@dataclass(frozen=True, slots=True)
class _Paths:
    """Makes the paths of a recipe absolute, each relative to the folder of its place."""

    document: Document
    found: list[Problem]

    def __call__(self, path: Path, at: KeyPath) -> Path:
        node = self.document.find(at)
        try:
            return make_absolute(path, node.place.folder if node else Path.cwd())
        except UsageError as error:
            self.found.append(Problem(at, "home", str(error)))
            return path


def _complete_plan(recipe: Recipe, parts: Sequence[tuple[Part, Options]], paths: _Paths, catalogue: Catalogue) -> Plan:
    """Return the plan with absolute paths and with the defaults of its components."""
    sections: dict[str, list[Section]] = {slot: [] for slot in SLOTS}
    chosen: dict[str, list[Chosen[Any]]] = {slot: [] for slot in SLOTS}
    for part, given in parts:
        settled = resolve_paths(given, part.path, paths)
        chosen[part.slot].append(catalogue.choose(part.component, settled))
        sections[part.slot].append(_complete_section(recipe, part, settled, paths))
    freezer, stages = chosen["freeze"][0], (*chosen["backbone"][0].component.stages, "head")
    named_options, _ = resolve_positions(freezer.component, freezer.options, stages)
    lists = {slot: tuple(items) if SLOTS[slot].many else items[0] for slot, items in sections.items()}
    return Plan(
        recipe=resolve_paths(recipe, (), paths).model_copy(update=lists),
        backbone=chosen["backbone"][0],
        dataset=chosen["dataset"][0],
        augment=tuple(chosen["augment"]),
        freezer=replace(freezer, options=named_options),
        callbacks=tuple(chosen["callbacks"]),
        audit=tuple(chosen["audit"]),
    )


def _complete_section(recipe: Recipe, part: Part, given: Options, paths: _Paths) -> Section:
    """Return the section of a part with all options of its component, as in a recipe."""
    written = getattr(recipe, part.slot)
    index = part.path[-1]
    own = written[index] if isinstance(index, int) else written
    said = own.model_fields_set & get_section_model(part.slot).model_fields.keys()  # unset keys stay unset
    values: dict[str, Any] = {key: getattr(own, key) for key in sorted(said | {"use"})}
    values |= {key: paths(path, (*part.path, key)) for key, path in values.items() if isinstance(path, Path)}
    if isinstance(own, BackboneSection) and is_weights_file(own.weights):
        values["weights"] = str(paths(Path(own.weights), (*part.path, "weights")))
    complete: Section = type(own).model_validate({**values, **given.model_dump(mode="json", by_alias=True)})
    return complete
