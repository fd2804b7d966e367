"""Two and three processes train as one does, and end as one does, whatever happens to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import drawn
from tests.clocks import catches, wait_for
from tests.launch import runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAIR = ("runner.devices=2", "runner.mode=graph")
ENDLESS = ("runner.devices=2", "train.epochs=500")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.folder(tmp_path_factory.mktemp("photos"), each=20)


@pytest.fixture(autouse=True)
def nothing_in_shared_memory() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    yield
    assert {name for name in os.listdir("/dev/shm") if not name.startswith("pymp")} <= before


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Done:
    return runs.run_here(tmp_path_factory.mktemp("alone"), photos)


@pytest.fixture(scope="module")
def pair(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Done:
    blocks = ("runner.sink=2", "runner.pipeline=processes")
    return runs.run(tmp_path_factory.mktemp("pair"), photos, *PAIR, *blocks)


def test_two_processes_end_with_the_weights_of_one(alone: runs.Done, pair: runs.Done) -> None:
    assert (alone.code, pair.code, pair.result["devices"]) == (0, 0, 2), pair.errors
    for name, array in alone.weights.items():
        np.testing.assert_allclose(pair.weights[name], array, atol=1e-5, err_msg=name)
    for one, two in zip(alone.history, pair.history, strict=True):
        assert {**two, "trainable": 0} == pytest.approx({**one, "trainable": 0}, abs=1e-5)


def test_one_display_shows_what_one_process_would(alone: runs.Done, pair: runs.Done) -> None:
    told, expected = ([line for line in each.errors.splitlines() if "epoch" in line] for each in (pair, alone))
    assert len(told) == len(expected)
    assert told[-1].partition(" in ")[0] == "finished  3 epochs" or "epoch 3/3" in told[-1]
    assert not [line for line in pair.errors.splitlines() if "INFO" in line or "WARNING" in line]


def test_every_process_keeps_its_log_in_the_run(pair: runs.Done) -> None:
    logs = {path.name for path in (pair.folder / "logs" / "001").iterdir()}
    assert logs == {"msrun.log", "scheduler.log", "worker_0.log", "worker_1.log"}
    assert not [path for path in pair.folder.parent.iterdir() if path != pair.folder]


@pytest.mark.once
def test_metrics_over_uneven_shares_are_those_of_one_process(photos: Path, tmp_path: Path) -> None:
    # With steps too small to change a weight, every number of the evaluation must be the same to the last bit.
    still = ("optimizer.lr=1e-30", "optimizer.weight_decay=0", "train.epochs=2", "train.batch_size=9")
    one = runs.run_here(tmp_path / "one", photos, *still)
    three = runs.run(tmp_path / "three", photos, *still, "runner.devices=3")
    assert (one.code, three.code) == (0, 0), three.errors
    evaluated = [
        {k: v for k, v in line.items() if k.startswith("val_")} for each in (one, three) for line in each.history
    ]
    assert len(evaluated) == 4
    assert evaluated[:2] == evaluated[2:]


def test_features_are_made_by_all_and_read_by_all(alone: runs.Done, pair: runs.Done) -> None:
    for each in (alone, pair):
        assert (each.result["features"]["computed"], each.result["features"]["reused"]) == (60, 0)


@pytest.mark.once
def test_sigterm_saves_and_a_resumed_run_ends_as_if_nothing_had_been(
    photos: Path, pair: runs.Done, tmp_path: Path
) -> None:
    process = runs.begun(tmp_path, photos, *PAIR)
    folder = runs.after_step(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    cut = runs.ended(process, tmp_path)
    assert cut.code == 143, cut.errors
    assert "saved and stopped in epoch" in cut.errors
    assert runs.remains(tmp_path) == []
    again = runs.run(tmp_path, photos, flags=("--resume", str(folder)))
    assert again.code == 0, again.errors
    for name, array in pair.weights.items():
        np.testing.assert_array_equal(again.weights[name], array, err_msg=name)
    assert (folder / "logs" / "002").is_dir()


@pytest.mark.once
def test_a_killed_process_ends_all_and_the_run_goes_on_with_one(photos: Path, tmp_path: Path) -> None:
    process = runs.begun(tmp_path, photos, *ENDLESS)
    folder = runs.after_step(tmp_path, process)
    os.kill(runs.members(tmp_path)[1], signal.SIGKILL)
    done = runs.ended(process, tmp_path)
    assert done.code == 7
    assert "process 1 of the run was killed by SIGKILL" in done.errors
    assert str(folder / "logs" / "001" / "worker_1.log") in done.errors
    assert runs.remains(tmp_path) == []
    changes = ("runner.devices=1", "train.epochs=4")
    alone = runs.run_here(tmp_path, photos, *changes, flags=("--resume", str(folder), "--allow-changed"))
    assert alone.code == 0, alone.errors
    assert "will not be bit-exact: " in alone.errors
    assert "devices: 2 → 1" in alone.errors


@pytest.mark.once
def test_a_photo_that_is_gone_ends_all_after_the_first_has_saved(photos: Path, tmp_path: Path) -> None:
    own = shutil.copytree(photos, tmp_path / "photos")
    process = runs.begun(tmp_path, own, *ENDLESS, "freeze.use=none", "freeze.batch_norm=frozen")
    folder = runs.after_step(tmp_path, process)
    victim = own / "red" / "00.jpg"
    victim.unlink()
    done = runs.ended(process, tmp_path)
    assert done.code == 3, done.errors
    assert str(victim) in done.errors
    assert f"finetune run --resume {folder.relative_to(tmp_path)}" in done.errors
    assert "saved step" in done.errors
    assert runs.remains(tmp_path) == []


@pytest.mark.once
def test_when_the_parent_is_killed_nothing_is_left(photos: Path, tmp_path: Path) -> None:
    process = runs.begun(tmp_path, photos, *ENDLESS)
    runs.after_step(tmp_path, process)
    process.kill()
    process.communicate()
    wait_for(lambda: runs.remains(tmp_path) == [])


@pytest.mark.once
@pytest.mark.parametrize("seconds", [0.0, pytest.param(2.5, marks=pytest.mark.slow)])
def test_an_interrupt_before_training_leaves_nothing(photos: Path, tmp_path: Path, seconds: float) -> None:
    process = runs.begun(tmp_path, photos, *ENDLESS)
    wait_for(lambda: catches(process.pid, signal.SIGTERM))  # from here on finetune answers for signals
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    done = runs.ended(process, tmp_path)
    assert done.code == 130, done.errors
    assert runs.remains(tmp_path) == []
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


@pytest.mark.once
def test_what_is_wrong_with_the_data_is_said_once_and_nothing_is_begun(photos: Path, tmp_path: Path) -> None:
    done = runs.run(tmp_path, photos / "red", "runner.devices=2")
    assert done.code == 3
    assert done.errors.count("error:") == 1
    assert "worker_" not in done.errors
    assert list((tmp_path / "runs").iterdir()) == []
    assert runs.remains(tmp_path) == []


@pytest.mark.once
def test_real_photos(flowers: Path, tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        for number in ("11", "28", "30", "60", "91"):
            shutil.copytree(flowers / part / number, tmp_path / "photos" / part / number)
    said = ("backbone.weights=fractals", "head.start=random", "image.size=64", "image.resize=72", "freeze.use=head")
    said += ("optimizer.use=adamw", "optimizer.lr=0.01", "train.epochs=6", "train.batch_size=32")
    one = runs.run_here(tmp_path, tmp_path / "photos", *said)
    two = runs.run(tmp_path, tmp_path / "photos", *said, "runner.devices=2")
    assert (one.code, two.code) == (0, 0), two.errors
    accuracies = [json.loads((tmp_path / "runs" / f"shared-00{n}" / "result.json").read_text()) for n in (1, 2)]
    first, second = (each["test_accuracy"] for each in accuracies)
    assert first > 0.5
    assert second == pytest.approx(first, abs=0.05)
