"""``plugins show`` for backbones: stages, features and the weights on offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from finetune.components import Backbone, Weights


def collect_facts(backbone: Backbone) -> dict[str, Any]:
    """Return what a backbone declares, ready for JSON; builds and downloads nothing."""
    from finetune.cli.weights import describe_offer
    from finetune.weights.preprocessing import KEYS

    default = next(iter(backbone.weights), None)
    weights = [
        describe_offer(backbone, name, record)
        | {
            "default": name == default,
            "hash": describe_hash(record),
            "layout": record.layout,
            "classes": record.classes,
        }
        | {"image": {key: getattr(record, key) for key in KEYS}, "options": dict(record.options)}
        for name, record in backbone.weights.items()
    ]
    return {
        "stages": [*backbone.stages, "head"],
        "features": backbone.features,
        "aliases": list(backbone.aliases),
        "layouts": [layout.name for layout in backbone.layouts],
        "parameters": count_parameters(backbone),
        "weights": weights,
    }


def describe_hash(record: Weights) -> str:
    """Describe the hash that the publisher states for a file."""
    if not record.sha256:
        return "not stated"
    return "sha256" if len(record.sha256) == 64 else f"{len(record.sha256)} digits of the sha256"


def count_parameters(backbone: Backbone) -> int | None:
    """Count the trainable numbers in the stages; None if that is unknown without building them."""
    from math import prod

    from finetune.weights import fitting
    from finetune.weights.examining import STATISTICS

    shapes = fitting.compute_default_shapes(backbone)
    if shapes is None:
        return None
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith(STATISTICS))


def render_facts(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return the facts about a backbone for people."""
    from rich.text import Text

    from finetune.cli import output
    from finetune.display.terminal import make_printable

    rows = [
        ("stages", ", ".join(found["stages"])),
        ("features", f"{found['features']:,}"),
        ("parameters", output.format_cell(found["parameters"])),
        ("weights", "" if found["weights"] else "none offered; set weights to a file or none in the recipe"),
    ]
    pairs = output.render_pairs(row for row in rows if row[1])
    weights = [
        part
        for each in found["weights"]
        for part in (
            Text(make_printable(f"\nweights {each['name']}{' (default)' if each['default'] else ''}"), "cyan"),
            output.render_pairs((f"  {name}", value) for name, value in list_rows(each)),
        )
    ]
    return [pairs, *weights]


def list_rows(each: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts about weights as rows: name and value."""
    from finetune.weights.preprocessing import format_recipe_line

    accuracy = "not stated" if each["accuracy"] is None else f"{each['accuracy']:.2%} top-1, as its publisher reports"
    size = (
        "size unknown"
        if each["bytes"] is None
        else f"{'' if each['measured'] else 'about '}{each['bytes'] / 1e6:.1f} MB"
    )
    options = ", ".join(f"{key}: {value}" for key, value in each["options"].items())
    rows = [
        ("accuracy", accuracy),
        ("file", f"{size}, layout {each['layout']}, {'in the cache' if each['cached'] else 'not in the cache'}"),
        ("hash", each["hash"]),
        ("licence", each["licence"]),
        ("images", format_recipe_line(each["image"]).removeprefix("image: ").strip("{}")),
        ("options", options),
    ]
    return [row for row in rows if row[1]]
