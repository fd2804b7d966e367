"""Freezing policies, as the engine asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from finetune.errors import UsageError
from finetune.training.phases import plan
from finetune_plugins import freezing

if TYPE_CHECKING:
    from finetune.components import Freezer

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")


def policy(name: str, **options: Any) -> Any:
    """Build a policy from the options of a recipe."""
    component: Freezer = next(c for c in freezing.finetune_freezers() if c.name == name)
    return component.build(component.options.model_validate(options))


def trainable(name: str, epochs: int = 10, **options: Any) -> list[tuple[int, int, tuple[str, ...]]]:
    """Return first epoch, last epoch and trainable stages of each phase."""
    phases = plan(policy(name, **options), STAGES, epochs, name=name)
    return [(phase.first, phase.last, phase.trainable) for phase in phases]


def test_there_are_four_policies() -> None:
    assert [component.name for component in freezing.finetune_freezers()] == ["none", "head", "stages", "gradual"]


def test_none_trains_everything() -> None:
    assert trainable("none") == [(1, 10, STAGES)]


def test_head_trains_the_head() -> None:
    assert trainable("head") == [(1, 10, ("head",))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"train": ("layer4",)}, ("layer4", "head")),
        ({"train": ("head",)}, ("head",)),
        ({"train": ("layer[34]",)}, ("layer3", "layer4", "head")),
        ({"train": ("layer?", "stem")}, STAGES),
        ({"frozen": ("stem", "layer[12]")}, ("layer3", "layer4", "head")),
        ({"frozen": ("head",)}, STAGES[:-1]),
        ({"frozen": ("*[!d]",)}, ("head",)),
    ],
)
def test_stages_by_name_and_pattern(options: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert trainable("stages", **options) == [(1, 10, expected)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": ("layer4", "layr3")}, r"no stage matches 'layr3'; did you mean 'layer3'\?"),
        ({"frozen": ("layer[56]",)}, r"no stage matches 'layer\[56\]'; did you mean 'layer\d'\?"),
        (
            {"train": ("backbone.*",)},
            r"no stage matches 'backbone\.\*'; known: all, head, last, .*stem",
        ),
        ({"frozen": ("*",)}, r"freeze\.frozen \['\*'\] leaves nothing to train; do not freeze the head"),
    ],
)
def test_stages_that_cannot_be_are_found_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        policy("stages", **options)(1, STAGES)


@pytest.mark.parametrize("options", [{}, {"train": ("head",), "frozen": ("stem",)}])
def test_stages_takes_exactly_one_list(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give either 'train' or 'frozen'"):
        policy("stages", **options)


@pytest.mark.parametrize("options", [{"train": ()}, {"frozen": ()}, {"train": "head"}, {"train": (1,)}])
def test_stages_takes_a_list_of_names(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy("stages", **options)


def test_gradual_goes_down_the_network() -> None:
    assert trainable("gradual", epochs=12, schedule={1: "head", 4: "layer4", 8: "all"}) == [
        (1, 3, ("head",)),
        (4, 7, ("layer4", "head")),
        (8, 12, STAGES),
    ]


def test_gradual_may_go_back_and_in_any_order_of_keys() -> None:
    assert trainable("gradual", schedule={5: "head", 1: "layer3", 9: "stem"}) == [
        (1, 4, ("layer3", "layer4", "head")),
        (5, 8, ("head",)),
        (9, 10, STAGES),
    ]


def test_gradual_trains_the_head_then_everything_unless_told_otherwise() -> None:
    assert trainable("gradual", epochs=3) == [(1, 1, ("head",)), (2, 3, STAGES)]


def test_gradual_is_a_pure_function_of_the_epoch() -> None:
    gradual = policy("gradual", schedule={1: "head", 4: "layer4", 8: "all"})
    forwards = [gradual(epoch, STAGES) for epoch in range(1, 11)]
    assert [gradual(epoch, STAGES) for epoch in range(10, 0, -1)] == forwards[::-1]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({2: "head"}, "the schedule starts with epoch 2; start it with epoch 1"),
        ({0: "head", 1: "all"}, "the schedule starts with epoch 0"),
        ({-1: "head", 1: "all"}, "the schedule starts with epoch -1"),
        ({}, "at least 1 item"),
        ({"1": "head"}, "valid integer"),
        ({1: 4}, "valid string"),
    ],
)
def test_gradual_needs_a_schedule_from_the_first_epoch(schedule: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        policy("gradual", schedule=schedule)


def test_gradual_finds_an_unknown_stage_before_its_epoch() -> None:
    with pytest.raises(UsageError, match=r"freeze\.schedule: no stage named 'layer44'; did you mean 'layer4'\?"):
        policy("gradual", schedule={1: "head", 9: "layer44"})(1, STAGES)


def test_gradual_names_the_word_for_everything() -> None:
    with pytest.raises(UsageError, match=r"no stage named 'al'; did you mean 'all'\?"):
        policy("gradual", schedule={1: "al"})(1, STAGES)


def said(name: str, epochs: int = 10, **options: Any) -> list[tuple[str, str, str]]:
    """Return what a policy finds wrong with its options."""
    component: Freezer = next(c for c in freezing.finetune_freezers() if c.name == name)
    assert component.check is not None
    found = component.check(component.options.model_validate(options), STAGES, epochs)
    return [(each.severity, each.subject, each.text) for each in found]


def test_all_unknown_stages_show_before_training() -> None:
    assert said("gradual", schedule={1: "head", 3: "layr4", 5: "al", 7: "all"}) == [
        ("error", "schedule.3", "no stage named 'layr4'; did you mean 'layer4'?"),
        ("error", "schedule.5", "no stage named 'al'; did you mean 'all'?"),
    ]
    assert said("stages", train=("layer4", "layr3", "layer[12]", "bn*")) == [
        ("error", "train[1]", "no stage matches 'layr3'; did you mean 'layer3'?"),
        (
            "error",
            "train[3]",
            "no stage matches 'bn*'; known: all, head, last, last 2, layer1, layer2, layer3, layer4, stem",
        ),
    ]
    assert said("stages", frozen=("head", "*")) == [
        ("error", "frozen", "leaves nothing to train; do not freeze the head")
    ]


def test_entries_after_the_last_epoch_are_noted() -> None:
    schedule = {1: "head", 3: "layer4", 4: "all"}
    text = "comes after the last epoch; raise train.epochs, which is 3, or remove the entry"
    assert said("gradual", epochs=3, schedule=schedule) == [("note", "schedule.4", text)]
    assert said("gradual", epochs=4, schedule=schedule) == []
