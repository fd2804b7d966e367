"""Completion of overrides: keys with their descriptions, and the values that a key accepts by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from finetune.components import Backbone, Component, NoOptions
from finetune.errors import FinetuneError
from finetune.recipe import overrides
from finetune.recipe.mistakes import find_models
from finetune.recipe.models import Recipe
from finetune.recipe.parts import SLOTS, get_default, get_section_model, select_parts
from finetune.recipe.places import KeyPath, clip_text, format_path

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from finetune.catalogue import Catalogue

Offer = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """An override that is being typed; ``values`` are the valid values of the recipe at that point.

    ``catalogue`` is called only when components matter, because loading all plugins takes half of the time.
    """

    values: Mapping[str, Any]
    catalogue: Callable[[], Catalogue]

    def keys(self, typed: str) -> Iterator[Offer]:
        """Yield the keys that start with ``typed``: ``train.`` is a section, ``train.epochs=`` takes a value."""
        head = typed.rpartition(".")[0]
        path = overrides.split_override(head)[0] if head else ()
        for name, field in self.fields(path).items():
            below = (*path, name)
            said = _take_first_sentence(field.description or _summarise_models(_list_models(field)))
            if isinstance(get_default(name) if not path and name in SLOTS else None, list):
                items = self.value(below)
                yield from ((f"{format_path((*below, i))}.", said) for i in range(len(items or ())))
                if not items and not get_default(name):
                    yield f"{format_path(below)}=", f"{said} [[]]"
            elif find_models(field.annotation):
                yield f"{format_path(below)}.", said
            else:
                yield f"{format_path(below)}=", f"{said} [{self.current(below, field)}]".strip()

    def removable(self, typed: str) -> Iterator[Offer]:
        """Yield the keys in the recipe itself that start with ``typed``, for ``~KEY``."""
        head = typed.rpartition(".")[0]
        path = overrides.split_override(head)[0] if head else ()
        there = self.value(path) if path else self.values
        for name, value in there.items() if isinstance(there, Mapping) else ():
            said = f"[{clip_text(_format_value(value))}]"
            yield format_path((*path, name)), said
            if isinstance(value, Mapping):
                yield f"{format_path((*path, name))}.", said

    def choices(self, key: str) -> Iterator[Offer]:
        """Yield the values that a key accepts by name."""
        path = overrides.split_override(key)[0]
        name = path[-1]
        if name == "use" and path[0] in SLOTS:
            kind = SLOTS[str(path[0])]
            for each in self.catalogue().names(kind):
                yield each, self._about(kind, each)
        elif path == ("backbone", "weights"):
            chosen = self._component(("backbone",))
            for each, record in chosen.weights.items() if isinstance(chosen, Backbone) else ():
                yield each, record.source
            yield from (("auto", "the first of them"), ("none", "a random start"))
        elif len(path) == 2 and name == Recipe.model_fields[str(path[0])].discriminator:
            for model in _list_models(Recipe.model_fields[str(path[0])]):
                for each in get_args(model.model_fields[str(name)].annotation):
                    yield str(each), _summarise_models([model])
        elif path[0] == "freeze" and (found := [*self._stages(path)]):
            yield from found
        elif (field := self.fields(path[:-1]).get(str(name))) is not None:
            yield from ((text, "") for text in dict.fromkeys(_list_literals(field.annotation)))

    def _stages(self, path: KeyPath) -> Iterator[Offer]:
        """Yield stages by position and by name, for an option of the freezing policy that takes a string."""
        field = self.fields(path[:1]).get(str(path[1]))
        chosen = self._component(("backbone",))
        if field is None or field.annotation is None or not _holds(field.annotation, str) or path[1] == "use":
            return
        stages = chosen.stages if isinstance(chosen, Backbone) else ()
        words = [("last", "the last stage"), ("all", "every stage"), ("head", "the classifier")]
        in_list = len(path) == 2 and any(_holds_type(field.annotation, kind) for kind in (list, tuple, set, frozenset))
        if len(path) == 2 and _holds_type(field.annotation, dict):
            return
        for word, about in [*words, *((stage, "") for stage in reversed(stages))]:
            yield (f"[{word}]" if in_list else word), about

    def takes_files(self, key: str) -> bool:
        """Return whether a key takes the name of a file or folder."""
        path = overrides.split_override(key)[0]
        field = self.fields(path[:-1]).get(str(path[-1]))
        return path == ("backbone", "weights") or (field is not None and _holds(field.annotation, Path))

    def fields(self, path: KeyPath) -> dict[str, FieldInfo]:
        """Return the fields that are allowed below ``path``, by key."""
        if not path:
            return dict(Recipe.model_fields)
        slot = str(path[0])
        if slot not in Recipe.model_fields:
            return {}
        if slot in SLOTS:
            end = 2 if isinstance(get_default(slot), list) else 1
            component = self._component(path[:end])
            models: list[type[BaseModel]] = [get_section_model(slot), *([component.options] if component else [])]
            models = models if len(path) >= end else []
        else:
            end, models = 1, [self._chosen(slot)] if find_models(Recipe.model_fields[slot].annotation) else []
        for element in path[end:]:
            field = _collect_fields(models).get(str(element))
            models = _list_models(field) if field is not None else []
        return _collect_fields(models)

    def value(self, path: KeyPath) -> Any:
        """Return the value of the recipe at ``path``, or the default of a section that the recipe leaves out."""
        value: Any = {name: get_default(name) for name in SLOTS} | dict(self.values)
        for element in path:
            if isinstance(value, Mapping):
                value = value.get(element)
            elif isinstance(value, list) and isinstance(element, int) and element < len(value):
                value = value[element]
            else:
                return None
        return value

    def current(self, path: KeyPath, field: FieldInfo) -> str:
        """Return the current value of a key, as it is written in a recipe."""
        value = self.value(path)
        if value is None and field.is_required():
            return "required"
        return clip_text(_format_value(field.get_default(call_default_factory=True) if value is None else value))

    def _component(self, path: KeyPath) -> Component | None:
        try:
            parts = select_parts(self.values, self.catalogue(), [])
        except FinetuneError:  # two plugins offer what the recipe uses
            return None
        return next((part.component for part in parts if part.path == path), None)

    def _chosen(self, slot: str) -> type[BaseModel]:
        """Return the model of a section of the engine, which its ``use`` or ``device`` selects."""
        field = Recipe.model_fields[slot]
        selector = str(field.discriminator)
        said = self.value((slot, selector))
        for model in _list_models(field):
            if field.discriminator and said in get_args(model.model_fields[selector].annotation):
                return model
        return type(field.default)

    def _about(self, kind: type[Component], name: str) -> str:
        try:
            return _summarise_models([self.catalogue().get(kind, name).options])
        except FinetuneError:
            return "offered by two plugins"


def _list_models(field: FieldInfo) -> list[type[BaseModel]]:
    return find_models(field.annotation)


def _collect_fields(models: Iterable[type[BaseModel]]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for model in models for name, field in model.model_fields.items()}


def _summarise_models(models: Iterable[type[BaseModel]]) -> str:
    """Return the first sentence of the first model that has a docstring of its own."""
    return next(
        (_take_first_sentence(model.__dict__.get("__doc__") or "") for model in models if model is not NoOptions), ""
    )


def _format_value(value: Any) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)


def _take_first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")


def _list_literals(annotation: Any) -> Iterator[str]:
    """Yield the values that an annotation lists as literals."""
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif annotation is bool:
        yield from ("true", "false")
    elif annotation is NoneType:
        yield "null"
    elif not (isinstance(origin := get_origin(annotation), type) and issubclass(origin, list | tuple | dict | set)):
        yield from (text for each in get_args(annotation) for text in _list_literals(each))


def _holds(annotation: Any, wanted: type) -> bool:
    return annotation is wanted or any(_holds(each, wanted) for each in get_args(annotation))


def _holds_type(annotation: Any, wanted: type) -> bool:
    """Return whether a collection of this type is anywhere in an annotation."""
    return get_origin(annotation) is wanted or any(_holds_type(each, wanted) for each in get_args(annotation))
