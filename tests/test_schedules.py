"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from finetune.recipe.models import Constant, Cosine, StepDecay
from finetune.training.schedules import factor


def test_cosine_falls_from_one_to_final() -> None:
    section = Cosine(final=0.1)
    values = [factor(section, step, 10, 5) for step in range(51)]
    assert values[0] == 1.0
    assert values[25] == pytest.approx(0.55)
    assert values[50] == pytest.approx(0.1)
    assert values == sorted(values, reverse=True)


def test_warmup_rises_to_one_at_its_last_step() -> None:
    section = Cosine(warmup_epochs=0.5)
    assert [factor(section, step, 8, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(section, 4, 8, 4) == 1.0


def test_step_decay_counts_epochs() -> None:
    section = StepDecay(use="step", every=2, gamma=0.5)
    assert [factor(section, epoch * 3, 3, 6) for epoch in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_constant() -> None:
    assert factor(Constant(use="constant", warmup_epochs=1.0), 1, 4, 3) == 0.5
    assert factor(Constant(use="constant"), 99, 4, 30) == 1.0
