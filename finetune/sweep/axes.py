"""What a command line sweeps over: keys with a list of values, where the recipe takes one value."""

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

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan


MOST = 1000  # runs of a sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A key and the values that it takes in turn."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One combination of values by their keys, and the name of its run: number, keys and values."""

    name: str
    values: dict[str, Any]

    @property
    def changes(self) -> list[str]:
        """Return the values as overrides."""
        return [f"{key}={json.dumps(value)}" for key, value in self.values.items()]


def divided(changes: Sequence[str], load: Callable[[Sequence[str]], Plan]) -> tuple[list[Axis], list[str]]:
    """Return what the changes sweep over, and all other changes, in their order.

    A list is swept over where the recipe does not take a list, but does take its first value; ``load`` makes a plan of
    changes, or raises ``RecipeError``.
    """
    lists = {text: values for text in changes if (values := listed(text))}
    alone = [text for text in changes if text not in lists]
    axes, others = [], []
    for text in changes:
        key, values = text.partition("=")[0], lists.get(text, [])
        if values and not takes(load, alone, text) and takes(load, alone, f"{key}={json.dumps(values[0])}"):
            axes.append(Axis(key=key, values=tuple(values)))
        else:
            others.append(text)
    if len({axis.key for axis in axes}) < len(axes):
        twice = next(axis.key for axis in axes if [each.key for each in axes].count(axis.key) > 1)
        raise UsageError(f"{twice} is swept over twice; give all its values in one list")
    return axes, others


def listed(change: str) -> list[Any]:
    """Return the values of a change that gives a list, empty where it gives none."""
    key, _, value = change.partition("=")
    if not value.lstrip().startswith("[") or key.startswith("~"):
        return []
    place = Place(overrides.OVERRIDDEN, 0, change, Path.cwd())
    node, mistakes = parse_yaml(value.strip(), lambda line, column: place)
    plain = node.plain() if node is not None and not mistakes else None
    return plain if isinstance(plain, list) else []


def takes(load: Callable[[Sequence[str]], Plan], others: Sequence[str], change: str) -> bool:
    """Tell whether the recipe takes a change; what else is wrong with it does not matter here."""
    try:
        load([*others, change])
    except RecipeError as error:
        return f"override '{clip_text(change, 80)}'" not in str(error)
    return True


def trials(axes: Sequence[Axis]) -> list[Trial]:
    """Return every combination, the last key's values changing first."""
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST:
        raise UsageError(f"these lists make {count:,} runs; {MOST:,} is the most")
    for axis in axes:
        twice = [spelled(value) for value in axis.values if axis.values.count(value) > 1]
        if twice:
            raise UsageError(f"{axis.key} has the value {twice[0]} twice; take one out")
    keys = [axis.key for axis in axes]
    combined = [dict(zip(keys, values, strict=True)) for values in product(*(axis.values for axis in axes))]
    digits = len(str(len(combined)))
    return [Trial(name="-".join([f"{n:0{digits}}", *words(each)]), values=each) for n, each in enumerate(combined, 1)]


def words(values: dict[str, Any]) -> Iterator[str]:
    """Yield last parts of keys, each with its value, in letters that names of runs may have."""
    for key, value in values.items():
        yield re.sub(r"[^\w.]+", "-", f"{key.rpartition('.')[2]}-{spelled(value)}").strip("-.")[:30]


def spelled(value: Any) -> str:
    """Return a value as one reads it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def judge_alike(plans: Sequence[Plan], catalogue: Catalogue, say: Callable[[str], None]) -> list[Plan]:
    """Return plans that all hold images back if one of them has to.

    Left to itself, a run that only fits the head would be judged out of fold, on other images than the rest.
    """
    from finetune.training.prepare import plan_phases

    open_ones = [plan for plan in plans if plan.recipe.validate.folds == "auto"]
    settled = [
        defaults.settle_start(plan, plan_phases(plan, catalogue), lambda message: None).recipe.validate.folds
        for plan in open_ones
    ]
    if "off" not in settled or {*settled} == {"off"}:
        return list(plans)
    say("validate.folds=auto chose off for every run: all of them are judged on the same images")
    return [
        defaults.changed(plan, "validate", folds="off") if plan.recipe.validate.folds == "auto" else plan
        for plan in plans
    ]
