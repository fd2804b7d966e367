"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from finetune.recipe.models import Constant, Cosine, StepDecay
from finetune.training.optimizers import compute_factor, compute_phase_factor
from finetune.training.phases import Phase


def test_cosine_falls_from_one_to_final() -> None:
    section = Cosine(final=0.1)
    values = [compute_factor(section, step, 10, 5) for step in range(51)]
    assert values[0] == 1.0
    assert values[25] == pytest.approx(0.55)
    assert values[50] == pytest.approx(0.1)
    assert values == sorted(values, reverse=True)


def test_warmup_rises_to_one_at_its_last_step() -> None:
    section = Cosine(warmup_epochs=0.5)
    assert [compute_factor(section, step, 8, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert compute_factor(section, 4, 8, 4) == 1.0


def test_step_decay_counts_epochs() -> None:
    section = StepDecay(use="step", every=2, gamma=0.5)
    assert [compute_factor(section, epoch * 3, 3, 6) for epoch in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_constant() -> None:
    assert compute_factor(Constant(use="constant", warmup_epochs=1.0), 1, 4, 3) == 0.5
    assert compute_factor(Constant(use="constant"), 99, 4, 30) == 1.0


def test_a_phase_of_more_than_the_head_rises_over_a_share_of_its_steps() -> None:
    phase = Phase(number=2, first=2, last=5, trainable=("layer4", "head"))
    values = [compute_phase_factor(Cosine(), phase, step, 10) for step in range(9, 51)]
    assert values == [1.0, 0.25, 0.5, 0.75, *[1.0] * 38]  # a tenth of its 40 steps, which follow the 10 of epoch 1
    assert compute_phase_factor(Constant(use="constant", phase_warmup=0.5), phase, 10, 10) == 0.05


def test_the_head_alone_starts_at_its_rate() -> None:
    head = Phase(number=1, first=1, last=5, trainable=("head",))
    both = Phase(number=1, first=1, last=5, trainable=("layer4", "head"))
    assert compute_phase_factor(Cosine(phase_warmup=1.0), head, 0, 10) == 1.0
    assert compute_phase_factor(Cosine(phase_warmup=1.0), None, 0, 10) == 1.0
    assert compute_phase_factor(Cosine(phase_warmup=0.0), both, 0, 10) == 1.0
    assert compute_phase_factor(Cosine(phase_warmup=1.0), both, 0, 10) == 0.02
