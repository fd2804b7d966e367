"""Sections of a recipe as keyword arguments in Python: short forms, precedence, and messages in Python's terms."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finetune.errors import FinetuneError, RecipeError
from finetune.recipe.document import RENAMED, rename_values
from finetune.recipe.mistakes import find_models
from finetune.recipe.models import Recipe
from finetune.recipe.parts import SLOTS, get_section_model
from finetune.recipe.places import format_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SECTIONS = {name: models for name, about in Recipe.model_fields.items() if (models := find_models(about.annotation))}
_SECTION = "|".join(SECTIONS)
_VALUE = r"\[[^\[\]]*\]|\{[^{}]*\}|'[^']*'|\"[^\"]*\"|[^\s;,()'\"`]+"
_PAIR = re.compile(rf"(?<![\w.])({_SECTION})\.([a-z]\w*)=({_VALUE})")
_KEY = re.compile(rf"\b((?:[Ll]ower|[Rr]aise|[Ss]et|[Gg]ive|[Cc]hange|[Ww]rite) )({_SECTION})\.([a-z]\w*)(?![\w.=:])")
_FLOW = re.compile(rf"(?:(?<![\w.])({_SECTION}): )?(\[?\{{(?:[a-z_]+|\d+): [^{{}}]*\}}\]?)")
_LIST = re.compile(r"\b(such as|got '[^']*'; write) (\[[^\[\]{}]+\])")
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"`?\bfinetune run --resume (\S+?)`?(?=[\s;,]|$)"), r'fit(…, resume="\1")'),
    (re.compile(r"--allow-changed\b"), "allow_changed=True"),
    (re.compile(r"--output\b"), 'output="FOLDER"'),
    (re.compile(r"--resume\b"), "resume"),
    (re.compile(r"\bweights: (none|auto)\b"), r'weights="\1"'),
    (re.compile(r"\b(write) (use|device): (\w+)"), r'\1 {"\2": "\3"}'),
    (re.compile(r"\bwrite true\b"), "write True"),
    (re.compile(r"\bwrite false\b"), "write False"),
    (re.compile(r"put '- ' before each item"), "put it into a list"),
    (re.compile(r"write its keys without brackets and '- '"), "pass a dictionary"),
)


def translate_to_python(text: str) -> str:
    """Return a message with keys, options and mappings of the command line replaced by Python keywords."""
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    text = _LIST.sub(lambda found: f"{found[1]} {_format_python(_parse_yaml(found[2]))}", text)
    text = _FLOW.sub(_replace_mapping, text)
    text = _PAIR.sub(_replace_pair, text)
    return _KEY.sub(_replace_key, text)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate the remedies of errors that are raised in the block to Python."""
    try:
        yield
    except FinetuneError as error:
        error.args = tuple(translate_to_python(each) if isinstance(each, str) else each for each in error.args)
        if isinstance(error, RecipeError):
            error.mistakes = tuple(map(translate_to_python, error.mistakes))
        raise


def translate_lines(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that passes lines to ``say``, translated to Python."""
    return lambda line: say(translate_to_python(line))


def _replace_pair(found: re.Match[str]) -> str:
    section, key, value = found.groups()
    return f'{section}={{"{key}": {_format_python(_parse_yaml(value))}}}'


def _replace_key(found: re.Match[str]) -> str:
    verb, section, key = found.groups()
    known = any(key in model.model_fields for model in SECTIONS[section])
    return f'{verb}{section}={{"{key}": …}}' if known else found[0]


def _replace_mapping(found: re.Match[str]) -> str:
    section, text = found.groups()
    value = _parse_yaml(text)
    if not isinstance(value, dict | list):
        return found[0]
    return f"{f'{section}=' if section else ''}{_format_python(value)}"


def _parse_yaml(text: str) -> Any:
    """Return the value of a YAML text, or the text itself if it is not valid YAML."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        return text


def _format_python(value: Any) -> str:
    """Return a value as Python source."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_format_python(key)}: {_format_python(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_format_python, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


Sections = dict[str, Any]


def expand_short_forms(said: Mapping[str, Any]) -> Sections:
    """Return sections without short forms: ``"sgd"`` becomes ``{"use": "sgd"}`` if a section selects a component.

    A deprecated section gets its new name, with a ``DeprecationWarning``.
    """
    for name in said.keys() & RENAMED.keys():
        text = f"'{name}' is deprecated; write '{RENAMED[name]}'"
        warnings.warn(text, DeprecationWarning, stacklevel=3)
    said = rename_values(said)
    return {name: _expand_value(name, value) if _selects_component(name) else value for name, value in said.items()}


def _selects_component(name: str) -> bool:
    field = Recipe.model_fields.get(name)
    return field is not None and any("use" in model.model_fields for model in find_models(field.annotation))


def _expand_value(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [{"use": item} if isinstance(item, str) else item for item in value]
    if not isinstance(value, str):
        return value
    return [{"use": value}] if isinstance(Recipe.model_fields[name].default, tuple) else {"use": value}


def merge_sections(base: Mapping[str, Any], over: Mapping[str, Any]) -> Sections:
    """Return ``base`` updated by ``over``, key by key; as with overrides, a different ``use`` drops the old options."""
    result = dict(base)
    for name, value in over.items():
        before = result.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[name] = {**_keep_options(name, before, value), **value} if both else value  # type: ignore[arg-type]
    return result


def _keep_options(name: str, before: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keys of a section that still apply once ``value`` changes it."""
    field = Recipe.model_fields.get(name)
    usual = getattr(field.default, "use", None) if field else None
    if "use" not in value or value["use"] == before.get("use", usual):
        return before
    kept = get_section_model(name).model_fields if name in SLOTS else ()
    return {key: item for key, item in before.items() if key in kept}


def make_overrides(said: Mapping[str, Any]) -> list[str]:
    """Return sections as overrides of a recipe file."""
    pairs: list[tuple[str, Any]] = []
    for name, value in said.items():
        if isinstance(value, Mapping):
            pairs += [(format_path((name, str(key))), item) for key, item in value.items()]
        else:
            pairs.append((format_path((name,)), value))
    return [f"{path}={json.dumps(value, default=_to_plain)}" for path, value in pairs]


def _to_plain(value: Any) -> Any:
    """Return a NumPy number as a Python number, and a path as a string."""
    return value.item() if hasattr(value, "item") else str(value)
