"""Validation messages: turns pydantic's errors into one sentence for each key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from finetune.recipe.nodes import parse_scalar
from finetune.recipe.places import KeyPath, clip_text
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Location = tuple[str | int, ...]

KEY_MARK = "[key]"
INTEGER, NUMBER, SWITCH, TEXT = "a whole number", "a number", "true or false", "text"
LIST, MAPPING = "a list", "a mapping"
MOST_KEYS = 8  # keys that a message lists

_EXPECTED = {
    "int_type": INTEGER,
    "int_parsing": INTEGER,
    "int_from_float": INTEGER,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "bool_type": SWITCH,
    "bool_parsing": SWITCH,
    "string_type": TEXT,
    "path_type": "a path",
    "list_type": LIST,
    "tuple_type": LIST,
    "set_type": LIST,
    "frozen_set_type": LIST,
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than": ("must be more than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length", "items"),
    "too_long": ("at most", "max_length", "items"),
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
}
_PATTERNS = {r"^[\w.-]{1,80}$": "1 to 80 letters, digits and any of '_', '-' and '.'"}
_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with a key; ``expected`` lists the types that are allowed if the value has the wrong type."""

    path: KeyPath
    kind: str
    text: str
    expected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """The keys that are known: of the validated model, next to it, and by name the keys of other sections."""

    model: type[BaseModel]
    nearby: tuple[str, ...] = ()
    elsewhere: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def at(self, location: Location) -> list[str]:
        """Return the keys that are allowed at the last element of an error's location."""
        keys = [field.alias or name for model in self.models(location) for name, field in model.model_fields.items()]
        return list(dict.fromkeys([*keys, *(self.nearby if len(location) == 1 else ())]))

    def models(self, location: Location) -> list[type[BaseModel]]:
        """Return the models whose keys are allowed at the last element of an error's location."""
        models = [self.model]
        for element in location[:-1]:
            models = _find_models_below(models, element)
        return models


@dataclass(frozen=True, slots=True)
class _Error:
    """One of pydantic's errors; ``rest`` is its location relative to the current value."""

    rest: Location
    details: Mapping[str, Any]


def collect_problems(error: ValidationError, values: Any, known: Known) -> list[Problem]:
    """Return the problems of ``values``, one for each key, even where a union has several branches."""
    errors = [_Error(details["loc"], details) for details in error.errors(include_url=False)]
    return _walk_errors(errors, values, (), known)


def _walk_errors(errors: Sequence[_Error], value: Any, path: KeyPath, known: Known) -> list[Problem]:
    """Follow the errors down into ``value``; a step that is not a key of it names a branch of a union."""
    found: list[Problem] = []
    below: dict[str | int, list[_Error]] = {}
    branches: dict[str | int, list[_Error]] = {}
    for error in errors:
        if _ends_here(error):
            found.append(_make_problem(error, value, path, known))
            continue
        step, rest = error.rest[0], error.rest[1:]
        group = below if _has_step(value, step) and not _is_tag(value, step, rest) else branches
        group.setdefault(step, []).append(_Error(rest, error.details))
    for step, inner in below.items():
        found += _walk_errors(inner, value[step], (*path, step), known)
    found += _choose_branch([_walk_errors(inner, value, path, known) for inner in branches.values()], value, path)
    return list({(problem.path, problem.kind): problem for problem in found}.values())


def _ends_here(error: _Error) -> bool:
    if len(error.rest) == 1 and error.details["type"] in ("missing", "extra_forbidden"):
        return True
    return error.rest in ((), (KEY_MARK,))


