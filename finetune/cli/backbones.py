"""Facts about a backbone for ``plugins show``: its stages, features and the weights that it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from finetune.components import Backbone, Weights


def collect_facts(backbone: Backbone) -> dict[str, Any]:
    """Return what is declared of a backbone, for programs; nothing is built and nothing fetched."""
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
    """Return what the publisher states of the file's hash."""
    if not record.sha256:
        return "not stated"
    return "sha256" if len(record.sha256) == 64 else f"{len(record.sha256)} digits of the sha256"


def count_parameters(backbone: Backbone) -> int | None:
    """Return the numbers in the stages that are learned, None where that is not known without building them."""
    from math import prod

    from finetune.weights import fitting
    from finetune.weights.examining import STATISTICS

    shapes = fitting.default_shapes(backbone)
    if shapes is None:
        return None
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith(STATISTICS))


def render_facts(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return what there is to show of a backbone's ``facts``."""
    from rich.text import Text

    from finetune.cli import output
    from finetune.display.terminal import printable

    rows = [
        ("stages", ", ".join(found["stages"])),
        ("features", f"{found['features']:,}"),
        ("parameters", output.format_cell(found["parameters"])),
        ("weights", "" if found["weights"] else "none on offer; a recipe says weights: FILE or none"),
    ]
    pairs = output.render_pairs(row for row in rows if row[1])
    weights = [
        part
        for each in found["weights"]
        for part in (
            Text(printable(f"\nweights {each['name']}{' (default)' if each['default'] else ''}"), "cyan"),
            output.render_pairs((f"  {name}", value) for name, value in list_rows(each)),
        )
    ]
    return [pairs, *weights]


def list_rows(each: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of weights as rows: name and value."""
    from finetune.weights.preprocessing import recipe_line

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
        ("images", recipe_line(each["image"]).removeprefix("image: ").strip("{}")),
        ("options", options),
    ]
    return [row for row in rows if row[1]]
