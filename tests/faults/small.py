"""A run of three epochs of three steps, in which a checkpoint is due in each."""

from __future__ import annotations

from functools import partial

from tests.features import tiny

recipe = partial(
    tiny.recipe,
    runner={"mode": "pynative"},
    train={"epochs": 3, "batch_size": 8},
    callbacks=[{"use": "checkpoint"}],
)