def _has_step(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _is_tag(value: Any, step: str | int, rest: Location) -> bool:
    """Return whether ``step`` is the tag of a tagged union and not the key of the same name."""
    return bool(rest) and isinstance(value, dict) and step in (value.get("use"), value.get("device"))


def _choose_branch(branches: Sequence[list[Problem]], value: Any, path: KeyPath) -> list[Problem]:
    """Return the problems of the union's branch that the value was meant for, or one that lists all expected types."""
    meant = [branch for branch in branches if not all(p.expected and p.path == path for p in branch)]
    if meant or len(branches) < 2:
        return min(meant or branches, key=len, default=[])
    expected = dict.fromkeys(word for branch in branches for problem in branch for word in problem.expected)
    return [_report_mismatch(path, "union", tuple(expected), value)]


def _find_models_below(models: Sequence[type[BaseModel]], element: str | int) -> list[type[BaseModel]]:
    """Return the models one step further along a location: in a field, a branch of a union, or a collection."""
    fields = [model.model_fields[element] for model in models if element in model.model_fields]
    if fields:
        return [model for field in fields for model in find_models(field.annotation)]
    return [model for model in models if element == model.__name__ or _has_tag(model, element)] or list(models)


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return any(tag in get_args(field.annotation) for field in model.model_fields.values())


def find_models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models anywhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in find_models(argument)]


def _make_problem(error: _Error, value: Any, path: KeyPath, known: Known) -> Problem:
    """Convert one of pydantic's errors to a problem."""
    kind, context = error.details["type"], error.details.get("ctx", {})
    if kind == "missing":
        return _report_missing(error.rest[0], value, path)
    if kind == "extra_forbidden":
        name = str(error.rest[0])
        return Problem((*path, name), kind, describe_unknown_key(name, known.at(error.details["loc"]), known.elsewhere))
    if kind == "union_tag_invalid":
        return _report_unknown_tag(path, context)
    if error.rest == (KEY_MARK,):
        space = "; put a space after its ':'" if path and ":" in str(path[-1]) else ""
        return Problem(path, kind, f"the key should be {_EXPECTED.get(kind, 'something else')}{space}")
    if _EXPECTED.get(kind) == MAPPING and value is not None:
        remedy = suggest_mapping(path, value, known.models((*error.details["loc"], "")))
        return Problem(path, kind, f"expected {MAPPING}, got {format_value(value)}{remedy}", (MAPPING,))
    if kind in _EXPECTED:
        return _report_mismatch(path, kind, (_EXPECTED[kind],), value)
    if kind in ("literal_error", "enum"):
        return _report_mismatch(
            path, kind, tuple(re.findall(r"'[^']*'|[^\s,']+(?=,|$| or )", context["expected"])), value
        )
    return Problem(path, kind, _describe_error(kind, error.details, value))


def suggest_mapping(path: KeyPath, value: Any, models: Sequence[type[BaseModel]]) -> str:
    """Return a hint on what to write instead of a value that should be a mapping, or an empty string."""
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], str):
            return suggest_mapping(path, value[0], models)
        if any(isinstance(item, dict) for item in value):
            return "; write its keys without brackets and '- '"
    keys = list(dict.fromkeys(key for model in models for key in model.model_fields))
    selector = next((key for key in ("use", "device") if all(key in model.model_fields for model in models)), None)
    if not models or not keys:
        return ""
    if selector is None or not isinstance(value, str):
        return f"; its keys are {', '.join(keys[:MOST_KEYS])}{', …' if len(keys) > MOST_KEYS else ''}"
    if path == ("dataset",):
        table = value.lower().endswith(".csv")
        return f"; write {{use: {'csv, file' if table else 'folder, root'}: {clip_text(value)}}}"
    choices = [str(each) for model in models for each in get_args(model.model_fields[selector].annotation)]
    near = get_close_matches(value.lower(), choices, n=1, cutoff=0.6)
    if not choices or value in choices:
        return f"; write {{{selector}: {clip_text(value)}}}"
    if len(choices) == 1:
        return f"; write {{{selector}: {choices[0]}}}"
    if near:
        return f"; did you mean {{{selector}: {near[0]}}}?"
    return f"; write {{{selector}: NAME}}, where NAME is {join_alternatives(choices)}"


def _report_missing(name: str | int, value: Any, path: KeyPath) -> Problem:
    if isinstance(name, int):
        return Problem(path, "too_short", f"must have at least {name + 1} items{_format_length(value)}")
    return Problem((*path, name), "missing", "missing")


