"""What the parent of several processes makes of what they leave, and what it shows of what the first one tells."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from finetune import errors
from finetune.cli import main
from finetune.display.progress import Progress
from finetune.distributed.launch import Launch
from finetune.errors import DataError, Interrupted, RecipeError
from finetune.launch.events import EventReader, EventWriter
from finetune.launch.processes import ProcessDied, Processes
from finetune.recipe.models import Recipe
from finetune.run import Best, Run
from tests import drawn

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

LINE = "[ERROR] ME(1,x):2026 Worker process {} exit with exception. Error code: {}.\n"


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    (tmp_path / "logs").mkdir()
    for rank in range(2):
        (tmp_path / f"rank-{rank}.pid").write_text(str(10_000_000 + rank))
    launch = Launch(device="cpu", size=2, ranks=range(2), node=0, host="127.0.0.1", port=1, timeout=60)
    return Processes(launch=launch, folder=tmp_path, logs=tmp_path / "logs", msrun=ended)


def leave(processes: Processes, rank: int, **said: Any) -> None:
    """Let a process leave its outcome."""
    outcome = {"exit_code": 0, "everywhere": False, "time": 0.0, **said}
    (processes.folder / f"rank-{rank}.json").write_text(json.dumps(outcome))


def die(processes: Processes, rank: int, code: int) -> None:
    """Let MindSpore's launcher see a process end."""
    (processes.logs / "msrun.log").write_text(LINE.format(10_000_000 + rank, code))


def test_all_is_well_where_all_say_so(processes: Processes) -> None:
    assert not processes.is_finished()
    for rank in range(2):
        leave(processes, rank)
    assert processes.is_finished()
    assert processes.is_in_order()
    assert processes.explain_end(0) is None


def test_the_first_that_failed_has_the_word(processes: Processes) -> None:
    leave(processes, 0, exit_code=3, type="DataError", message="photo 7", time=5.0)
    leave(processes, 1, exit_code=3, type="DataError", message="photo 8", time=4.0)
    error = processes.explain_end(0)
    assert isinstance(error, DataError)
    assert str(error) == f"photo 8 (process 1; its log: {processes.logs / 'worker_1.log'})"
    assert processes.has_failed()


def test_what_all_raise_is_said_as_one_process_says_it(processes: Processes) -> None:
    leave(processes, 0, exit_code=1, type="PeerFailed", message="rank 1: photo", everywhere=True, time=1.0)
    leave(processes, 1, exit_code=3, type="DataError", message="photo", everywhere=True, time=2.0)
    error = processes.explain_end(0)
    assert (type(error), str(error), error and error.exit_code) == (DataError, "photo", 3)
    assert processes.is_in_order()


@pytest.mark.parametrize(
    ("code", "exit_code", "how"),
    [
        (-9, 7, "was killed by SIGKILL; the machine may have run out of memory"),
        (-11, 1, "was killed by SIGSEGV"),
        (5, 1, "ended with code 5"),
    ],
)
def test_who_died_without_a_word_is_named(processes: Processes, code: int, exit_code: int, how: str) -> None:
    die(processes, 1, code)
    error = processes.explain_end(0)
    assert isinstance(error, ProcessDied)
    assert error.exit_code == exit_code
    log = processes.logs / "worker_1.log"
    assert str(error) == f"process 1 of the run {how}; all others were stopped; its log: {log}"
    assert processes.has_failed()
    assert not processes.is_in_order()


def test_a_launcher_that_ended_by_itself_is_named(processes: Processes) -> None:
    expected = f"MindSpore's launcher ended with code 0, and all processes with it; its log: {processes.logs}/msrun.log"
    assert str(processes.explain_end(0)) == expected


def test_a_signal_before_training_is_an_interrupt(processes: Processes) -> None:
    error = processes.explain_end(signal.SIGINT)
    assert isinstance(error, Interrupted)
    assert error.exit_code == 130
    leave(processes, 0, exit_code=130, type="KeyboardInterrupt", message="interrupted")
    assert str(processes.explain_end(signal.SIGTERM)) == "stopped before training began; nothing was written"


def test_errors_come_again_as_what_they_were() -> None:
    error = errors.rebuild_error("RecipeError", "one\ntwo", 2)
    assert isinstance(error, RecipeError)
    assert error.mistakes == ("one", "two")
    assert type(errors.rebuild_error("Unheard", "text", 9)) is errors.FinetuneError
    assert type(errors.rebuild_error("annotations", "text", 9)) is errors.FinetuneError


def test_the_screen_shows_what_the_first_process_tells(tmp_path: Path) -> None:
    said = {"dataset": {"use": "none", "token": "***"}, "name": "two", "train": {"epochs": 10, "batch_size": 4}}
    recipe = Recipe.model_validate_json(json.dumps(said))
    out = io.StringIO()
    relay = EventWriter(tmp_path, quiet=False)
    screen = EventReader(tmp_path, Progress(Console(file=out, width=100)))
    screen.update()
    assert screen.run is None
    run = Run(
        folder=tmp_path / "two-001",
        recipe=recipe,
        recipe_text="",
        classes=("a", "b"),
        stages=("stem", "head"),
        device="cpu",
        steps_per_epoch=2,
        images={"train": 8, "valid": 2},
    )
    relay.say("hello")
    relay.finetune_run_start(run)
    run.epoch, run.phase, run.trainable = 1, 1, ("head",)
    relay.finetune_epoch_start(run, epoch=1)
    for run.step in (1, 2):
        relay.finetune_step_end(run, step=run.step, loss=0.5)
    run.best = Best(epoch=1, value=0.75)
    line = {"epoch": 1, "phase": 1, "trainable": ["head"], "train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.75}
    relay.finetune_epoch_end(run, epoch=1, metrics={**line, "lr": 1e-3, "images_per_second": 9.0, "seconds": 1.0})
    relay.finetune_run_end(run)
    relay.finished(run)
    with relay.path.open("a") as file:
        file.write('{"event": "say", "mess')  # cut off in the middle
    screen.update()
    assert screen.run is not None
    assert screen.run.recipe == recipe
    assert (screen.run.classes, screen.run.best, screen.run_folder) == (
        ("a", "b"),
        Best(epoch=1, value=0.75),
        run.folder,
    )
    shown = out.getvalue()
    assert shown.startswith("hello\ntwo\n")
    assert "8 training, 2 validation; 2 classes" in shown
    assert "epoch 1/10, phase 1, head: train loss 0.5000, val loss 0.4000, val accuracy 0.7500 (best)" in shown


def test_a_quiet_relay_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EventWriter(tmp_path, quiet=True).say("hello")
    assert capsys.readouterr().out == "hello\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["ascend", "gpu"])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_device_that_is_not_there_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str, devices: int
) -> None:
    photos = drawn.folder(tmp_path / "photos", each=4)
    (tmp_path / "mine.yaml").write_text(f"dataset: {{use: folder, root: {photos}}}\ntrain: {{batch_size: 32}}\n")
    said = (f"runner.device={device}", f"runner.devices={devices}", "backbone.weights=none", f"output={tmp_path}/runs")
    assert main(["run", str(tmp_path / "mine.yaml"), *said]) == 2
    said_of_it = capsys.readouterr().err
    assert re.search(rf"runner\.device={device} is not available here: /dev/\w+ is missing, so the driver", said_of_it)
    assert f"run `finetune doctor --device {device}` to see what to install; available: cpu" in said_of_it
    assert not (tmp_path / "runs").exists()
