"""The class names that belong to weights: those in the file itself, else those of its record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from finetune.data.classes import Names
from finetune.errors import PluginError, UsageError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from finetune.components import Weights
    from finetune.weights.sources import Source

SHOWN = 5
NEW_HEAD = "write head.keep_pretrained=false for a new head"


def kept(source: Source | None) -> tuple[str, ...]:
    """Return the classes of a head that ``head.keep_pretrained`` keeps, in the order of its logits.

    Raises ``UsageError`` without weights and ``WeightsError`` for weights that say no class names.
    """
    if source is None:
        raise UsageError(f"head.keep_pretrained keeps the head of weights, and backbone.weights is none; {NEW_HEAD}")
    names = classes(source)
    if names is None:
        raise WeightsError(f"the weights '{source.name}' say no class names, so their head cannot be kept; {NEW_HEAD}")
    return names


def classes(source: Source) -> tuple[str, ...] | None:
    """Return the class names of weights, or None where nobody says them."""
    text = source.metadata.get("classes")
    if text is not None:
        return saved(text, source.path)
    return None if source.record is None else of_record(source.record)


def of_record(record: Weights) -> tuple[str, ...] | None:
    """Return the class names that a record knows, or None."""
    return None if record.labels is None else listed(record.labels, record.classes)


def saved(text: str, path: Path) -> tuple[str, ...]:
    """Return the class names in the metadata of a file that this project saved."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        names = []
    if not names or len({*names}) < len(names):
        raise WeightsError(f"'{path}' has damaged metadata of its classes; copy it anew, or {NEW_HEAD}")
    return tuple(names)


def listed(path: Path, count: int) -> tuple[str, ...]:
    """Return the names in a file with a class a line, as many as there are logits."""
    try:
        names = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"Weights.labels: '{path}' cannot be read ({error}); name a text file") from error
    if len(names) != count or len({*names}) != count:
        raise PluginError(
            f"Weights.labels: '{path}' names {len({*names})} classes for {count} logits; write a name a line, each once"
        )
    return names


def check(source: Source, names: Sequence[str], own: Sequence[str]) -> None:
    """Raise ``WeightsError`` unless each of a dataset's ``own`` classes is among those of the weights."""
    strange = [name for name in own if name not in {*names}]
    if strange:
        known = Names(names)
        shown = [f"'{name}'{f' ({near[2:]})' if (near := known.near(name)) else ''}" for name in strange[:SHOWN]]
        more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
        raise WeightsError(
            f"the head of '{source.name}' has {len(names)} classes, and none named {', '.join(shown)}{more}; "
            f"{NEW_HEAD}, or give the photos' classes its names"
        )
