"""Finetuner.fine_tune: the head at its optimum first, then everything, at a rate and for as long as the data asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune import Finetuner
from tests.finetuner.small import planned, tiny_finetuner

if TYPE_CHECKING:
    from pathlib import Path

PRETRAINED = {"backbone": {"use": "resnext_nano", "weights": "fractals"}, "image": {"size": 32, "resize": 36}}
HEAD_FIRST = {"use": "gradual", "schedule": {1: "head", 2: "all"}}


class Asked(Finetuner):
    """Keeps what a fit is asked for."""

    def fit(self, data: Any, **said: Any) -> Any:
        self.said = said


def asked(photos: Path, sections: dict[str, Any], **said: Any) -> dict[str, Any]:
    ft = Asked(progress=False, **sections)
    ft.fine_tune(photos, **said)
    return ft.said


def test_what_is_left_out_follows_the_data(photos: Path) -> None:
    said = asked(photos, PRETRAINED)
    assert said["epochs"] is None
    assert said["freeze"] == {"use": "none"}
    assert said["optimizer"] == {"use": "adamw", "layer_decay": 0.5}


@pytest.mark.parametrize(
    ("sections", "said", "freeze", "epochs"),
    [
        (PRETRAINED, {"epochs": 3}, {"use": "none"}, 3),
        (PRETRAINED, {"epochs": 3, "freeze_epochs": 0}, {"use": "none"}, 3),
        (PRETRAINED, {"epochs": 3, "freeze_epochs": 2}, {"use": "gradual", "schedule": {1: "head", 3: "all"}}, 5),
        (PRETRAINED, {"freeze_epochs": 1}, HEAD_FIRST, None),
        (PRETRAINED, {"freeze": "head"}, {"use": "head"}, None),
        (PRETRAINED, {"head": {"start": "random"}}, HEAD_FIRST, None),  # it has to learn something first
        ({**PRETRAINED, "head": {"use": "mlp"}}, {"epochs": 2}, HEAD_FIRST, 3),
        ({**PRETRAINED, "cache": {"features": "off"}}, {"epochs": 2}, HEAD_FIRST, 3),
        ({"backbone": {"use": "resnext_nano", "weights": "none"}}, {}, HEAD_FIRST, None),
    ],
)
def test_what_is_given_means_what_it_says(
    photos: Path, sections: dict[str, Any], said: dict[str, Any], freeze: dict[str, Any], epochs: int | None
) -> None:
    found = asked(photos, sections, **said)
    assert found["freeze"] == freeze
    assert found["epochs"] == epochs


def test_a_rate_is_that_of_the_head(photos: Path) -> None:
    said = asked(photos, PRETRAINED, base_lr=1e-3, optimizer={"weight_decay": 0.0})
    assert said["optimizer"] == {"use": "adamw", "layer_decay": 0.5, "lr": 1e-3, "weight_decay": 0.0}


def test_the_head_is_fitted_and_then_everything_trains(photos: Path, tmp_path: Path) -> None:
    ft = Finetuner(**PRETRAINED, output=tmp_path, progress=False, callbacks=[], augment=[])
    run = ft.fine_tune(photos, epochs=1, train={"batch_size": 8})
    assert [(line["epoch"], line["trainable"]) for line in ft.history] == [(0, ["head"]), (1, [*run.stages])]
    optimizer = planned(run)["optimizer"]
    assert 0 < optimizer["lr"] <= 1e-3
    assert optimizer["layer_decay"] == 0.5
    assert run.best is not None
    best = min(line["val_loss"] for line in ft.history)
    assert run.best.value == best <= ft.history[0]["val_loss"]


def test_a_head_that_starts_at_random_trains_alone_first(photos: Path, tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path)
    run = ft.fine_tune(photos, epochs=1, freeze_epochs=1, base_lr=1e-3, optimizer={"weight_decay": 0.0})
    assert [line["trainable"] for line in ft.history] == [["head"], [*run.stages]]
    optimizer = planned(run)["optimizer"]
    assert (optimizer["lr"], optimizer["layer_decay"], optimizer["weight_decay"]) == (1e-3, 0.5, 0.0)
