"""Signals inside whole runs: a checkpoint of the step made last, the right exit code, and the same bytes afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from finetune import hookimpl
from finetune.errors import Interrupted
from finetune.training import saving
from finetune.training.judge import Judge
from tests.clocks import LONGEST, wait_for
from tests.faults import signals
from tests.faults.small import recipe
from tests.features.tiny import At, Made, run, terminate

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("graph_mode")


def goes_on(photos: Path, output: Path, step: int, plain: Made) -> None:
    """See that a stopped run was saved at a step, and goes on to the same bits."""
    found = output / "small-001"
    assert saving.load_newest(found / "checkpoints")[0].state["step"] == step
    assert run(recipe(photos, output), resume=found).weights == plain.weights
    assert not list(found.rglob("*.tmp"))


def test_r5_sigterm_in_an_evaluation(
    photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, evaluations = Judge.evaluate, list[str]()

    def interrupted(self: Judge, part: str, check: Any, feed: Any, **more: Any) -> Any:
        evaluations.append(part)
        if len(evaluations) == 2:
            terminate()
        return evaluate(self, part, check, feed, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Judge, "evaluate", interrupted)
        with pytest.raises(Interrupted, match="epoch 2, step 6") as caught:
            run(recipe(photos, tmp_path))
    assert caught.value.exit_code == 143
    goes_on(photos, tmp_path, 6, plain)


def test_r5_sigterm_while_a_checkpoint_is_written(
    photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, asked = saving.save_checkpoint, []

    def slow(*args: Any, **more: Any) -> Path:
        if not asked:
            asked.append(True)
            terminate()
            time.sleep(0.5)
        return save(*args, **more)

    monkeypatch.setattr(saving, "QUICK", 1e9)
    with monkeypatch.context() as patched:
        patched.setattr(saving, "save_checkpoint", slow)
        with pytest.raises(Interrupted):
            run(recipe(photos, tmp_path))
    found = tmp_path / "small-001" / "checkpoints"
    goes_on(photos, tmp_path, saving.load_newest(found)[0].state["step"], plain)


def test_r7_sigterm_as_an_epoch_begins(photos: Path, plain: Made, tmp_path: Path) -> None:
    class First:
        @hookimpl
        def finetune_epoch_start(self, epoch: int) -> None:
            if epoch == 2:
                terminate()

    with pytest.raises(Interrupted):
        run(recipe(photos, tmp_path), watchers=[First()])
    goes_on(photos, tmp_path, saving.load_newest(tmp_path / "small-001" / "checkpoints")[0].state["step"], plain)


def test_r8_a_closed_terminal_saves(photos: Path, plain: Made, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        run(recipe(photos, tmp_path), watchers=[At(lambda: os.kill(os.getpid(), signal.SIGHUP), step=4)])
    assert caught.value.exit_code == 143
    goes_on(photos, tmp_path, 4, plain)


def test_r9_durations_do_not_follow_the_clock(
    photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, jumps = time.time, iter([-86400.0, 365 * 86400.0])

    def jump() -> None:
        by = next(jumps)
        monkeypatch.setattr(time, "time", lambda: clock() + by)

    made = run(recipe(photos, tmp_path), watchers=[At(jump, step=2), At(jump, epoch=2)])
    assert made.weights == plain.weights
    assert all(0 <= line["seconds"] < 600 for line in made.run.history)
    assert saving.load_newest(made.run.folder / "checkpoints")[0].state["step"] == 9


def commanded(place: Path, photos: Path, epochs: int) -> list[str]:
    """Write a recipe, and return the command that runs it."""
    text = signals.RECIPE.format(photos=photos, freeze="head", mode="graph").replace("1000", str(epochs))
    (place / "long.yaml").write_text(text)
    return [sys.executable, "-m", "finetune", "run", "long.yaml"]


def test_r8_a_reader_that_leaves_does_not_end_training(photos: Path, tmp_path: Path) -> None:
    """As in ``finetune run … 2>&1 | head -1``."""
    command = commanded(tmp_path, photos, 3)
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        process.wait(LONGEST)
    assert (tmp_path / "runs" / "long-001" / "result.json").exists()
    assert "Traceback" not in (tmp_path / "runs" / "long-001" / "log.txt").read_text()
    assert process.returncode == 0


@pytest.mark.once
def test_r9_stopped_and_continued(photos: Path, tmp_path: Path) -> None:
    command = commanded(tmp_path, photos, 80)
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / "runs" / "long-001" / "metrics.jsonl").exists, process)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    assert not re.search(r"-\d+:\d\d|-\d+ s", errors)  # no time that is left, or was taken, is negative


def test_w3_few_descriptors_are_enough(photos: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *commanded(tmp_path, photos, 2)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.once
def test_r6_random_moments(photos: Path, tmp_path: Path) -> None:
    for number in range(3):
        about, wrong = signals.tried(number, photos, tmp_path, seed=7)
        assert not wrong, about


@pytest.mark.slow
def test_r6_two_hundred_random_moments(photos: Path, tmp_path: Path) -> None:
    assert [text for number in range(200) for text in signals.tried(number, photos, tmp_path, seed=0)[1]] == []
