"""Sweep axes: keys that are given a list of values where the recipe takes a single value."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import RecipeError, UsageError
from finetune.recipe import overrides
from finetune.recipe.nodes import parse_yaml
from finetune.recipe.places import Place, clip_text
from finetune.training import defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from finetune.recipe.plan import Plan


MOST = 1000  # runs in a sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A key and the values to try for it."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One combination of values by key, and the name of its run: its number, the keys and the values."""

    name: str
    values: dict[str, Any]

    @property
    def changes(self) -> list[str]:
        """Return the values as overrides."""
        return [f"{key}={json.dumps(value)}" for key, value in self.values.items()]


def split_axes(changes: Sequence[str], load: Callable[[Sequence[str]], Plan]) -> tuple[list[Axis], list[str]]:
    """Separate the overrides that are sweep axes from all others, which keep their order.

    A list is an axis if the recipe does not accept the list but accepts its first value. ``load`` makes a plan from
    overrides or raises ``RecipeError``.
    """
    lists = {text: values for text in changes if (values := parse_list(text))}
    alone = [text for text in changes if text not in lists]
    axes, others = [], []
    for text in changes:
        key, values = text.partition("=")[0], lists.get(text, [])
        if (
            values
            and not accepts_change(load, alone, text)
            and accepts_change(load, alone, f"{key}={json.dumps(values[0])}")
        ):
            axes.append(Axis(key=key, values=tuple(values)))
        else:
            others.append(text)
    if len({axis.key for axis in axes}) < len(axes):
        twice = next(axis.key for axis in axes if [each.key for each in axes].count(axis.key) > 1)
        raise UsageError(f"{twice}: listed twice; give all its values in one list")
    return axes, others


def parse_list(change: str) -> list[Any]:
    """Return the values of an override that gives a list; empty for any other override."""
    key, _, value = change.partition("=")
    if not value.lstrip().startswith("[") or key.startswith("~"):
        return []
    place = Place(overrides.OVERRIDDEN, 0, change, Path.cwd())
    node, mistakes = parse_yaml(value.strip(), lambda line, column: place)
    plain = node.plain() if node is not None and not mistakes else None
    return plain if isinstance(plain, list) else []


def accepts_change(load: Callable[[Sequence[str]], Plan], others: Sequence[str], change: str) -> bool:
    """Return whether the recipe accepts an override; unrelated mistakes in the recipe are ignored."""
    try:
        load([*others, change])
    except RecipeError as error:
        return f"override '{clip_text(change, 80)}'" not in str(error)
    return True


def combine_axes(axes: Sequence[Axis]) -> list[Trial]:
    """Return every combination of values; the last key varies fastest."""
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST:
        raise UsageError(f"these lists make {count:,} runs; a sweep can have at most {MOST:,}")
    for axis in axes:
        twice = [format_value(value) for value in axis.values if axis.values.count(value) > 1]
        if twice:
            raise UsageError(f"{axis.key}: value {twice[0]} is listed twice; remove one")
    keys = [axis.key for axis in axes]
    combined = [dict(zip(keys, values, strict=True)) for values in product(*(axis.values for axis in axes))]
    digits = len(str(len(combined)))
    return [
        Trial(name="-".join([f"{n:0{digits}}", *name_values(each)]), values=each) for n, each in enumerate(combined, 1)
    ]


def name_values(values: dict[str, Any]) -> Iterator[str]:
    """Yield the last part of each key with its value, in characters that the name of a run may contain."""
    for key, value in values.items():
        yield re.sub(r"[^\w.]+", "-", f"{key.rpartition('.')[2]}-{format_value(value)}").strip("-.")[:30]


def format_value(value: Any) -> str:
    """Format a value for people: strings without quotes, short numbers, everything else as JSON."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def judge_alike(plans: Sequence[Plan], say: Callable[[str], None]) -> list[Plan]:
    """Make all plans use held-back validation images if one of them has to, so that their scores are comparable.

    With ``validate.folds=auto`` a run that only fits the head would otherwise be evaluated out of fold, on different
    images than the other runs.
    """
    from finetune.training.prepare import plan_phases

    open_ones = [plan for plan in plans if plan.recipe.validate.folds == "auto"]
    settled = [
        defaults.settle_start(plan, plan_phases(plan), lambda message: None).recipe.validate.folds for plan in open_ones
    ]
    if "off" not in settled or {*settled} == {"off"}:
        return list(plans)
    say("validate.folds=auto chose off for every run, so that all of them are evaluated on the same images")
    return [
        defaults.replace_values(plan, "validate", folds="off") if plan.recipe.validate.folds == "auto" else plan
        for plan in plans
    ]
