"""Sections of a recipe that select a component: validates their options and checks them against each other."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from finetune.components import (
    KINDS,
    Augmentation,
    Backbone,
    Callback,
    Component,
    Finding,
    Freezer,
    Options,
    RunFacts,
)
from finetune.errors import PluginError, UsageError
from finetune.plugins import attribute_errors
from finetune.recipe.mistakes import Known, Problem, collect_problems, find_models, format_value
from finetune.recipe.models import MOST_EPOCHS, Cosine, Recipe, Section, StepDecay
from finetune.recipe.overrides import parse_keys
from finetune.recipe.places import KeyPath, clip_text, format_path, is_weights_file
from finetune.recipe.positions import Resolution, replace_positions
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from finetune.catalogue import Catalogue


M = TypeVar("M", bound=BaseModel)

SLOTS: dict[str, type[Component]] = {kind.section: kind for kind in KINDS}

_DIGEST = re.compile(r"#sha256=[0-9a-fA-F]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section as written, and the component that it selects."""

    slot: str
    path: KeyPath
    raw: Mapping[str, Any]
    component: Component

    @property
    def given(self) -> dict[str, Any]:
        """Return the keys that belong to the component."""
        return {key: value for key, value in self.raw.items() if key not in get_section_model(self.slot).model_fields}


def get_section_model(slot: str) -> type[Section]:
    """Return the model of the keys that the engine itself reads in a section."""
    model = find_models(Recipe.model_fields[slot].annotation)[0]
    assert issubclass(model, Section)
    return model


def get_default(slot: str) -> Any:
    """Return the default of a section as plain values; None if the section is required."""
    value = Recipe.model_fields[slot].default
    if isinstance(value, tuple):
        return [item.model_dump(mode="json") for item in value]
    return value.model_dump(mode="json") if isinstance(value, Options) else None


def select_parts(values: Mapping[str, Any], catalogue: Catalogue, found: list[Problem]) -> list[Part]:
    """Return the parts of a recipe; names that are not in the catalogue are added to ``found``."""
    parts = []
    for slot, path, raw in _list_sections(values):
        use = raw.get("use", get_section_model(slot).model_fields["use"].default)
        if not isinstance(use, str):
            continue
        try:
            component = catalogue.get(SLOTS[slot], use)
        except UsageError as error:
            found.append(Problem((*path, "use"), "use", clip_text(str(error), 400)))
        else:
            parts.append(Part(slot=slot, path=path, raw=raw, component=component))
    return parts


def _list_sections(values: Mapping[str, Any]) -> Iterator[tuple[str, KeyPath, Mapping[str, Any]]]:
    for slot in SLOTS:
        usual = get_default(slot)
        value = values.get(slot, usual)
        if not isinstance(usual, list):
            items: list[tuple[KeyPath, Any]] = [((slot,), value)]
        else:
            items = [((slot, i), item) for i, item in enumerate(value)] if isinstance(value, list) else []
        yield from ((slot, path, raw) for path, raw in items if isinstance(raw, Mapping))


def validate_options(
    part: Part, catalogue: Catalogue, elsewhere: Mapping[str, Sequence[str]], found: list[Problem]
) -> Any:
    """Return the options of a part's component, or None after adding the problems to ``found``."""
    kind, name, model = part.component.kind, part.component.name, part.component.options
    fields = get_section_model(part.slot).model_fields
    known = Known(model, tuple(fields), {**elsewhere, **_suggest_siblings(part, catalogue, elsewhere)})
    origin = catalogue.origin(part.component)
    if both := fields.keys() & model.model_fields.keys():
        raise PluginError(f"{origin}: {kind} '{name}' has an option '{min(both)}', which is a key of the engine")
    wrong: list[Problem] = []
    with attribute_errors(origin, f"the options of {kind} '{name}'"):
        result = validate_values(model, part.given, known, wrong)
    for problem in wrong:
        text = f"missing; {kind} '{name}' needs it" if problem.kind == "missing" else problem.text
        found.append(Problem((*part.path, *problem.path), problem.kind, text))
    return result


