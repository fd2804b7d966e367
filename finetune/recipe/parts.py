"""The sections of a recipe that select a component, each with the component and its options."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from finetune.components import Augmentation, Backbone, Callback, Component, Dataset, Freezer, Options
from finetune.errors import PluginError, UsageError
from finetune.plugins import named
from finetune.recipe.mistakes import Known, Problem, models_in, problems, shown
from finetune.recipe.models import Recipe, Section
from finetune.recipe.paths import is_weights_file
from finetune.recipe.places import KeyPath, shortened, spelled
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue

M = TypeVar("M", bound=BaseModel)

SLOTS: dict[str, type[Component]] = {
    "backbone": Backbone,
    "dataset": Dataset,
    "augment": Augmentation,
    "freeze": Freezer,
    "callbacks": Callback,
}

_DIGEST = re.compile(r"#sha256=[0-9a-fA-F]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section as it was written and the component that it selects."""

    slot: str
    path: KeyPath
    raw: Mapping[str, Any]
    component: Component

    @property
    def given(self) -> dict[str, Any]:
        """Return the keys that belong to the component."""
        return {key: value for key, value in self.raw.items() if key not in section(self.slot).model_fields}


def section(slot: str) -> type[Section]:
    """Return the model of the keys that the engine itself reads in a slot."""
    model = models_in(Recipe.model_fields[slot].annotation)[0]
    assert issubclass(model, Section)
    return model


def default(slot: str) -> Any:
    """Return what stands in a slot that the recipe does not mention, as plain values; None if it must."""
    value = Recipe.model_fields[slot].default
    if isinstance(value, tuple):
        return [item.model_dump(mode="json") for item in value]
    return value.model_dump(mode="json") if isinstance(value, Options) else None


def select(values: Mapping[str, Any], catalogue: Catalogue, found: list[Problem]) -> list[Part]:
    """Return the parts of a recipe; names that the catalogue does not know are added to ``found``."""
    parts = []
    for slot, path, raw in _sections(values):
        use = raw.get("use", section(slot).model_fields["use"].default)
        if not isinstance(use, str):
            continue
        try:
            component = catalogue.get(SLOTS[slot], use)
        except UsageError as error:
            found.append(Problem((*path, "use"), "use", shortened(str(error), 400)))
        else:
            parts.append(Part(slot=slot, path=path, raw=raw, component=component))
    return parts


def _sections(values: Mapping[str, Any]) -> Iterator[tuple[str, KeyPath, Mapping[str, Any]]]:
    for slot in SLOTS:
        usual = default(slot)
        value = values.get(slot, usual)
        if not isinstance(usual, list):
            items: list[tuple[KeyPath, Any]] = [((slot,), value)]
        else:
            items = [((slot, i), item) for i, item in enumerate(value)] if isinstance(value, list) else []
        yield from ((slot, path, raw) for path, raw in items if isinstance(raw, Mapping))


def options(part: Part, catalogue: Catalogue, elsewhere: Mapping[str, Sequence[str]], found: list[Problem]) -> Any:
    """Return the options of a part's component, or None after adding what is wrong to ``found``."""
    kind, name, model = part.component.kind, part.component.name, part.component.options
    fields = section(part.slot).model_fields
    known = Known(model, tuple(fields), {**elsewhere, **_siblings(part, catalogue, elsewhere)})
    origin = catalogue.origin(part.component)
    if both := fields.keys() & model.model_fields.keys():
        raise PluginError(f"{origin}: {kind} '{name}' has an option '{min(both)}', a key that the engine reads itself")
    wrong: list[Problem] = []
    with named(origin, f"the options of {kind} '{name}'"):
        result = validated(model, part.given, known, wrong)
    for problem in wrong:
        text = f"missing; {kind} '{name}' needs it" if problem.kind == "missing" else problem.text
        found.append(Problem((*part.path, *problem.path), problem.kind, text))
    return result


