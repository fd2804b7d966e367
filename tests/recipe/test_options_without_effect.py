"""Metrics that cannot change are a mistake, and options that can have no effect are reported before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune import Callback, Finding, NoOptions, RunFacts, hookimpl, plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.errors import RecipeError, UsageError
from finetune.plugins import Origin
from finetune.recipe.plan import Plan, load_plan
from finetune.training.check import check
from tests.drawn import folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

TINY = {"backbone": {"use": "resnext_nano", "weights": "none"}, "image": {"size": 32, "resize": 36}, "augment": []}


class Gatherer:
    """Says what it was told of the run."""

    @hookimpl
    def finetune_callbacks(self) -> Iterator[Callback]:
        yield Callback(name="gatherer", options=NoOptions, build=lambda options: Gatherer(), check=self.check)

    def check(self, options: NoOptions, facts: RunFacts) -> Iterator[Finding]:
        text = f"{facts.classes} classes, {facts.steps} steps, constant: {[*facts.constant]}"
        yield Finding(severity="note", subject="", text=text)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    loaded = plugins.load_plugins()
    loaded.register(Gatherer(), Origin(name="gatherer", distribution="gatherer", version="1"))
    return Catalogue(loaded)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"), each=4)


def plan(catalogue: Catalogue, root: object = "photos", **sections: Any) -> Plan:
    train = {"epochs": 10, **sections.pop("train", {})}
    return load_plan(
        {**TINY, "dataset": {"use": "folder", "root": str(root)}, "train": train, **sections}, [], catalogue
    )


STOPPING = {"use": "early_stopping"}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"train": {"epochs": 3}, "schedule": {"warmup_epochs": 3}},
            "schedule.warmup_epochs: the warm-up takes the complete run",
        ),
        (
            {"schedule": {"use": "step"}},
            "schedule.every: no decrease within 10 epochs; lower it, or raise train.epochs",
        ),
        ({"schedule": {"use": "step", "every": 2, "gamma": 1.0}}, "schedule.gamma: a factor of 1 has no effect"),
        ({"schedule": {"final": 1.0}}, "schedule.final: the learning rate never decreases"),
        ({"evaluate": {"every": 11}}, "evaluate.every: only the last of 10 epochs is evaluated"),
        ({"train": {"sync_batch_norm": True}}, "train.sync_batch_norm: no effect on a single device"),
        ({"cache": {"features": "off", "views": 3}}, "cache.views: no effect, because cache.features is off"),
        ({"callbacks": [{"use": "checkpoint", "every": 11}]}, "callbacks[0].every: longer than the run of 10 epochs"),
        ({"callbacks": [{**STOPPING, "patience": 9}]}, "callbacks[0].patience: the run has 10 evaluations, so it"),
        (
            {"callbacks": [STOPPING], "evaluate": {"every": 2}},
            "callbacks[0].patience: the run has 5 evaluations, so it cannot end early; lower patience",
        ),
    ],
)
def test_options_without_effect_are_noted(sections: dict[str, Any], said: str, catalogue: Catalogue) -> None:
    (note,) = plan(catalogue, **sections).notes
    assert said in note


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"train": {"epochs": 1}},
        {"schedule": {"use": "step", "every": 9}},
        {"evaluate": {"every": 10}},
        {"callbacks": [{**STOPPING, "patience": 8}]},
        {"callbacks": [{"use": "checkpoint", "every": "30 minutes"}]},
        {"callbacks": [{**STOPPING, "metric": "loss", "min_delta": 2.0}]},
        {"callbacks": [{**STOPPING, "min_delta": 2.0}]},
    ],
)
def test_options_with_an_effect_are_not(sections: dict[str, Any], catalogue: Catalogue) -> None:
    assert plan(catalogue, **sections).notes == ()


def test_a_delta_that_no_metric_reaches_is_a_mistake(catalogue: Catalogue) -> None:
    with pytest.raises(RecipeError, match=r"callbacks\[0\].min_delta: accuracy is in 0..1, so no evaluation"):
        plan(catalogue, callbacks=[{**STOPPING, "min_delta": 1.0}], evaluate={"metric": "accuracy"})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"evaluate": {"metric": "top5"}}, "evaluate.metric: top5 is always 1 with 3 classes; set accuracy"),
        ({"callbacks": [{**STOPPING, "metric": "val_top5"}]}, r"callbacks\[0\].metric: top5 is always 1 with 3 class"),
    ],
)
def test_metrics_that_cannot_change_are_a_mistake(
    sections: dict[str, Any], said: str, photos: Path, catalogue: Catalogue
) -> None:
    with pytest.raises(UsageError, match=said):
        check(plan(catalogue, photos, **sections), catalogue, say=lambda line: None)


def test_what_the_dataset_decides_is_said(photos: Path, catalogue: Catalogue) -> None:
    lines: list[str] = []
    callbacks = [{"use": "gatherer"}, {"use": "checkpoint", "every": "500 steps"}]
    found = plan(catalogue, photos, callbacks=callbacks, train={"epochs": 2, "batch_size": 4})
    check(found, catalogue, say=lines.append)
    assert "callbacks[0]: 3 classes, 6 steps, constant: ['top5']" in lines
    assert [line for line in lines if "longer than the run of 6 steps" in line] != []


def test_validation_images_of_one_class(tmp_path: Path, catalogue: Catalogue) -> None:
    folder(tmp_path / "train", each=3)
    folder(tmp_path / "valid", each=1)
    for name in ("red", "green"):
        (tmp_path / "valid" / name / "00.jpg").unlink()
        (tmp_path / "valid" / name).rmdir()
    lines: list[str] = []
    check(plan(catalogue, tmp_path), catalogue, say=lines.append)
    assert any("all validation images are of the class 'blue', so val_loss does not measure" in line for line in lines)


def test_top5_ends_the_command_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    network = ["backbone={use: resnext_nano, weights: none}", "image={size: 32, resize: 36}"]
    assert main(["run", "folder", f"dataset.root={photos}", *network, "evaluate.metric=top5"]) == 2
    assert "evaluate.metric: top5 is always 1 with 3 classes" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
