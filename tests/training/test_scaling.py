"""The scale of the loss in mixed precision."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.errors import DivergedError
from finetune.training.optimizers import LARGEST, PATIENCE, START, LossScale

pytestmark = pytest.mark.once


def test_an_overflow_halves_the_scale_and_is_counted() -> None:
    scale = LossScale().after_steps(finite=True).after_steps(finite=False).after_steps(finite=False)
    assert (scale.value, scale.good, scale.overflows) == (START / 4, 0, 2)


def test_many_good_steps_double_the_scale_up_to_the_largest() -> None:
    scale = LossScale()
    for _ in range(PATIENCE):
        scale = scale.after_steps(finite=True)
    assert (scale.value, scale.good) == (START * 2, 0)
    assert LossScale(value=LARGEST, good=PATIENCE).after_steps(finite=True).value == LARGEST


def test_no_scale_is_small_enough_for_gradients_that_are_never_finite() -> None:
    with pytest.raises(DivergedError, match=r"not finite at any loss scale; lower optimizer\.lr or set runner"):
        LossScale(value=1.0).after_steps(finite=False)


def test_it_is_kept_in_checkpoints() -> None:
    scale = LossScale(value=8.0, good=3, overflows=2)
    assert LossScale(**scale.to_json()) == scale


def test_scaling_by_powers_of_two_changes_no_digit() -> None:
    numbers = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert np.array_equal(numbers * np.float32(START) / np.float32(START), numbers)
