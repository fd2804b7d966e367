"""``check_freezer``: checks the contract of freezing policies."""

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

    ``freezer`` is a component, or the name of an installed one; ``options`` are its options as in a recipe. ``stages``
    are the stages of a network that the options fit, with the head last. ``skip`` lists rules to skip.
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
    """Return the result of ``build``, with names in place of positions as in the engine."""
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
    """Return the policy's result for an epoch, after checking it."""
    found: frozenset[str] = frozenset()
    with inspection.rule("stages", f"the policy, called for epoch {epoch},", "return stages for every epoch from 1 on"):
        answer: object = policy(epoch, stages)
        if text := find_fault(answer, stages):
            inspection.breaks("stages", f"for epoch {epoch} it returns {answer!r:.80}; {text}")
        else:
            assert isinstance(answer, Iterable)
            found = frozenset(answer)
    return found


def find_fault(answer: object, stages: tuple[str, ...]) -> str:
    """Return the fault of a policy's result and its remedy; empty if it is valid."""
    if isinstance(answer, str) or not isinstance(answer, Iterable) or not all(isinstance(s, str) for s in answer):
        return "return a set of names, such as frozenset({'head'})"
    if strange := sorted(set(answer) - set(stages)):
        return f"there is no stage '{strange[0]}'{did_you_mean(strange[0], stages)}"
    return "" if set(answer) else "return at least the head, otherwise nothing trains"


def check_purity(
    inspection: Inspection[Freezer], policy: Policy, answers: Mapping[int, frozenset[str]], stages: tuple[str, ...]
) -> None:
    """Call the policy for all epochs again: in reverse order, repeatedly, and after another build."""
    remedy = "compute the result from epoch and stages only; a resumed run calls the policy again"
    with inspection.rule("pure", "the policy, called again,", remedy):
        for epoch in [*sorted(answers, reverse=True), 1, 1, 1]:
            if frozenset(policy(epoch, stages)) != answers[epoch]:
                inspection.breaks("pure", f"called again, it returns different stages for epoch {epoch}; {remedy}")
                return
        fresh = inspection.component.build(inspection.options)
        for epoch, answer in answers.items():
            if frozenset(fresh(epoch, stages)) != answer:
                inspection.breaks(
                    "pure", f"after another build it returns different stages for epoch {epoch}; {remedy}"
                )
                return


def check_other_networks(inspection: Inspection[Freezer], written: Options) -> None:
    """Call the policy for a network with different stages."""
    options, resolution = resolve_positions(inspection.component, written, OTHERS)
    if resolution.wrong:
        return  # the engine rejects these options for such a network
    with inspection.rule("networks", f"called with stages {', '.join(OTHERS)}, it", "take the names from `stages`"):
        try:
            answer: object = inspection.component.build(options)(1, OTHERS)
        except UsageError:
            return
        if text := find_fault(answer, OTHERS):
            remedy = f"{text}; take names from `stages`, or raise finetune.UsageError"
            inspection.breaks(
                "networks", f"called with stages {', '.join(OTHERS)}, it returns {answer!r:.80}: {remedy}"
            )
