"""A JSON schema of recipes, for editors: the engine's keys and those of every installed component."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import PluginError
from finetune.plugins import named
from finetune.recipe.models import Recipe
from finetune.recipe.parts import SLOTS, section

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue
    from finetune.components import Component

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/"


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a recipe; a section allows the keys of the component it uses."""
    recipe = Recipe.model_json_schema(ref_template=REF + "{model}")
    definitions = recipe.pop("$defs")
    for slot in SLOTS:
        definitions |= _slot(slot, definitions[section(slot).__name__], catalogue)
    return {"$schema": DIALECT, **recipe, "title": "finetune recipe", "$defs": definitions}


def _slot(slot: str, own: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """Return the definitions of a section: one object for each component, told apart by ``use``."""
    definitions: dict[str, Any] = {}
    choices = []
    for name in catalogue.names(SLOTS[slot]):
        try:
            component = catalogue.get(SLOTS[slot], name)
        except PluginError:  # two plugins offer it, so no recipe can use it
            continue
        with named(catalogue.origin(component), f"the JSON schema of {component.kind} '{name}'"):
            definitions |= _component(slot, own, component)
        choices.append({"$ref": f"{REF}{slot}.{name}"})
    definitions[section(slot).__name__] = {"description": own.get("description", ""), "oneOf": choices or [False]}
    return definitions


def _component(slot: str, own: dict[str, Any], component: Component) -> dict[str, Any]:
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
