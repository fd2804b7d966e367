"""``check_freezer``: what the engine relies on in a freezing policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from finetune.components import Freezer, Options
from finetune.errors import UsageError
from finetune.recipe.parts import resolve_positions
from finetune.recipe.places import format_path
from finetune.suggest import did_you_mean
from finetune.testing.contract import COMMON, PROCESS, Inspection, StopCheck, call_build, inspect_component

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

RULES = {
    **COMMON,
    "build": "`build(options)` returns a function `(epoch, stages) -> stages that train`",
    "stages": "it returns a set of names from `stages`, at least one in every epoch",
    "pure": "the result depends only on epoch and stages: in any order, repeatedly, and after another `build`",
    "networks": "for a network with different stages it names those, or raises a `UsageError` that lists missing ones",
    **PROCESS,
}
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
OTHERS = ("patches", "blocks", "neck", "head")
EPOCHS = 24

Policy = Callable[[int, tuple[str, ...]], Iterable[str]]


def check_freezer(
    freezer: Freezer | str,
    options: Mapping[str, Any] | None = None,
    *,
    stages: Sequence[str] = STAGES,
    skip: Collection[str] = (),
) -> None:
    """Raise ``ContractError`` with every rule of freezing policies that one breaks.

    ``freezer`` is a component, or the name of an installed one; ``options`` are what a recipe says beside ``use:``.
    ``stages`` are those of a network that they fit, ending with the head. ``skip`` leaves rules out.
    """
    __tracebackhide__ = True
    inspection = inspect_component(Freezer, freezer, options, RULES, skip)
    with inspection.going_on():
        written = inspection.options
        policy = build_policy(inspection, written, tuple(stages))
        answers = {epoch: ask_policy(inspection, policy, epoch, tuple(stages)) for epoch in range(1, EPOCHS + 1)}
        if inspection.wants("stages"):
            check_purity(inspection, policy, answers, tuple(stages))
            check_other_networks(inspection, written)
    inspection.report()


def build_policy(inspection: Inspection[Freezer], written: Options, stages: tuple[str, ...]) -> Policy:
    """Return what ``build`` makes of options, with names in place of positions as the engine puts them."""
    inspection.options, resolution = resolve_positions(inspection.component, written, stages)
    for wrong in resolution.wrong:
        inspection.breaks("options", f"{format_path(wrong.path)}: {wrong.finding.text}")
        raise StopCheck
    policy: Policy = call_build(inspection)
    if not callable(policy):
        inspection.breaks("build", f"build returned {policy!r:.80}; return a function of epoch and stages")
        raise StopCheck
    return policy


def ask_policy(inspection: Inspection[Freezer], policy: Policy, epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
    """Return the answer for an epoch, looked at."""
    found: frozenset[str] = frozenset()
    with inspection.rule("stages", f"the policy, asked for epoch {epoch},", "answer for every epoch from 1 on"):
        answer: object = policy(epoch, stages)
        if text := find_fault(answer, stages):
            inspection.breaks("stages", f"for epoch {epoch} it answers {answer!r:.80}; {text}")
        else:
            assert isinstance(answer, Iterable)
            found = frozenset(answer)
    return found


def find_fault(answer: object, stages: tuple[str, ...]) -> str:
    """Return what is wrong with an answer, and what to do; nothing if it is in order."""
    if isinstance(answer, str) or not isinstance(answer, Iterable) or not all(isinstance(s, str) for s in answer):
        return "answer with a set of names, such as frozenset({'head'})"
    if strange := sorted(set(answer) - set(stages)):
        return f"there is no stage '{strange[0]}'{did_you_mean(strange[0], stages)}"
    return "" if set(answer) else "then nothing trains, so name at least the head"


def check_purity(
    inspection: Inspection[Freezer], policy: Policy, answers: Mapping[int, frozenset[str]], stages: tuple[str, ...]
) -> None:
    """Ask for all epochs again: backwards, one over and over, and another policy from the same options."""
    remedy = "compute the answer from epoch and stages alone; a resumed run asks again"
    with inspection.rule("pure", "the policy, asked again,", remedy):
        for epoch in [*sorted(answers, reverse=True), 1, 1, 1]:
            if frozenset(policy(epoch, stages)) != answers[epoch]:
                inspection.breaks("pure", f"asked again, it answers otherwise for epoch {epoch}; {remedy}")
                return
        fresh = inspection.component.build(inspection.options)
        for epoch, answer in answers.items():
            if frozenset(fresh(epoch, stages)) != answer:
                inspection.breaks("pure", f"after another build it answers otherwise for epoch {epoch}; {remedy}")
                return


def check_other_networks(inspection: Inspection[Freezer], written: Options) -> None:
    """Ask for a network of other stages."""
    options, resolution = resolve_positions(inspection.component, written, OTHERS)
    if resolution.wrong:
        return  # the engine refuses the options for such a network
    with inspection.rule("networks", f"asked about stages {', '.join(OTHERS)}, it", "take the names from `stages`"):
        try:
            answer: object = inspection.component.build(options)(1, OTHERS)
        except UsageError:
            return
        if text := find_fault(answer, OTHERS):
            remedy = f"{text}; take names from `stages`, or raise finetune.UsageError"
            inspection.breaks(
                "networks", f"asked about stages {', '.join(OTHERS)}, it answers {answer!r:.80}: {remedy}"
            )
