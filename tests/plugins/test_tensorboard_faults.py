"""TensorBoard's writer on disks that are gone, full or hung: a run never stops for it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from finetune_plugins import tensorboard
from finetune_plugins.tensorboard import EventFile
from tests.clocks import LONGEST
from tests.plugins.test_tensorboard import (
    FireOn,
    MakeRun,
    accumulators,
    callback,
    logged,
    play,
    said,
    steps,
    with_pictures,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_that_cannot_be_made_gives_one_warning(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    run.folder.mkdir()
    (run.folder / "tensorboard").write_text("a file where the folder should be")
    play(with_pictures(run), fire_on(callback()))
    assert 1 <= len(said(run)) <= 2
    assert "logging incomplete (FileExistsError: " in said(run)[-1]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from finetune.recipe.models import Recipe
from finetune.run import Run
from finetune_plugins.tensorboard import TensorBoard, build

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
said = {"dataset": {"use": "shapes"}, "train": {"epochs": 10, "batch_size": 32}}
recipe = Recipe.model_validate(said)
run = Run(folder=Path(sys.argv[1]), recipe=recipe, recipe_text="", classes=("a",), stages=("head",), device="cpu",
          steps_per_epoch=1000, images={"train": 32_000}, learning_rates={"head": 0.1})
run._say = lambda message: print(message, flush=True)
callback = build(TensorBoard())
callback.finetune_run_start(run)
for step in range(1, 10_001):
    run.step = step
    callback.finetune_step_end(run, step, 0.5)
callback.finetune_run_end(run)
print("finished")
"""


def test_a_full_disk_neither_stops_nor_hangs_a_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *warnings, end, finished = done.stdout.splitlines()
    assert len(warnings) <= 1
    assert end == "tensorboard: logging incomplete (OSError: [Errno 27] File too large)"
    assert finished == "finished"


def test_a_killed_process_loses_only_the_tail(tmp_path: Path, new_run: MakeRun) -> None:
    script = FULL_DISK.replace("resource.setrlimit", "# ").replace("callback.finetune_run_end(run)", KILL)
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    assert subprocess.run(command, capture_output=True, timeout=LONGEST, check=False).returncode == -9
    found = logged(new_run(), "step/loss")
    assert len(found) > 100
    assert found == list(range(1, len(found) + 1))


KILL = """
import os, time
while not any(path.stat().st_size > 20_000 for path in run.folder.rglob("events*")):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_hung_disk_does_not_hang_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung, answer, returned = threading.Event(), threading.Event(), threading.Event()
    file = EventFile(tmp_path)

    def wait() -> None:
        hung.set()
        answer.wait(LONGEST)
        returned.set()
        raise TimeoutError

    file.put(1, wait)
    assert hung.wait(LONGEST)
    file.put(2, wait)
    assert file.failure is None
    monkeypatch.setattr(tensorboard, "STALLED", 0.2)
    time.sleep(0.3)
    file.put(3, wait)
    assert file.failure == "the disk has not answered for 0.2 seconds"
    file.close()
    assert not returned.is_set()  # the file is closed while the disk still hangs
    answer.set()


def test_closing_gives_up_on_a_hung_disk(tmp_path: Path) -> None:
    answer = threading.Event()
    file = EventFile(tmp_path)
    file.put(1, lambda: answer.wait(LONGEST))
    file.close(patience=0.3)
    assert file.failure == "the disk has not answered for 0.3 seconds"
    answer.set()


def test_steps_faster_than_the_disk_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboardX.proto.summary_pb2 import Summary

    monkeypatch.setattr(tensorboard, "WAITING", 10)
    file = EventFile(tmp_path)

    def slow() -> Any:
        time.sleep(0.001)
        return Summary(value=[Summary.Value(tag="x", simple_value=1.0)])

    for step in range(100):
        file.put(step, slow)
    file.close()
    assert file.failure is None
    shown = accumulators.EventAccumulator(str(tmp_path), {"scalars": 0}).Reload()
    assert steps(shown.Scalars("x")) == list(range(100))


def test_a_hung_disk_holds_a_full_queue_for_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "WAITING", 10)
    monkeypatch.setattr(tensorboard, "STALLED", 0.5)
    answer, returned = threading.Event(), threading.Event()
    file = EventFile(tmp_path)

    def wait() -> None:
        answer.wait(LONGEST)
        returned.set()

    for step in range(1000):
        file.put(step, wait)
    assert not returned.is_set()  # all steps are over while the disk still hangs
    assert file.failure == "the disk has not answered for 0.5 seconds"
    answer.set()


@pytest.mark.parametrize("source", ["_augmented", "_predictions"])
def test_pictures_that_cannot_be_had_give_one_warning(new_run: MakeRun, fire_on: FireOn, source: str) -> None:
    run = with_pictures(new_run())

    def fail(count: int) -> list[Any]:
        raise ValueError("no such photo")

    setattr(run, source, fail)
    play(run, fire_on(callback()))
    assert len(said(run)) == 2
    assert said(run)[1] == "tensorboard: logging incomplete (ValueError: no such photo)"


def test_no_thread_to_be_had_gives_one_warning(
    new_run: MakeRun, fire_on: FireOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    run = play(with_pictures(new_run()), fire_on(callback()))
    assert len(said(run)) == 2
    assert "can't start new thread" in said(run)[0]
