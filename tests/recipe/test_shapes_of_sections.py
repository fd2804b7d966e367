"""A section of the wrong shape gives one line that says what to write."""

from __future__ import annotations

from typing import Any

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.errors import RecipeError
from finetune.recipe.plan import load_plan

PHOTOS = {"dataset": {"use": "folder", "root": "photos"}}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("runner", "cpu", "runner: expected a mapping, got 'cpu'; write {device: cpu}"),
        ("runner", "ascned", "runner: expected a mapping, got 'ascned'; did you mean {device: ascend}?"),
        ("runner", ["cpu"], "runner: expected a mapping, got a list; write {device: cpu}"),
        ("optimizer", "adamw", "optimizer: expected a mapping, got 'adamw'; write {use: adamw}"),
        (
            "optimizer",
            [{"lr": 1}],
            "optimizer: expected a mapping, got a list; write its keys without brackets and '- '",
        ),
        ("schedule", "linear-decay", "write {use: NAME}, where NAME is cosine, step or constant"),
        (
            "schedule",
            3,
            "schedule: expected a mapping, got 3; its keys are use, warmup_epochs, phase_warmup, final, every, gamma",
        ),
        ("head", "linaer", "head: expected a mapping, got 'linaer'; did you mean {use: linear}?"),
        ("loss", "cross_entropy", "loss: expected a mapping, got 'cross_entropy'; write {use: cross_entropy}"),
        ("dataset", "photos/", "dataset: expected a mapping, got 'photos/'; write {use: folder, root: photos/}"),
        ("dataset", "a.csv", "dataset: expected a mapping, got 'a.csv'; write {use: csv, file: a.csv}"),
        ("freeze", "head", "freeze: expected a mapping, got 'head'; write {use: head}"),
        ("freeze", "last 2", "write {use: NAME}, where NAME is gradual, head, none or stages"),
        ("backbone", "resnext5", "backbone: expected a mapping, got 'resnext5'; did you mean {use: resnext50}?"),
        (
            "augment",
            "light",
            "augment: expected a list, got 'light'; write [{use: NAME}], where NAME is albumentations",
        ),
        (
            "augment",
            ["light"],
            "augment[0]: expected a mapping, got 'light'; write {use: NAME}, where NAME is albument",
        ),
        ("callbacks", "checkpoint", "callbacks: expected a list, got 'checkpoint'; write [{use: checkpoint}]"),
        ("train", 5, "its keys are epochs, batch_size, accumulate, clip_norm, mixup, cutmix, ema, sync_batch_norm, …"),
        ("image", [64], "image: expected a mapping, got a list; its keys are size, resize"),
        ("loss", "focal", "loss: expected a mapping, got 'focal'; write {use: cross_entropy}"),
        ("freeze", {"use": "stages", "train": "last"}, "freeze.train: expected a list, got 'last'; write [last]"),
        ("cache", "off", "cache: expected a mapping, got 'off'; its keys are features, views, max_gb"),
    ],
)
def test_what_to_write(key: str, value: Any, said: str, catalogue: Catalogue) -> None:
    with pytest.raises(RecipeError) as caught:
        load_plan({**PHOTOS, key: value}, [], catalogue)
    (line,) = caught.value.mistakes
    assert said in line
