"""JSON schema of recipes, for editors: the keys of the engine and of every installed component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune.errors import PluginError
from finetune.plugins import attribute_errors
from finetune.recipe import extending
from finetune.recipe.document import RENAMED
from finetune.recipe.models import Recipe
from finetune.recipe.nodes import dumps
from finetune.recipe.parts import SLOTS, get_section_model

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue
    from finetune.components import Component


MANY = 20  # literals; longer lists are described as text
NAMES = {"string": "text", "object": "mapping", "boolean": "true or false", "number": "number"}


def get_options_schema(component: Component) -> dict[str, Any]:
    """Return the JSON schema of a component's options, with nested models inlined."""
    schema = component.options.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, Mapping):
            reference = value.get("$ref")
            if reference:
                return resolved({**definitions[reference.rpartition("/")[2]], **{**value, "$ref": ""}})
            return {key: resolved(item) for key, item in value.items() if key != "$ref"}
        return [resolved(item) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = resolved(schema)
    return found


def format_yaml(value: Any) -> str:
    """Return a value as it is written in a recipe."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {format_yaml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(format_yaml, value)) + "]" if isinstance(value, list) else str(value)


def describe_values(option: Mapping[str, Any], mark: str = "") -> str:
    """Describe the values that an option takes, with ``mark`` around each literal."""
    if "anyOf" in option:
        branches = (describe_values(branch, mark) for branch in option["anyOf"] if branch.get("type") != "null")
        return " or ".join(dict.fromkeys(branches))
    if len(option.get("enum", ())) > MANY:
        return "text"
    if "enum" in option:
        return ", ".join(f"{mark}{value}{mark}" for value in option["enum"])
    if "const" in option:
        return f"{mark}{option['const']}{mark}"
    if option.get("type") == "array":
        each = option.get("items") or option.get("prefixItems", [{}])[0]
        return f"list of {describe_values(each, mark)}"
    name = "path" if option.get("format") == "path" else NAMES.get(option.get("type", ""), option.get("type", "any"))
    return name + describe_bounds(option)


def describe_bounds(option: Mapping[str, Any]) -> str:
    """Describe the limits of a number."""
    low, high = option.get("minimum"), option.get("maximum")
    said = [f"from {low:,}"] if low is not None else []
    said += [f"above {option['exclusiveMinimum']:,}"] if "exclusiveMinimum" in option else []
    said += [f"to {high:,}"] if high is not None else []
    said += [f"below {option['exclusiveMaximum']:,}"] if "exclusiveMaximum" in option else []
    return f" {' '.join(said)}" if said else ""


def make_example(component: Component) -> str:
    """Return a section of a recipe that uses a component: its own example, or its required options."""
    schema, slot = get_options_schema(component), component.section
    own: dict[str, Any] = next(iter(schema.get("examples", ())), {})
    needed = {name: make_sample(schema["properties"][name]) for name in schema.get("required", ())}
    section: dict[str, Any] = {"use": component.name, **needed, **own}
    if component.kind == "backbone":
        section["weights"] = "none" if not getattr(component, "weights", None) else "auto"
    return dumps({slot: [section] if component.many else section})


def make_sample(option: Mapping[str, Any]) -> Any:
    """Return a value that is valid by the option's schema."""
    if "anyOf" in option:
        return make_sample(option["anyOf"][0])
    for key in ("examples", "enum"):
        if option.get(key):
            return option[key][0]
    if "const" in option:
        return option["const"]
    if option.get("format") == "path":
        return "photos"
    if option.get("type") == "array":
        return [make_sample(option.get("items", {}))] * max(1, option.get("minItems", 1))
    low = option.get("minimum", option.get("exclusiveMinimum", 0) + 1)
    return {"integer": low, "number": float(low), "boolean": True, "object": {}}.get(option.get("type", ""), "text")


DIALECT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/"
EXTENDS = {
    "type": "string",
    "minLength": 1,
    "description": "The recipe to start from: a path relative to this file, or a name that `finetune ls` lists.",
}

Schema = dict[str, Any]


def build_json_schema(catalogue: Catalogue) -> Schema:
    """Return the JSON schema (draft 2020-12) of a recipe; a section allows the keys of the component that it uses.

    With ``extends``, a section may leave out keys that the base sets: ``use``, and required options.
    """
    recipe = Recipe.model_json_schema(ref_template=REF + "{model}")
    definitions, keys = recipe.pop("$defs"), recipe["properties"]
    for slot in SLOTS:
        definitions |= _define_slot(slot, definitions[get_section_model(slot).__name__], catalogue)
    whole = {name: about for name, about in keys.items() if _get_choices(about, definitions)}
    partial = {name: _make_partial(about, definitions) for name, about in whole.items()}
    return {
        "$schema": DIALECT,
        "title": "finetune recipe",
        "description": recipe["description"],
        "type": "object",
        "properties": {
            extending.KEY: EXTENDS,
            **{name: _strip_choices(name, keys, definitions) for name in keys},
            **{old: keys[new] | {"deprecated": True, "description": f"Use {new}."} for old, new in RENAMED.items()},
        },
        "additionalProperties": False,
        "if": {"required": [extending.KEY]},
        "then": {"properties": partial},
        "else": {"properties": whole, "required": recipe["required"]},
        "$defs": definitions,
    }


def _get_choices(about: Schema, definitions: Schema) -> list[Any]:
    """Return the schemas of the components that a key of a recipe can choose, or an empty list."""
    found: list[Any] = about.get("oneOf") or definitions.get(_get_name(about), {}).get("oneOf", [])
    return found


def _get_name(reference: Schema) -> str:
    return str(reference.get("$ref", "")).removeprefix(REF)


def _make_partial(about: Schema, definitions: Schema) -> Schema:
    """Return the schema of a section that extends a base's section; adds its choices to ``definitions``."""
    choices: list[Any] = []
    for choice in _get_choices(about, definitions):
        if not isinstance(choice, dict):
            choices.append(choice)
            continue
        name = f"{extending.KEY}.{_get_name(choice)}"
        definitions[name] = {key: value for key, value in definitions[_get_name(choice)].items() if key != "required"}
        choices.append({"$ref": REF + name})
    return {"anyOf": choices}


def _strip_choices(name: str, keys: Schema, definitions: Schema) -> Schema:
    """Return the schema of a key without its choices: what recipes with and without ``extends`` have in common."""
    about: Schema = keys[name]
    if not _get_choices(about, definitions):
        return about
    said = about.get("description") or definitions[_get_name(about)]["description"]
    return {"description": said} | {key: about[key] for key in ("default",) if key in about}


def _define_slot(slot: str, own: Schema, catalogue: Catalogue) -> Schema:
    """Return the definitions of a section: one object for each component, selected by ``use``."""
    definitions: Schema = {}
    choices: list[Any] = []
    for name in catalogue.names(SLOTS[slot]):
        try:
            component = catalogue.get(SLOTS[slot], name)
        except PluginError:  # offered by two plugins, so no recipe can use it
            continue
        with attribute_errors(catalogue.origin(component), f"the JSON schema of {component.kind} '{name}'"):
            definitions |= _define_component(slot, own, component)
        choices.append({"$ref": f"{REF}{slot}.{name}"})
    definitions[get_section_model(slot).__name__] = {
        "description": own.get("description", ""),
        "oneOf": choices or [False],
    }
    return definitions


def _define_component(slot: str, own: Schema, component: Component) -> Schema:
    """Return the definition of a section that uses ``component``, and of the models in its options."""
    name = f"{slot}.{component.name}"
    options = component.options.model_json_schema(ref_template=f"{REF}{name}.{{model}}")
    nested = {f"{name}.{model}": schema for model, schema in options.pop("$defs", {}).items()}
    usual = own["properties"]["use"].get("default") == component.name
    schema = {
        "title": component.name,
        "description": options.get("description", ""),
        "type": "object",
        "properties": {**own["properties"], "use": {"const": component.name}, **options.get("properties", {})},
        "required": [*([] if usual else ["use"]), *options.get("required", [])],
        "additionalProperties": False,
    }
    return {name: schema, **nested}
