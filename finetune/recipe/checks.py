"""What components find wrong with their options, beside the network and the length of the run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from finetune.components import Augmentation, Backbone, Callback, Component, Finding, Freezer, Options, RunFacts
from finetune.errors import PluginError
from finetune.plugins import named
from finetune.recipe.models import MOST_EPOCHS
from finetune.recipe.overrides import keys
from finetune.recipe.parts import Part, number
from finetune.recipe.positions import Resolution, replace_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from finetune.catalogue import Catalogue
    from finetune.recipe.models import Recipe
    from finetune.recipe.places import KeyPath

M = TypeVar("M", bound=Options)


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and the key that it is about."""

    path: KeyPath
    finding: Finding


def findings(
    parts: Sequence[Part],
    given: Sequence[Options | None],
    values: Mapping[str, Any],
    catalogue: Catalogue,
    recipe: Recipe | None = None,
) -> Iterator[Found]:
    """Yield what freezers, augmentations and callbacks say of their options, where those are right by themselves.

    Callbacks look at the rest of the ``recipe`` as well, so they are asked where that is right.
    """
    stages = next((part.component.stages for part in parts if isinstance(part.component, Backbone)), None)
    for part, options in zip(parts, given, strict=True):
        if options is None:
            continue
        named_options, resolution = with_names(part.component, options, (*(stages or ()), "head"))
        wrong = {(*part.path, *each.path): each.finding for each in resolution.wrong} if stages else {}
        yield from (Found(path, finding) for path, finding in wrong.items())
        ask = asking(part.component, stages, epochs(values), RunFacts(recipe=longest(recipe)) if recipe else None)
        if ask is not None:
            with named(catalogue.origin(part.component), f"check of {part.component.kind} '{part.component.name}'"):
                said = list(ask(named_options))
            found = (located(part, each, catalogue, resolution) for each in said)
            yield from (each for each in found if each.path not in wrong)


def longest(recipe: Recipe) -> Recipe:
    """Return a recipe that has as many epochs as there can be, where it leaves their number open."""
    if recipe.train.epochs != "auto":
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": MOST_EPOCHS})})


def with_names(component: Component, options: M, stages: tuple[str, ...]) -> tuple[M, Resolution]:
    """Return options as a component reads them: a freezer's with names in place of positions of stages."""
    if isinstance(component, Freezer) and component.positions:
        return replace_positions(options, stages)
    return options, Resolution(stages)


def asking(
    component: Component, stages: tuple[str, ...] | None, last: int, facts: RunFacts | None = None
) -> Callable[[Any], Iterable[Finding]] | None:
    """Return a component's own check of its options; None where it has none, or what it looks at is not known."""
    if isinstance(component, Augmentation):
        return component.check
    if isinstance(component, Callback):
        check = component.check
        return None if check is None or facts is None else lambda options: check(options, facts)
    if not isinstance(component, Freezer) or component.check is None or stages is None:
        return None
    return partial(_of_freezer, component.check, (*stages, "head"), last)


def _of_freezer(check: Callable[..., Iterable[Finding]], stages: tuple[str, ...], last: int, options: Any) -> Any:
    return check(options, stages, last)


def epochs(values: Mapping[str, Any]) -> int:
    """Return ``train.epochs``; where it is wrong itself, so many that nothing lies beyond."""
    given = number(values, "train", "epochs")
    return given if isinstance(given, int) and given > 0 else sys.maxsize


def located(part: Part, finding: Finding, catalogue: Catalogue, resolution: Resolution) -> Found:
    """Return a finding with its key in the recipe, which its subject names below the section."""
    if not isinstance(finding, Finding):
        got = f"check of {part.component.kind} '{part.component.name}' gave {finding!r:.80}, not a Finding"
        raise PluginError(f"{catalogue.origin(part.component)}: {got}; yield finetune.Finding(…)")
    return Found((*part.path, *resolution.origin(keys(finding.subject))), finding)
