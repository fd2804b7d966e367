"""How values look in YAML 1.2: the core schema, without anything that could be taken for something else."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = re.compile(r"[\w/~]([\w./~+ -]*[\w./~+-])?")  # what needs no quotes anywhere
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_MAX_DIGITS = 400  # more than any float has; Python refuses to convert very long ones


def scalar(text: str) -> Any:
    """Return what unquoted ``text`` means: null, a boolean, a number or itself.

    Words such as ``no`` and numbers such as ``010``, ``1_000`` and ``1:30`` stay text: YAML 1.1 read them otherwise.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _based(text)


def _based(text: str) -> int | str:
    for prefix, base in (("0x", 16), ("0o", 8)):
        if text.startswith(prefix) and text[2:].isalnum():
            try:
                return int(text[2:], base)
            except ValueError:
                return text
    return text


def dumps(values: dict[str, Any]) -> str:
    """Return YAML that reads as ``values``: keys that are whole numbers without quotes, lists of scalars on a line."""
    stream = StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.width = 1 << 16
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(_with_numbers(values), stream)
    return stream.getvalue()


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {_number_or_text(key): _with_numbers(child) for key, child in value.items()}
    return [_with_numbers(child) for child in value] if isinstance(value, list) else value


def _number_or_text(key: str) -> int | str:
    number = scalar(key)
    return number if type(number) is int and str(number) == key else key


class _Representer(SafeRepresenter):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(representer: SafeRepresenter, text: str) -> Any:
    style = None if scalar(text) is text and _WORDS.fullmatch(text) else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(representer: SafeRepresenter, items: list[Any]) -> Any:
    nested = any(isinstance(item, dict | list) for item in items)
    return representer.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=not nested)


_Representer.add_representer(str, _represent_text)
_Representer.add_representer(list, _represent_list)
