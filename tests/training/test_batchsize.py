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
from finetune.training import batchsize, defaults, engine
from tests.drawn import folder
from tests.features import tiny
from tests.training.test_engine import Watcher, recipe, weights

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("images", "processes", "size"),
    [(5, 1, 8), (160, 1, 8), (300, 1, 16), (1_000, 1, 32), (100_000, 1, 64), (100_000, 3, 48), (20, 4, 8), (9, 16, 16)],
)
def test_the_number_of_images_decides(images: int, processes: int, size: int) -> None:
    assert defaults.choose_batch_size(images, processes) == size


@pytest.mark.parametrize(
    ("size", "each", "memory", "processes", "fits", "why"),
    [
        (64, 1.0, 10_000.0, 1, 64, "few"),
        (64, 100.0, 1_000.0, 1, 8, "1,000 MB of memory fit this many images of 100.0 MB"),
        (64, 100.0, 1_000.0, 4, 32, "1,000 MB of memory fit this many images of 100.0 MB"),
        (64, 100.0, 10.0, 2, 2, "10 MB of memory fit this many images of 100.0 MB"),
        (64, 1.0, None, 1, 64, "few"),
        (48, 0.0, 1.0, 3, 48, "few"),
    ],
)
def test_the_memory_bounds_it(
    size: int, each: float, memory: float | None, processes: int, fits: int, why: str
) -> None:
    assert batchsize.limit_size(size, "few", each, memory, processes) == (fits, why)


@pytest.mark.once
def test_a_run_keeps_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, said = tiny.catalogue(), recipe(folder(tmp_path / "photos", each=40), tmp_path)
    said |= {"train": {"epochs": 2, "batch_size": "auto"}, "freeze": {"use": "none"}}
    heard: list[str] = []

    def run(**more: Any) -> Any:
        return engine.fine_tune(plans.load_plan(said, [], catalogue), catalogue, say=heard.append, **more)

    whole = run()
    assert whole.recipe.train.batch_size == 8
    assert "train.batch_size=auto chose 8: chosen by the number of images" in heard
    assert "batch_size: 8" in (whole.folder / "recipe.yaml").read_text()
    with pytest.raises(Interrupted):
        run(watchers=[Watcher(("step_end", 5), lambda: os.kill(os.getpid(), signal.SIGTERM))])
    monkeypatch.setattr(batchsize, "read_available_memory_mb", lambda: 1.0)  # now another would be chosen
    assert weights(run(resume=tmp_path / "small-002")) == weights(whole)


@pytest.mark.once
def test_what_stages_return_is_counted_and_grows_with_the_area(tmp_path: Path) -> None:
    from finetune.machine import device
    from finetune.training.prepare import prepare

    device.set_up(device="cpu")
    catalogue, said = Catalogue(plugins.load_plugins()), recipe(folder(tmp_path / "photos"), tmp_path)
    said["backbone"]["use"] = "resnext_nano"
    network = prepare(plans.load_plan(said, [], catalogue), catalogue, say=lambda message: None).network
    whole = batchsize.measure_activations(network, 0, 128)
    assert batchsize.measure_activations(network, 0, 256) == 4 * whole
    assert 0 < batchsize.measure_activations(network, 4, 128) < whole / 5
