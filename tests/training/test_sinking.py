"""Steps that are sent to the device in blocks, their inputs made by MindSpore's dataset pipeline."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.components import Encoded, ImageSpec
from finetune.data import pipeline
from finetune.data.images import decode
from finetune.errors import DataError, Interrupted, PluginError
from finetune.recipe import plan as plans
from tests.clocks import LONGEST, wait_for
from tests.drawn import folder
from tests.features import tiny
from tests.training.test_engine import Watcher, recipe, run, weights

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.run import Run

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]
PLAIN = {"mode": "pynative"}  # nothing to compile; two processes train in blocks in graph mode (tests/parallel)
ALL = {"use": "gradual", "schedule": {1: "all"}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return tiny.catalogue()


def made(photos: Path, output: Path, catalogue: Catalogue, *, watcher: Watcher, **sections: Any) -> Run:
    said = recipe(photos, output, freeze=ALL, **sections)
    return run(said, catalogue, watchers=[watcher])


def heard(watcher: Watcher) -> list[str]:
    """Return the events, without those of checkpoints, which are written beside the steps."""
    return [event for event in watcher.events if event != "checkpoint_saved"]


@pytest.fixture(scope="module")
def plain(photos: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Watcher]:
    watcher = Watcher()
    return made(photos, tmp_path_factory.mktemp("plain"), catalogue, watcher=watcher, runner=PLAIN), watcher


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_blocks_change_nothing(
    how: str, plain: tuple[Run, Watcher], photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    watcher = Watcher()
    runner = {"sink": 2, "pipeline": how, "workers": 2, **PLAIN}
    run = made(photos, tmp_path, catalogue, watcher=watcher, runner=runner)
    assert weights(run) == weights(plain[0])
    assert heard(watcher) == heard(plain[1])
    assert [line["train_loss"] for line in run.history] == [line["train_loss"] for line in plain[0].history]


def test_native(photos: Path, catalogue: Catalogue, tmp_path: Path, plain: tuple[Run, Watcher]) -> None:
    runner = {"sink": 3, "workers": 2, **PLAIN}
    one, two = (made(photos, tmp_path, catalogue, watcher=Watcher(), runner=runner) for _ in range(2))
    assert weights(one) == weights(two) != weights(plain[0])
    assert one.history[-1]["train_loss"] < one.history[0]["train_loss"]


def test_a_stopped_run_goes_on_to_the_same_bits(
    plain: tuple[Run, Watcher], photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    said = recipe(photos, tmp_path, freeze=ALL, runner={"sink": 2, "pipeline": "threads", **PLAIN})
    watcher = Watcher(("step_end", 3), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="in epoch 1, step 4"):  # where the block ends
        run(said, catalogue, watchers=[watcher])
    assert weights(run(said, catalogue, resume=tmp_path / "small-001")) == weights(plain[0])


def fail() -> None:
    raise ValueError("no")


def test_a_plugin_that_fails_inside_a_block_loses_nothing(photos: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    sections = {"freeze": ALL, "evaluate": {"restore_best": False}}
    whole = run(recipe(photos, tmp_path / "whole", **sections, runner=PLAIN), catalogue)
    said = recipe(photos, tmp_path, **sections, runner={"sink": 4, "pipeline": "threads", **PLAIN})
    with pytest.raises(PluginError, match="ValueError: no"):
        run(said, catalogue, watchers=[Watcher(("step_end", 2), fail)])
    assert weights(run(said, catalogue, resume=tmp_path / "small-001")) == weights(whole)


@pytest.mark.parametrize("how", ["native", "processes", "threads"])
def test_a_photo_that_is_gone_is_named(how: str, catalogue: Catalogue, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos")
    said = recipe(photos, tmp_path, freeze=ALL, runner={"sink": 1, "pipeline": how, "workers": 2, **PLAIN})
    watcher = Watcher(("run_start", 0), lambda: [path.unlink() for path in photos.glob("red/0*.jpg")])
    with pytest.raises(DataError, match=r"red/0\d\.jpg' does not exist"):
        run(said, catalogue, watchers=[watcher])


def test_accumulated_steps_are_not_sunk(photos: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    said = recipe(photos, tmp_path, freeze=ALL, train={"epochs": 1, "batch_size": 4, "accumulate": 2})
    heard: list[str] = []
    from finetune.training import engine

    engine.fine_tune(
        plans.load_plan(said, ["runner.sink=2", "runner.mode=pynative"], catalogue), catalogue, say=heard.append
    )
    assert "runner.sink=2 is not used: train.accumulate sums gradients step by step" in heard


def test_a_signal_ends_a_sunk_run_and_its_workers(photos: Path, tmp_path: Path) -> None:
    said = recipe(photos, tmp_path / "runs", freeze=ALL, train={"epochs": 1000, "batch_size": 8})
    said["backbone"]["use"] = "resnext_nano"
    said["image"] = {"size": 32, "resize": 36}
    said["runner"] = {"sink": 2, "pipeline": "processes", "workers": 2, **PLAIN}
    (tmp_path / "long.yaml").write_text(json.dumps(said))
    command = [sys.executable, "-m", "finetune", "run", "long.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        begun = tmp_path / "runs" / "small-001" / "metrics.jsonl"
        wait_for(begun.exists, process)
        process.terminate()
        told = process.communicate(timeout=LONGEST)[1]
    assert process.returncode == 143, told
    assert "saved and stopped" in told
    wait_for(lambda: not alive(process.pid))


def alive(group: int) -> bool:
    """Tell whether a process group has any process left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


FORMS: dict[str, Any] = {
    "plain": lambda image, file: image.save(file, "JPEG", quality=95),
    "grey": lambda image, file: image.convert("L").save(file, "JPEG"),
    "turned": lambda image, file: image.save(file, "JPEG", exif=turned()),
    "transparent": lambda image, file: image.convert("RGBA").save(file, "PNG"),
}


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_mindspore_decodes_what_the_loader_decodes(form: str) -> None:
    from mindspore.dataset import vision

    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).resize((160, 120))
    file = io.BytesIO()
    FORMS[form](drawn, file)
    source = Encoded(name="a photo", data=file.getvalue())
    spec = ImageSpec(size=64, resize=72)
    decoded = vision.Decode()(np.frombuffer(pipeline.encode_plain(source, spec), np.uint8))
    np.testing.assert_array_equal(decoded, decode(source, spec.background))