def describe_unknown_key(name: str, known: Sequence[str], elsewhere: Mapping[str, Sequence[str]]) -> str:
    """Return the message for a key that is unknown in its section."""
    if name in elsewhere:
        return f"unknown key '{clip_text(name)}'; did you mean {join_alternatives(elsewhere[name])}?"
    return f"unknown key '{clip_text(name)}'{did_you_mean(name, known) or '; there are no keys here'}"


def _report_unknown_tag(path: KeyPath, context: Mapping[str, Any]) -> Problem:
    tag, tags = str(context["tag"]), re.findall(r"'([^']*)'", context["expected_tags"])
    key = context["discriminator"].strip("'")
    noun = key if key != "use" else path[-1] if path and isinstance(path[-1], str) else "choice"
    text = f"no {noun} named '{clip_text(tag)}'{did_you_mean(tag, tags)}"
    return Problem((*path, key) if key.isidentifier() else path, "union_tag_invalid", text)


def _report_mismatch(path: KeyPath, kind: str, expected: tuple[str, ...], value: Any) -> Problem:
    text = f"expected {join_alternatives(expected)}, got {format_value(value)}{_suggest_value(expected, value)}"
    return Problem(path, kind, text, expected)


def _describe_error(kind: str, details: Mapping[str, Any], value: Any) -> str:
    context = details.get("ctx", {})
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{words} {_format_bound(context[bound])}, got {format_value(value)}"
    if kind in _LENGTHS:
        words, bound, unit = _LENGTHS[kind]
        return f"must have {words} {context[bound]} {unit}{_format_length(value)}"
    if kind == "finite_number":
        return f"must be a finite number, got {format_value(value)}"
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"must be {_PATTERNS.get(pattern, f'text like {pattern}')}, got {format_value(value)}"
    message = str(context["error"]) if "error" in context else details["msg"]
    return clip_text(message[:1].lower() + message[1:].rstrip("."), 300)


def _format_length(value: Any) -> str:
    return f", got {len(value)}" if isinstance(value, str | list | dict) else ""


def _format_bound(value: Any) -> str:
    return format_value(int(value) if isinstance(value, float) and value.is_integer() else value)


def _suggest_value(expected: Sequence[str], value: Any) -> str:
    """Return a hint for a value of the wrong type, or an empty string."""
    if value is None:
        return "; give it a value or remove the key"
    if isinstance(value, str):
        return _suggest_for_text(expected, value)
    if INTEGER in expected and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}" if abs(value) < 1e15 else ""
    if TEXT in expected and isinstance(value, int | float):
        return "; put it in quotes"
    return "; put '- ' before each item" if LIST in expected and isinstance(value, dict) else ""


def _suggest_for_text(expected: Sequence[str], value: str) -> str:
    if [*expected] == [LIST] and value.strip():
        return f"; write [{clip_text(value)}]"
    if SWITCH in expected and value.lower() in _SWITCHES:
        return f"; write {_SWITCHES[value.lower()]}"
    if {INTEGER, NUMBER} & set(expected):
        for change, remedy in _NUMBER_REMEDIES:
            if isinstance(parse_scalar(change(value)), int | float):
                return remedy
    near = get_close_matches(f"'{value.lower()}'", expected, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


_NUMBER_REMEDIES: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda text: text, "; remove the quotes"),
    (lambda text: text.replace("_", "").replace(" ", ""), "; write it without '_' and spaces"),
    (lambda text: text.lstrip("0"), "; write it without the leading 0"),
    (lambda text: text.replace(",", "."), "; write it with '.'"),
)


def format_value(value: Any) -> str:
    """Return a value as the user wrote it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value) if isfinite(value) else str(value).replace("inf", ".inf").replace("nan", ".nan")
    if isinstance(value, dict | list):
        return MAPPING if isinstance(value, dict) else LIST
    return f"'{clip_text(value)}'" if isinstance(value, str) else clip_text(str(value))


def join_alternatives(words: Sequence[str]) -> str:
    """Return ``a, b or c``."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)