def _siblings(part: Part, catalogue: Catalogue, homes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return for options of the components that could stand in a part's place what to choose for them, two at most."""
    found: dict[str, list[str]] = {}
    for _, component in catalogue:
        if isinstance(component, SLOTS[part.slot]) and component is not part.component:
            for key in component.options.model_fields:
                found.setdefault(key, []).append(f"'{spelled((*part.path, key))}' with 'use: {component.name}'")
    chosen = f"'{part.slot}["  # a callback that the recipe has is a better guess
    return {
        key: [*words[:2], *homes.get(key, ())]
        for key, words in found.items()
        if not any(home.startswith(chosen) for home in homes.get(key, ()))
    }


def validated(model: type[M], values: Any, known: Known, found: list[Problem]) -> M | None:
    """Return ``values`` as a model, or None after adding what is wrong to ``found``.

    They pass through JSON, where a list may become a tuple and text a path, but text never a number.
    """
    try:
        return model.model_validate_json(to_json(values, inf_nan_mode="constants"))
    except ValidationError as error:
        found += problems(error, values, known)
        return None


def elsewhere(parts: Sequence[Part]) -> dict[str, list[str]]:
    """Return for each key of a recipe and of the chosen components where it belongs, for messages."""
    homes: dict[str, dict[str, None]] = {name: {f"'{name}' at the top": None} for name in Recipe.model_fields}
    sections = [((name,), models_in(field.annotation)) for name, field in Recipe.model_fields.items()]
    single: list[tuple[KeyPath, list[type[BaseModel]]]] = [
        (path, models) for path, models in sections if path[0] not in ("augment", "callbacks")
    ]
    chosen: list[tuple[KeyPath, list[type[BaseModel]]]] = [(part.path, [part.component.options]) for part in parts]
    for path, models in [*single, *chosen]:
        for model in models:
            for key in model.model_fields.keys() - {"use"}:
                owner = "" if all(key in other.model_fields for other in models) else f" with {_use(model)}"
                homes.setdefault(key, {})[f"'{spelled((*path, key))}'{owner}"] = None
    return {key: list(places) for key, places in homes.items()}


def _use(model: type[BaseModel]) -> str:
    key = "use" if "use" in model.model_fields else "device"
    return f"'{key}: {get_args(model.model_fields[key].annotation)[0]}'"


def cross_checks(values: Mapping[str, Any], parts: Sequence[Part]) -> Iterator[Problem]:
    """Yield what is wrong between keys that are right by themselves."""
    yield from _at_most(values, ("schedule", "warmup_epochs"), ("train", "epochs"))
    yield from _at_most(values, ("image", "size"), ("image", "resize"))
    yield from _doubles([part for part in parts if part.slot == "callbacks"])
    yield from (problem for part in parts if part.slot == "backbone" for problem in _weights(part))


def _at_most(values: Mapping[str, Any], low: tuple[str, str], high: tuple[str, str]) -> Iterator[Problem]:
    small, large = number(values, *low), number(values, *high)
    if small is not None and large is not None and small > large > 0:
        yield Problem(low, "cross", f"{shown(small)} is more than {spelled(high)}, which is {shown(large)}")


def number(values: Mapping[str, Any], name: str, key: str) -> float | None:
    """Return a number of a recipe, by default the engine's; None where it is none."""
    given = values.get(name, {})
    value = given.get(key, getattr(Recipe.model_fields[name].default, key)) if isinstance(given, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _doubles(callbacks: Sequence[Part]) -> Iterator[Problem]:
    first: dict[str, Part] = {}
    for part in callbacks:
        earlier = first.setdefault(part.component.name, part)
        if earlier is not part:
            text = f"'{part.component.name}' is there already, as {spelled(earlier.path)}"
            yield Problem((*part.path, "use"), "double", text)


def _weights(part: Part) -> Iterator[Problem]:
    weights = part.raw.get("weights", "auto")
    assert isinstance(part.component, Backbone)
    names = [*part.component.weights, "auto", "none"]
    if not isinstance(weights, str) or weights in names or is_weights_file(weights):
        return
    if "://" not in weights:
        file = f"; write './{shortened(weights)}' for the file or folder of this name"
        remedy = file if os.path.lexists(weights) else did_you_mean(weights, names)
        text = f"no weights named '{shortened(weights)}' for '{part.component.name}'{remedy}"
        yield Problem((*part.path, "weights"), "weights", text)
    elif not _DIGEST.search(weights):
        yield Problem((*part.path, "weights"), "weights", "a URL needs the sha256 of its file; add '#sha256=HEX'")
