"""Freezing policies that break one rule each: what ``check_freezer`` says."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Dataset, Freezer, NoOptions, UsageError
from finetune.testing import check_freezer
from finetune.testing.freezers import RULES
from tests.testing.bad_datasets import Loose
from tests.testing.broken import broken

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once

HEAD = frozenset({"head"})


def mine(policy: Any) -> Freezer:
    """Return a freezer whose ``build`` returns this."""
    return Freezer(name="mine", build=lambda options: policy)


def made(make: Callable[[], Any], options: Any = NoOptions) -> Freezer:
    """Return a freezer that makes its policy anew at every build."""
    return Freezer(name="mine", options=options, build=lambda options: make())


def head(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
    return HEAD


def counting() -> Any:
    """Return a policy that thaws a stage at every second call."""
    asked = [0]

    def policy(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
        asked[0] += 1
        return frozenset(stages[-1 - asked[0] // 2 :])

    return policy


BUILT = [0]


def another() -> Any:
    """Return a policy that depends on how many were built before."""
    BUILT[0] += 1
    count = 1 + BUILT[0] % 2
    return lambda epoch, stages: frozenset(stages[-count:])


def lastly(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
    return frozenset({"layer4", "head"})


def printing(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
    print(epoch)
    return HEAD


def drawing(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
    random.random()
    return HEAD


def late(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
    return [HEAD][epoch - 1]


OTHERS = "called with stages patches, blocks, neck, head, it"
BROKEN: list[tuple[str, Any, str, str]] = [
    ("no freezer", Dataset(name="mine", build=print), "component", "finetune_freezers returned Dataset("),
    (
        "loose options",
        made(lambda: head, Loose),
        "options",
        "an unknown key is accepted, so a misspelt key has no effect",
    ),
    ("no function", mine(HEAD), "build", "build returned frozenset({'head'}); return a function of epoch and stages"),
    (
        "one name",
        mine(lambda epoch, stages: "head"),
        "stages",
        "for epoch 1 it returns 'head'; return a set of names, such as frozenset({'head'})",
    ),
    (
        "numbers",
        mine(lambda epoch, stages: {4, 5}),
        "stages",
        "for epoch 1 it returns {4, 5}; return a set of names, such as frozenset({'head'})",
    ),
    (
        "a stage that is not there",
        mine(lambda epoch, stages: {"layer5"}),
        "stages",
        "for epoch 1 it returns {'layer5'}; there is no stage 'layer5'; did you mean 'layer4'?",
    ),
    (
        "nothing from epoch 9 on",
        mine(lambda epoch, stages: HEAD if epoch < 9 else frozenset()),
        "stages",
        "for epoch 9 it returns frozenset(); return at least the head, otherwise nothing trains",
    ),
    (
        "fails later",
        mine(late),
        "stages",
        "the policy, called for epoch 2, raised IndexError: list index out of range; return stages for "
        "every epoch from 1 on",
    ),
    (
        "counts its calls",
        made(counting),
        "pure",
        "called again, it returns different stages for epoch 9; compute the result from epoch and "
        "stages only; a resumed run "
        "calls the policy again",
    ),
    (
        "another build",
        made(another),
        "pure",
        "after another build it returns different stages for epoch 1; compute the result from epoch and stages only; a "
        "resumed run calls the policy again",
    ),
    (
        "names of one network",
        mine(lastly),
        "networks",
        "there is no stage 'layer4'; known: blocks, head, neck, patches; take names from `stages`, or raise "
        "finetune.UsageError",
    ),
    (
        "a place of one network",
        mine(lambda epoch, stages: frozenset({stages[stages.index("layer4")], "head"})),
        "networks",
        f"{OTHERS} raised ValueError: tuple.index(x): x not in tuple; take the names from `stages`",
    ),
    ("prints", mine(printing), "process", "prints '1\\n'; use run.say, findings or logging"),
    ("draws", mine(drawing), "process", "draws from or seeds the generator of `random`; use your own"),
]


@pytest.mark.parametrize(("component", "rule", "text"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_a_broken_rule_says_what_to_do(component: Any, rule: str, text: str) -> None:
    found = broken(check_freezer, component)
    assert [each[0] for each in found] == [rule], found
    assert text in found[0][1]


def test_every_rule_is_broken_once() -> None:
    assert {rule for _, _, rule, _ in BROKEN} == RULES.keys()


def test_a_policy_may_refuse_other_networks() -> None:
    def policy(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
        if "layer4" not in stages:
            raise UsageError(f"no stage 'layer4' in {', '.join(stages)}; use another policy")
        return frozenset({"layer4"})

    check_freezer(mine(policy))


def test_stages_may_be_those_of_another_network() -> None:
    check_freezer(mine(lambda epoch, stages: [stages[0]]), stages=("one", "head"))
    check_freezer("stages", {"train": ["block*"]}, stages=("block1", "head"))
    with pytest.raises(AssertionError, match=r"freeze\.train: no stage matches 'block9'; did you mean 'block1'\?"):
        check_freezer("stages", {"train": ["block9"]}, stages=("block1", "head"))
