"""Phases from a freezing policy."""

from __future__ import annotations

import pytest

from finetune.errors import PluginError, UsageError
from finetune.training.phases import plan

STAGES = ("stem", "layer1", "head")


def test_epochs_with_the_same_stages_are_one_phase() -> None:
    answers = {1: {"head"}, 2: {"head"}, 3: {"head", "layer1"}, 4: set(STAGES)}
    phases = plan(lambda epoch, stages: frozenset(answers[epoch]), STAGES, 4, name="own")
    assert [(p.number, p.first, p.last, p.trainable) for p in phases] == [
        (1, 1, 2, ("head",)),
        (2, 3, 3, ("layer1", "head")),
        (3, 4, 4, STAGES),
    ]


def test_an_unknown_stage_names_the_policy_and_the_nearest_stage() -> None:
    with pytest.raises(PluginError, match=r"'own' returned unknown stage 'layer11'; did you mean 'layer1'\?"):
        plan(lambda epoch, stages: frozenset({"layer11"}), STAGES, 1, name="own")


def test_nothing_that_trains_is_an_error() -> None:
    with pytest.raises(UsageError, match="trains nothing in epoch 1"):
        plan(lambda epoch, stages: frozenset(), STAGES, 1, name="own")
