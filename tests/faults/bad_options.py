"""Options that cannot be meant: preprocessing in 0..255, metrics that never change, stages that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.bad_models import AGAIN, image
from tests.faults.bad_recipes import above
from tests.faults.case import Case, case
from tests.faults.data_makers import FOLDER, data

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Make

BY_255 = "divide by 255: [0.485, 0.456, 0.406]"


def checked(line: str) -> Make:
    """Return what checks a recipe of sound photos with one more line."""
    make = data(FOLDER)

    def act(folder: Path) -> list[str | Path]:
        words = make(folder)
        with (folder / "r.yaml").open("a") as file:
            file.write(f"{line}\n")
        return [*words]

    return act


CASES: list[Case] = [
    case("N6", "mean in 0..255", above("image: {mean: [123.675, 116.28, 103.53]}"), 2, "image.mean: [123.7,", BY_255),
    case("N6", "std in 0..255", above("image: {std: [58.395, 57.12, 57.375]}"), 2, "image.std: ", "divide by 255"),
    case("N6", "mean of mixed scales", above("image: {mean: [0.485, 116.28, 0.406]}"), 2, "image.mean: the values ha"),
    case("N6", "negative mean", above("image: {mean: [-0.5, 0, 0]}"), 2, "a mean cannot be negative", "pixels in 0..1"),
    case("N6", "std divided twice", above("image: {std: [0.0009, 0.0009, 0.0009]}"), 2, "multiply by 255: [0.2295,"),
    case("N6", "one mean for all channels", above("image: {mean: 0.5}"), 2, "got 0.5; write [0.5, 0.5, 0.5]"),
    case(
        "C3",
        "model.json with a mean in 0..255",
        image(mean=[123.675, 116.28, 103.53]),
        4,
        "is damaged (im",
        BY_255,
        AGAIN,
    ),
    case("N6", "top5 of two classes", checked("evaluate: {metric: top5}"), 2, "top5 is always 1 with 2 classes; set"),
    case(
        "N6",
        "early stopping by top5 of two classes",
        checked("callbacks: [{use: early_stopping, metric: top5}]"),
        2,
        "callbacks[0].metric: top5 is always 1 with 2 classes",
        "write accuracy",
    ),
    case(
        "N6",
        "a gain that no metric can have",
        above("callbacks: [{use: early_stopping, min_delta: 1}]\nevaluate: {metric: accuracy}"),
        2,
        "callbacks[0].min_delta: accuracy is in 0..1",
        "write a share",
    ),
    case(
        "N6",
        "no epoch for a head that starts at random",
        checked("train: {epochs: 0}"),
        2,
        "train.epochs=0 trains nothing, because the head starts at random",
        "set it to 1 or more",
    ),
    case(
        "N6",
        "folds of a head that starts at random",
        checked("validate: {folds: 5}"),
        2,
        "validate.folds=5: folds need a fitted head and no other training",
        "set validate.folds=off",
    ),
    case(
        "N6",
        "a fitted head with a hidden layer",
        above("head: {use: mlp, start: fitted}"),
        2,
        "head.start: unknown key 'start'",
        "with 'use: linear'",
    ),
    case(
        "N6",
        "a fitted head without kept features",
        checked("head: {start: fitted}\ncache: {features: off}"),
        2,
        "head.start=fitted is not possible: cache.features=off caches no features to fit the head to",
        "set head.start=random",
    ),
    case(
        "N6",
        "a fitted head that is kept",
        checked("head: {start: fitted, keep_pretrained: true}"),
        2,
        "head.start=fitted is not possible: head.keep_pretrained keeps the classifier of the weights",
        "set head.start=random",
    ),
    case("N6", "no checkpoint kept", above("callbacks: [{use: checkpoint, keep: 0}]"), 2, "keep: must be more than 0"),
    case(
        "N6",
        "more stages than there are",
        above("freeze: {use: stages, train: [last 9]}"),
        2,
        "freeze.train[0]: no position 'last 9'; the network has 5 stages below the head",
        "'last 5'",
    ),
    case("N6", "last 0", above("freeze: {use: gradual, schedule: {1: last 0}}"), 2, "schedule.1: no position 'last 0'"),
    case("N6", "misspelt position", above("freeze: {use: stages, train: [lats 2]}"), 2, "did you mean 'last 2'?"),
    case("Y1", "device for the runner", above("runner: cpu"), 2, "got 'cpu'; write {device: cpu}"),
    case(
        "Y1",
        "list for a section",
        above("optimizer: [adamw]"),
        2,
        "optimizer: expected a mapping, got a list",
        "adamw}",
    ),
    case(
        "Y1", "preset for augmentation", above("augment: light"), 2, "augment: expected a list, got 'light'", "NAME is"
    ),
]
