"""How long a run trains, in which portions, and where its learning rate is measured, by the number of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune.recipe import plan as plans
from finetune.training import defaults
from finetune.training.prepare import plan_phases
from tests.features import tiny
from tests.training import pretrained

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan
    from finetune.training.phases import Phase

GRADUAL = {"use": "gradual", "schedule": {1: "head", 4: "last", 9: "all"}}


def settled(top: Path, batch: int, **sections: Any) -> tuple[Plan, tuple[Phase, ...]]:
    """Return a plan with a batch size and an open number of epochs, and its phases."""
    catalogue = tiny.catalogue()
    said = pretrained.recipe(top, top, **{"train": {"epochs": "auto", "batch_size": batch}, **sections})
    plan = plans.load_plan(said, [], catalogue)
    planned = plan_phases(plan)
    return defaults.settle_start(plan, planned, lambda message: None), planned


@pytest.mark.parametrize(
    ("images", "processes", "size"),
    [(16, 1, 8), (160, 1, 8), (320, 1, 16), (1000, 1, 32), (6552, 1, 64), (100_000, 1, 64), (6552, 2, 64), (16, 2, 8)],
)
def test_a_batch_size_that_makes_some_steps(images: int, processes: int, size: int) -> None:
    assert defaults.choose_batch_size(images, processes) == size


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "steps"),
    [
        (16, 8, 60, 120),  # the most epochs
        (160, 8, 20, 400),
        (2022, 64, 13, 416),
        (6552, 64, 6, 618),  # the fewest
        (32_000, 64, 6, 3000),
        (100_000, 64, 2, 3126),
        (1_000_000, 64, 2, 31_250),
    ],
)
def test_enough_steps_for_more_than_the_head(tmp_path: Path, images: int, batch: int, epochs: int, steps: int) -> None:
    plan, planned = settled(tmp_path, batch)
    found, why = defaults.choose_epochs(plan.recipe, planned, images)
    assert (found, why) == (epochs, f"{steps:,} optimizer steps of {batch} images are enough")


def test_steps_count_from_where_all_that_trains_does(tmp_path: Path) -> None:
    plan, planned = settled(tmp_path, 64, freeze=GRADUAL)
    found, why = defaults.choose_epochs(plan.recipe, planned, 6552)
    assert found == 8 + 6
    assert why == "618 optimizer steps of 64 images are enough once all stages train, after 8 epochs"


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    plan, planned = settled(tmp_path, 8, train={"epochs": "auto", "batch_size": 8, "accumulate": 4})
    found, why = defaults.choose_epochs(plan.recipe, planned, 320)
    assert (found, why) == (40, "400 optimizer steps of 32 images are enough")


def test_a_head_at_its_optimum_needs_no_steps_and_a_random_one_a_thousand(tmp_path: Path) -> None:
    plan, planned = settled(tmp_path, 8, freeze={"use": "head"})
    assert defaults.choose_epochs(plan.recipe, planned, 160)[0] == 0
    plan, planned = settled(tmp_path, 8, freeze={"use": "head"}, head={"start": "random"})
    assert defaults.choose_epochs(plan.recipe, planned, 160)[0] == 50
    assert defaults.choose_epochs(plan.recipe, planned, 16)[0] == 200
    assert defaults.choose_epochs(plan.recipe, planned, 100_000)[0] == 10


@pytest.mark.parametrize(
    ("sections", "measured"),
    [
        ({}, True),
        ({"freeze": {"use": "head"}, "train": {"epochs": 3}}, True),  # its optimum is easily lost
        ({"freeze": {"use": "head"}, "train": {"epochs": 0}}, False),
        ({"freeze": {"use": "head"}, "train": {"epochs": 3}, "head": {"start": "random"}}, False),
        ({"head": {"start": "random"}}, True),
        ({"backbone": {"use": "resnext_nano", "weights": "none"}}, False),
        ({"optimizer": {"lr": 1e-3}}, False),
    ],
)
def test_where_the_learning_rate_is_measured(tmp_path: Path, sections: dict[str, Any], measured: bool) -> None:
    plan, planned = settled(tmp_path, 8, **{"train": {"epochs": 2}, **sections})
    assert defaults.measures_rate(plan.recipe, planned) is measured
