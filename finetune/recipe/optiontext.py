"""Options in words: which values they take, their defaults, and an example of a section that uses a component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune.recipe.yamltext import dumps

if TYPE_CHECKING:
    from finetune.components import Component

SLOT_OF = {
    "backbone": "backbone",
    "dataset": "dataset",
    "augmentation": "augment",
    "freezer": "freeze",
    "callback": "callbacks",
}
MANY = 20  # values, more than one reads
LISTS = ("augment", "callbacks")
NAMES = {"string": "text", "object": "mapping", "boolean": "true or false", "number": "number"}


def schema_of(component: Component) -> dict[str, Any]:
    """Return the JSON schema of a component's options, definitions of nested models put in their places."""
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


def shown(value: Any) -> str:
    """Return a value as a recipe says it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(shown, value)) + "]" if isinstance(value, list) else str(value)


def values(option: Mapping[str, Any], mark: str = "") -> str:
    """Return in words which values an option takes, its literals between marks."""
    if "anyOf" in option:
        branches = (values(branch, mark) for branch in option["anyOf"] if branch.get("type") != "null")
        return " or ".join(dict.fromkeys(branches))
    if len(option.get("enum", ())) > MANY:
        return "text"
    if "enum" in option:
        return ", ".join(f"{mark}{value}{mark}" for value in option["enum"])
    if "const" in option:
        return f"{mark}{option['const']}{mark}"
    if option.get("type") == "array":
        each = option.get("items") or option.get("prefixItems", [{}])[0]
        return f"list of {values(each, mark)}"
    name = "path" if option.get("format") == "path" else NAMES.get(option.get("type", ""), option.get("type", "any"))
    return name + bounds(option)


def bounds(option: Mapping[str, Any]) -> str:
    """Return in words how small and large a number may be."""
    low, high = option.get("minimum"), option.get("maximum")
    said = [f"from {low:,}"] if low is not None else []
    said += [f"above {option['exclusiveMinimum']:,}"] if "exclusiveMinimum" in option else []
    said += [f"to {high:,}"] if high is not None else []
    said += [f"below {option['exclusiveMaximum']:,}"] if "exclusiveMaximum" in option else []
    return f" {' '.join(said)}" if said else ""


def example(component: Component) -> str:
    """Return a section of a recipe that uses a component: its own example, or else what it cannot do without."""
    schema, slot = schema_of(component), SLOT_OF[component.kind]
    own: dict[str, Any] = next(iter(schema.get("examples", ())), {})
    needed = {name: sample(schema["properties"][name]) for name in schema.get("required", ())}
    section: dict[str, Any] = {"use": component.name, **needed, **own}
    if component.kind == "backbone":
        section["weights"] = "none" if not getattr(component, "weights", None) else "auto"
    return dumps({slot: [section] if slot in LISTS else section})


def sample(option: Mapping[str, Any]) -> Any:
    """Return a value that an option takes, as far as its schema tells."""
    if "anyOf" in option:
        return sample(option["anyOf"][0])
    for key in ("examples", "enum"):
        if option.get(key):
            return option[key][0]
    if "const" in option:
        return option["const"]
    if option.get("format") == "path":
        return "photos"
    if option.get("type") == "array":
        return [sample(option.get("items", {}))] * max(1, option.get("minItems", 1))
    low = option.get("minimum", option.get("exclusiveMinimum", 0) + 1)
    return {"integer": low, "number": float(low), "boolean": True, "object": {}}.get(option.get("type", ""), "text")
