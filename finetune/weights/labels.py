"""Class names of weights: those in the file itself, or else those of its record.

Names are distinct: class maps, tables and JSON are keyed by them, and a folder of photos belongs to one class. Lists
with duplicates, such as ImageNet's two classes named crane, are made distinct by a number.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from finetune.data.audit import Names
from finetune.errors import PluginError, UsageError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from finetune.components import Weights
    from finetune.weights.fetching import Source

SHOWN = 5
NEW_HEAD = "set head.keep_pretrained=false for a new head"


def keep_classes(source: Source | None, say: Callable[[str], None] = lambda message: None) -> tuple[str, ...]:
    """Return the classes of the head that ``head.keep_pretrained`` keeps, in the order of its logits.

    ``say`` reports the names that were made distinct. Raises ``UsageError`` without weights, and ``WeightsError`` for
    weights without class names.
    """
    if source is None:
        raise UsageError(f"head.keep_pretrained needs weights with a head, but backbone.weights is none; {NEW_HEAD}")
    stated = read_stated_names(source)
    if stated is None:
        raise WeightsError(f"weights '{source.name}': without class names their head cannot be kept; {NEW_HEAD}")
    names = make_distinct(stated)
    if renamed := [name for name, before in zip(names, stated, strict=True) if name != before]:
        more = f" and {len(renamed) - SHOWN} more" if len(renamed) > SHOWN else ""
        shown = ", ".join(f"'{name}'" for name in renamed[:SHOWN])
        say(f"weights '{source.name}': several classes have the same name; the later ones are named {shown}{more}")
    return names


def read_classes(source: Source) -> tuple[str, ...] | None:
    """Return the distinct class names of weights, or None if they are unknown."""
    names = read_stated_names(source)
    return None if names is None else make_distinct(names)


def read_stated_names(source: Source) -> tuple[str, ...] | None:
    """Return the class names of weights as stated, which may have duplicates; None if they are unknown."""
    text = source.metadata.get("classes")
    if text is not None:
        return parse_saved(text, source.path)
    record = source.record
    return None if record is None or record.labels is None else read_list(record.labels, record.classes)


def read_record_classes(record: Weights) -> tuple[str, ...] | None:
    """Return the distinct class names of a record, or None if it has none."""
    return None if record.labels is None else make_distinct(read_list(record.labels, record.classes))


def make_distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Make names distinct: ``crane, crane`` become ``crane, crane (2)``.

    The first keeps its name; the others get the next free number, in order.
    """
    taken, found, counts = {*names}, [], dict.fromkeys(names, 0)
    for name in names:
        counts[name] += 1
        own = name
        while counts[name] > 1 and own in taken:
            own = f"{name} ({counts[name]})"
            counts[name] += own in taken
        taken.add(own)
        found.append(own)
    return tuple(found)


def parse_saved(text: str, path: Path) -> tuple[str, ...]:
    """Parse the class names in the metadata of a file that this project saved."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        names = []
    if not names:
        raise WeightsError(f"'{path}' has damaged class metadata; copy it again, or {NEW_HEAD}")
    return tuple(names)


def read_list(path: Path, count: int) -> tuple[str, ...]:
    """Read a file with one class name per line, which must have ``count`` names, one for each logit."""
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"Weights.labels: '{path}' cannot be read ({error}); name a text file") from error
    if len(names) != count or not all(names):
        empty = sum(not name for name in names)
        empty_lines = f" ({empty} of them empty)" if empty else ""
        wrong = f"'{path}' has {len(names)} class names{empty_lines} for {count} logits"
        raise PluginError(f"Weights.labels: {wrong}; write one name per line")
    return names


def check_classes(source: Source, names: Sequence[str], own: Sequence[str]) -> None:
    """Raise ``WeightsError`` unless all ``own`` classes of a dataset are among the ``names`` of the weights."""
    strange = [name for name in own if name not in {*names}]
    if strange:
        known = Names(names)
        shown = [f"'{name}'{f' ({near[2:]})' if (near := known.find_near(name)) else ''}" for name in strange[:SHOWN]]
        more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
        raise WeightsError(
            f"the head of '{source.name}' has {len(names)} classes, but none named {', '.join(shown)}{more}; "
            f"{NEW_HEAD}, or use its names for the classes of your photos"
        )
