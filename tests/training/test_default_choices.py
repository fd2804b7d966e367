"""What is chosen where a recipe leaves it open: by the recipe itself, and by the number of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.data.labelled import Part
from finetune.data.loading import Data
from finetune.errors import UsageError
from finetune.recipe import plan as plans
from finetune.training import defaults
from finetune.training.prepare import plan_phases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.recipe.plan import Plan

pytestmark = pytest.mark.once

NANO = {"backbone": {"use": "resnext_nano"}, "dataset": {"use": "folder", "root": "photos"}}
ALL: dict[str, Any] = {"freeze": {"use": "none"}}
OFF = "cache.features=off caches no features to fit the head to"
KEPT = "head.keep_pretrained keeps the classifier of the weights"
MIXED = "train.mixup and train.cutmix change the images in every epoch"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


def data(*counts: int, folds: int = 0) -> Data:
    """Return training images, so many of each class; none are held back."""
    labels = np.repeat(np.arange(len(counts)), counts)
    train = Part(name="train", images=[np.zeros((1, 1, 3), np.uint8)] * len(labels), labels=labels)
    classes = tuple(f"class{number}" for number in range(len(counts)))
    split = {"method": "folds", "folds": folds} if folds else {"method": "hash"}
    report = {"split": split, "imbalance": max(counts) / min(counts)}
    return Data(train=train, valid=None, test=None, classes=classes, report=report)


def started(catalogue: Catalogue, **sections: Any) -> tuple[Plan, list[str]]:
    """Return the plan of a recipe once it says how the head starts, and what was said of that."""
    heard: list[str] = []
    plan = plans.load_plan({**NANO, **sections}, [], catalogue)
    return defaults.settle_start(plan, plan_phases(plan), heard.append), heard


def settled(catalogue: Catalogue, counts: Sequence[int], *, folds: int = 0, **sections: Any) -> tuple[Plan, list[str]]:
    """Return the plan of a recipe once so many images of each class are counted, and what was said of that."""
    heard: list[str] = []
    plan, _ = started(catalogue, **sections)
    planned = plan_phases(plan)
    return defaults.settle_length(plan, planned, data(*counts, folds=folds), 1, heard.append), heard


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"cache": {"features": "off"}}, OFF),
        ({"head": {"keep_pretrained": True}}, KEPT),
        ({"train": {"mixup": 0.2}}, MIXED),
        ({"train": {"cutmix": 1.0}}, MIXED),
        ({"cache": {"features": "off"}, **ALL}, OFF),
    ],
)
def test_what_keeps_a_head_from_being_fitted_is_said(catalogue: Catalogue, sections: dict[str, Any], why: str) -> None:
    plan, heard = started(catalogue, **sections)
    assert plan.recipe.head.start == "random"  # type: ignore[union-attr]
    assert plan.recipe.validate.folds == "off"
    assert heard == [
        f"head.start=auto chose random: {why}",
        "validate.folds=auto chose off: this head starts at random",
    ]


@pytest.mark.parametrize(
    ("sections", "start"),
    [
        ({}, "fitted"),
        (ALL, "fitted"),
        ({"train": {"mixup": 0.2}, **ALL}, "fitted"),
        ({"head": {"dropout": 0.5}}, "fitted"),
        ({"head": {"start": "fitted"}, "train": {"mixup": 0.2}}, "fitted"),
        ({"head": {"start": "random"}}, "random"),
        ({"backbone": {"use": "resnext_nano", "weights": "none"}}, "random"),
        ({"backbone": {"use": "resnext_nano", "weights": "none"}, "head": {"start": "fitted"}}, "fitted"),
    ],
)
def test_how_a_head_starts(catalogue: Catalogue, sections: dict[str, Any], start: str) -> None:
    plan, heard = started(catalogue, **sections)
    assert plan.recipe.head.start == start  # type: ignore[union-attr]
    why = "the backbone is pretrained and its features are cached"
    is_open = "start" not in sections.get("head", {}) and sections.get("backbone", {}).get("weights") != "none"
    assert [line for line in heard if "head.start" in line] == [f"head.start=auto chose fitted: {why}"] * is_open
    frozen = sections.get("freeze") == ALL["freeze"]
    assert bool([line for line in heard if "freeze.batch_norm=auto chose frozen" in line]) is frozen
    assert plan.recipe.freeze.batch_norm == ("frozen" if frozen else "train")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"head": {"start": "fitted"}, "cache": {"features": "off"}},
            f"head.start=fitted is not possible: {OFF}",
        ),
        ({"head": {"start": "fitted", "keep_pretrained": True}}, f"head.start=fitted is not possible: {KEPT}"),
        ({"validate": {"folds": 5}, **ALL}, "validate.folds=5: .*, but this recipe trains stem; set"),
        (
            {"validate": {"folds": 5}, "freeze": {"use": "gradual", "schedule": {1: "head", 3: "last 1"}}},
            "this recipe trains layer4; set validate.folds=off",
        ),
        ({"validate": {"folds": 3}, "train": {"epochs": 4}}, "this recipe trains for 4 epochs; set"),
        ({"validate": {"folds": 2}, "head": {"start": "random"}}, "this head starts at random; set"),
        ({"validate": {"folds": 2}, "head": {"use": "mlp"}}, "this head starts at random; set"),
    ],
)
def test_what_cannot_be_is_an_error(catalogue: Catalogue, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        started(catalogue, **sections)


@pytest.mark.parametrize(
    ("sections", "images", "folds"),
    [
        ({}, 2, 2),
        ({}, 999, 5),
        ({}, 100_000, 5),
        ({"dataset": {"use": "folder", "root": "photos", "split": 0.2}}, 30, 0),
        ({"validate": {"folds": "off"}}, 30, 0),
        ({"validate": {"folds": 7}}, 5000, 7),
        ({"train": {"epochs": 0}}, 30, 5),
        ({"train": {"epochs": 3}}, 30, 0),
        (ALL, 30, 0),
    ],
)
def test_images_are_judged_by_folds(catalogue: Catalogue, sections: dict[str, Any], images: int, folds: int) -> None:
    plan, _ = started(catalogue, **sections)
    assert defaults.choose_folds(plan.recipe, images) == folds


@pytest.mark.parametrize(
    ("sections", "counts", "epochs", "batch", "why"),
    [
        ({}, (12, 12, 12), 0, 8, "only the head trains, and it is fitted to its optimum"),
        ({"head": {"start": "random"}}, (10, 10), 200, 8, "600 optimizer steps of 8 images are enough"),
        ({"head": {"use": "mlp"}}, (3000, 3000), 11, 64, "1,034 optimizer steps of 64 images are enough"),
        ({"head": {"use": "mlp"}}, (90_000, 90_000), 10, 64, "28,130 optimizer steps of 64 images are enough"),
        (ALL, (12, 12, 12), 60, 8, "300 optimizer steps of 8 images are enough"),
        (ALL, (1000, 1000), 13, 64, "416 optimizer steps of 64 images are enough"),
    ],
)
def test_epochs_are_enough_steps(
    catalogue: Catalogue, sections: dict[str, Any], counts: tuple[int, ...], epochs: int, batch: int, why: str
) -> None:
    plan, heard = settled(catalogue, counts, **sections)
    assert (plan.recipe.train.epochs, plan.recipe.train.batch_size) == (epochs, batch)
    assert f"train.epochs=auto chose {epochs}: {why}" in heard


def test_epochs_before_all_stages_train_count_extra(catalogue: Catalogue) -> None:
    plan, heard = settled(catalogue, (400, 400), freeze={"use": "gradual", "schedule": {1: "head", 4: "all"}})
    assert plan.recipe.train.epochs == 3 + 16
    said = "400 optimizer steps of 32 images are enough once all stages train, after 3 epochs"
    assert f"train.epochs=auto chose 19: {said}" in heard


@pytest.mark.parametrize(
    ("counts", "metric", "weights"),
    [((10, 10), "loss", "none"), ((50, 10), "loss", "none"), ((51, 10), "macro_f1", "measured")],
)
def test_unbalanced_classes_are_judged_by_macro_f1(
    catalogue: Catalogue, counts: tuple[int, ...], metric: str, weights: str
) -> None:
    plan, heard = settled(catalogue, counts)
    assert (plan.recipe.evaluate.metric, plan.recipe.loss.class_weights) == (metric, weights)
    said = "evaluate.metric=auto chose macro_f1: the most common class has 5.1 times as many images as the rarest"
    assert (said in heard) == (metric == "macro_f1")
    other, _ = settled(catalogue, counts, head={"start": "random"}, evaluate={"metric": "accuracy"})
    assert (other.recipe.evaluate.metric, other.recipe.loss.class_weights) == ("accuracy", "none")


def test_folds_of_a_dataset_with_its_own_validation_split(catalogue: Catalogue) -> None:
    plan, heard = settled(catalogue, (12, 12), validate={"folds": 3})
    assert plan.recipe.validate.folds == "off"
    assert "validate.folds=3 has no effect: the dataset has a validation split" in heard
    _, heard = settled(catalogue, (12, 12))
    said = "validate.folds=auto chose off: the dataset has a validation split"
    assert [line for line in heard if "validate.folds" in line] == [said]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"train": {"epochs": 0}, "head": {"start": "random"}},
            "train.epochs=0 trains nothing, because the head starts",
        ),
        ({"train": {"epochs": 0}, "head": {"use": "mlp"}}, "train.epochs=0 trains nothing, because the head starts"),
        (
            {"schedule": {"warmup_epochs": 90}, **ALL},
            "schedule.warmup_epochs: 90 is more than train.epochs, for which auto chose 60; lower it, or set",
        ),
    ],
)
def test_what_the_number_of_images_rules_out(catalogue: Catalogue, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settled(catalogue, (12, 12, 12), **sections)


def test_the_rate_is_measured_only_where_pretrained_stages_train(catalogue: Catalogue) -> None:
    assert settled(catalogue, (12, 12), **ALL)[0].recipe.optimizer.lr == "auto"
    assert settled(catalogue, (12, 12), head={"start": "random"})[0].recipe.optimizer.lr == 1e-3
    sgd = {"optimizer": {"use": "sgd"}, "backbone": {"use": "resnext_nano", "weights": "none"}}
    assert settled(catalogue, (12, 12), **sgd, **ALL)[0].recipe.optimizer.lr == 1e-2
