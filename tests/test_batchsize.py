"""``train.batch_size: auto``: what bounds it, and that a run keeps what was chosen."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.errors import Interrupted
from finetune.recipe import plan as plans
from finetune.training import batchsize, engine
from tests.drawn import folder
from tests.test_engine import Watcher, recipe, weights
from tests.trunk import tiny

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("images", "each", "memory", "processes", "size", "why"),
    [
        (100_000, 1.0, 10_000.0, 1, 256, "256 is the most"),
        (1_000, 1.0, 10_000.0, 1, 64, "an epoch of 1,000 images is to have 8 steps"),
        (100_000, 100.0, 1_000.0, 1, 8, "1,000 MB hold as many images of 100.0 MB"),
        (100_000, 100.0, 1_000.0, 4, 32, "1,000 MB hold as many images of 100.0 MB"),
        (100_000, 100.0, 10.0, 2, 2, "10 MB hold as many images of 100.0 MB"),
        (5, 1.0, None, 1, 1, "an epoch of 5 images is to have 8 steps"),
        (100_000, 0.0, None, 3, 192, "256 is the most"),
    ],
)
def test_what_bounds_it(images: int, each: float, memory: float | None, processes: int, size: int, why: str) -> None:
    assert batchsize.chosen(images, each, memory, processes) == (size, why)


@pytest.mark.once
def test_a_run_keeps_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, said = tiny.catalogue(), recipe(folder(tmp_path / "photos", each=40), tmp_path)
    said |= {"train": {"epochs": 2, "batch_size": "auto"}, "freeze": {"use": "none"}}
    heard: list[str] = []

    def run(**more: Any) -> Any:
        return engine.fine_tune(plans.load(said, [], catalogue), catalogue, say=heard.append, **more)

    whole = run()
    assert whole.recipe.train.batch_size == 8
    assert "train.batch_size=auto chose 8: an epoch of 96 images is to have 8 steps" in heard
    assert "batch_size: 8" in (whole.folder / "recipe.yaml").read_text()
    with pytest.raises(Interrupted):
        run(watchers=[Watcher(("step_end", 5), lambda: os.kill(os.getpid(), signal.SIGTERM))])
    monkeypatch.setattr(batchsize, "available_memory_mb", lambda: 1.0)  # now another would be chosen
    assert weights(run(resume=tmp_path / "small-002")) == weights(whole)


@pytest.mark.once
def test_what_stages_return_is_counted_and_grows_with_the_area(tmp_path: Path) -> None:
    from finetune.devices import device
    from finetune.training.prepare import prepare

    device.setup(device="cpu")
    catalogue, said = Catalogue(plugins.load()), recipe(folder(tmp_path / "photos"), tmp_path)
    said["backbone"]["use"] = "resnext_nano"
    network = prepare(plans.load(said, [], catalogue), catalogue, say=lambda message: None).network
    whole = batchsize.activations(network, 0, 128)
    assert batchsize.activations(network, 0, 256) == 4 * whole
    assert 0 < batchsize.activations(network, 4, 128) < whole / 5