def _suggest_siblings(part: Part, catalogue: Catalogue, homes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return hints for the options of other components of the same kind: which component to choose, two at most."""
    found: dict[str, list[str]] = {}
    for _, component in catalogue:
        if isinstance(component, SLOTS[part.slot]) and component is not part.component:
            for key in component.options.model_fields:
                found.setdefault(key, []).append(f"'{format_path((*part.path, key))}' with 'use: {component.name}'")
    chosen = f"'{part.slot}["  # a callback in the recipe is a better guess
    return {
        key: [*words[:2], *homes.get(key, ())]
        for key, words in found.items()
        if not any(home.startswith(chosen) for home in homes.get(key, ()))
    }


def validate_values(model: type[M], values: Any, known: Known, found: list[Problem]) -> M | None:
    """Return ``values`` as a model, or None after adding the problems to ``found``.

    Validation goes through JSON, in which a list may become a tuple and text a path, but text never a number.
    """
    try:
        return model.model_validate_json(to_json(values, inf_nan_mode="constants"))
    except ValidationError as error:
        found += collect_problems(error, values, known)
        return None


def locate_keys(parts: Sequence[Part]) -> dict[str, list[str]]:
    """Return the places of each key of a recipe and of the chosen components, for messages."""
    homes: dict[str, dict[str, None]] = {name: {f"'{name}' at the top": None} for name in Recipe.model_fields}
    sections = [((name,), find_models(field.annotation)) for name, field in Recipe.model_fields.items()]
    single: list[tuple[KeyPath, list[type[BaseModel]]]] = [
        (path, models) for path, models in sections if not getattr(SLOTS.get(str(path[0])), "many", False)
    ]
    chosen: list[tuple[KeyPath, list[type[BaseModel]]]] = [(part.path, [part.component.options]) for part in parts]
    for path, models in [*single, *chosen]:
        for model in models:
            for key in model.model_fields.keys() - {"use"}:
                owner = "" if all(key in other.model_fields for other in models) else f" with {_format_choice(model)}"
                homes.setdefault(key, {})[f"'{format_path((*path, key))}'{owner}"] = None
    return {key: list(places) for key, places in homes.items()}


def _format_choice(model: type[BaseModel]) -> str:
    key = "use" if "use" in model.model_fields else "device"
    return f"'{key}: {get_args(model.model_fields[key].annotation)[0]}'"


def check_across_keys(values: Mapping[str, Any], parts: Sequence[Part]) -> Iterator[Problem]:
    """Yield conflicts between keys that are valid by themselves."""
    yield from _check_at_most(values, ("schedule", "warmup_epochs"), ("train", "epochs"))
    yield from _check_at_most(values, ("image", "size"), ("image", "resize"))
    yield from _check_duplicates([part for part in parts if part.slot == "callbacks"])
    yield from (problem for part in parts if part.slot == "backbone" for problem in _check_weights(part))


def _check_at_most(values: Mapping[str, Any], low: tuple[str, str], high: tuple[str, str]) -> Iterator[Problem]:
    small, large = get_number(values, *low), get_number(values, *high)
    if small is not None and large is not None and small > large > 0:
        limit = f"{format_path(high)}, which is {format_value(large)}"
        yield Problem(low, "cross", f"{format_value(small)} is more than {limit}")


def get_number(values: Mapping[str, Any], name: str, key: str) -> float | None:
    """Return a number of a recipe, or the default; None if the value is not a number."""
    given = values.get(name, {})
    value = given.get(key, getattr(Recipe.model_fields[name].default, key)) if isinstance(given, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _check_duplicates(callbacks: Sequence[Part]) -> Iterator[Problem]:
    first: dict[str, Part] = {}
    for part in callbacks:
        earlier = first.setdefault(part.component.name, part)
        if earlier is not part:
            text = f"duplicate '{part.component.name}'; already at {format_path(earlier.path)}"
            yield Problem((*part.path, "use"), "double", text)


def _check_weights(part: Part) -> Iterator[Problem]:
    weights = part.raw.get("weights", "auto")
    assert isinstance(part.component, Backbone)
    names = [*part.component.weights, "auto", "none"]
    if not isinstance(weights, str) or weights in names or is_weights_file(weights):
        return
    if "://" not in weights:
        file = f"; write './{clip_text(weights)}' for the file or folder of this name"
        remedy = file if os.path.lexists(weights) else did_you_mean(weights, names)
        text = f"no weights named '{clip_text(weights)}' for '{part.component.name}'{remedy}"
        yield Problem((*part.path, "weights"), "weights", text)
    elif not _DIGEST.search(weights):
        yield Problem((*part.path, "weights"), "weights", "a URL needs the sha256 of its file; add '#sha256=HEX'")


Each = TypeVar("Each", bound=Options)


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and the key that it concerns."""

    path: KeyPath
    finding: Finding


def collect_findings(
    parts: Sequence[Part],
    given: Sequence[Options | None],
    values: Mapping[str, Any],
    catalogue: Catalogue,
    recipe: Recipe | None = None,
) -> Iterator[Found]:
    """Yield the findings of freezers, augmentations and callbacks on their options, if those are valid.

    Callbacks also read the rest of the ``recipe``, so they are called only if that is valid.
    """
    stages = next((part.component.stages for part in parts if isinstance(part.component, Backbone)), None)
    for part, options in zip(parts, given, strict=True):
        if options is None:
            continue
        named_options, resolution = resolve_positions(part.component, options, (*(stages or ()), "head"))
        wrong = {(*part.path, *each.path): each.finding for each in resolution.wrong} if stages else {}
        yield from (Found(path, finding) for path, finding in wrong.items())
        ask = get_check(
            part.component, stages, get_epochs(values), RunFacts(recipe=assume_longest(recipe)) if recipe else None
        )
        if ask is not None:
            with attribute_errors(
                catalogue.origin(part.component), f"check of {part.component.kind} '{part.component.name}'"
            ):
                said = list(ask(named_options))
            found = (locate_finding(part, each, catalogue, resolution) for each in said)
            yield from (each for each in found if each.path not in wrong)


def assume_longest(recipe: Recipe) -> Recipe:
    """Return a recipe with the maximum number of epochs in place of ``auto``."""
    if recipe.train.epochs != "auto":
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": MOST_EPOCHS})})


def resolve_positions(component: Component, options: Each, stages: tuple[str, ...]) -> tuple[Each, Resolution]:
    """Return options as the component receives them; for a freezer, names replace positions of stages."""
    if isinstance(component, Freezer) and component.positions:
        return replace_positions(options, stages)
    return options, Resolution(stages)


def get_check(
    component: Component, stages: tuple[str, ...] | None, last: int, facts: RunFacts | None = None
) -> Callable[[Any], Iterable[Finding]] | None:
    """Return a component's check of its own options; None without one, or if its arguments are unknown."""
    if isinstance(component, Augmentation):
        return component.check
    if isinstance(component, Callback):
        check = component.check
        return None if check is None or facts is None else lambda options: check(options, facts)
    if not isinstance(component, Freezer) or component.check is None or stages is None:
        return None
    return partial(_check_freezer, component.check, (*stages, "head"), last)


def _check_freezer(check: Callable[..., Iterable[Finding]], stages: tuple[str, ...], last: int, options: Any) -> Any:
    return check(options, stages, last)


def get_epochs(values: Mapping[str, Any]) -> int:
    """Return ``train.epochs``, or the largest possible number if the value is invalid."""
    given = get_number(values, "train", "epochs")
    return given if isinstance(given, int) and given > 0 else sys.maxsize


def locate_finding(part: Part, finding: Finding, catalogue: Catalogue, resolution: Resolution) -> Found:
    """Return a finding with its key in the recipe; the subject of the finding is the path below the section."""
    if not isinstance(finding, Finding):
        got = f"check of {part.component.kind} '{part.component.name}' yielded {finding!r:.80}, not a Finding"
        raise PluginError(f"{catalogue.origin(part.component)}: {got}; yield finetune.Finding(…)")
    return Found((*part.path, *resolution.origin(parse_keys(finding.subject))), finding)


def find_unused_options(recipe: Recipe) -> Iterator[Found]:
    """Yield a note for each option that has no effect."""
    for section, key, text in (*_check_schedule(recipe), *_check_other_sections(recipe)):
        yield Found((section, key), Finding(severity="note", subject=key, text=text))


def _check_schedule(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    schedule, epochs = recipe.schedule, assume_longest(recipe).train.length
    if 0 < epochs == schedule.warmup_epochs:
        text = f"the warm-up takes the complete run; lower it, or raise train.epochs, which is {epochs}"
        yield "schedule", "warmup_epochs", text
    if isinstance(schedule, StepDecay) and 0 < epochs <= schedule.every:
        text = f"no decrease within {epochs} epoch{'s' * (epochs > 1)}; lower it, or raise train.epochs"
        yield "schedule", "every", text
    if isinstance(schedule, StepDecay) and schedule.gamma == 1:
        yield "schedule", "gamma", "a factor of 1 has no effect; lower it, or write use: constant"
    if isinstance(schedule, Cosine) and schedule.final == 1:
        yield "schedule", "final", "the learning rate never decreases; lower it, or write use: constant"


def _check_other_sections(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    epochs, runner = assume_longest(recipe).train.length, recipe.runner
    if epochs > 1 and recipe.evaluate.every > epochs:
        text = f"only the last of {epochs} epochs is evaluated, so it is always the best; lower it to compare epochs"
        yield "evaluate", "every", text
    if recipe.train.sync_batch_norm and runner.devices == 1 and runner.nodes in (1, "auto"):
        yield "train", "sync_batch_norm", "no effect on a single device; raise runner.devices, or remove it"
    if recipe.cache.features == "off" and "views" in recipe.cache.model_fields_set and recipe.cache.views > 1:
        yield "cache", "views", "no effect, because cache.features is off; remove one of them"
