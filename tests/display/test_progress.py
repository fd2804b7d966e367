"""What a run shows: on a terminal, in a log file, when nobody reads any more."""

from __future__ import annotations

import errno
import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from finetune.display import epochtable
from finetune.display.progress import HEARTBEAT, Pace, Progress
from finetune.display.summary import describe_training, describe_weights, format_path, summarise_result
from finetune.display.terminal import create_console, make_printable
from finetune.recipe.models import Recipe
from finetune.run import Best, Run

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
STEPS = 4


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def new_run(folder: Path, *, metric: str = "accuracy", epochs: int = 3, start: str = "random") -> Run:
    said = {
        "name": "flowers",
        "dataset": {"use": "folder"},
        "train": {"epochs": epochs, "batch_size": 32},
        "evaluate": {"metric": metric},
        "head": {"use": "linear", "start": start},
    }
    return Run(
        folder=folder,
        recipe=Recipe.model_validate(said),
        recipe_text="",
        classes=("daisy", "rose"),
        stages=STAGES,
        device="cpu",
        steps_per_epoch=STEPS,
        images={"train": 120, "valid": 40},
        weights={"source": "hub-v1.1", "loaded": ["a"] * 318, "reinitialised": ["b", "c"], "ignored": []},
    )


def line(epoch: int, **more: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "phase": 1 if epoch == 1 else 2,
        "trainable": ["head"] if epoch == 1 else ["layer4", "head"],
        "train_loss": 2.0 / max(epoch, 1),
        "val_loss": 1.5,
        "val_accuracy": 0.75,
        "lr": 1e-3,
        "images_per_second": 38.25,
        "seconds": 61.0,
        **more,
    }


def drive(progress: Progress, run: Run, clock: Clock, *, step_seconds: float = 1.0) -> None:
    """Fire the events of a run of two epochs."""
    run._say = progress.say
    progress.finetune_run_start(run=run)
    for epoch in (1, 2):
        run.epoch, run.phase = epoch, epoch
        run.trainable = ("head",) if epoch == 1 else ("layer4", "head")
        progress.finetune_epoch_start(run=run, epoch=epoch)
        for _ in range(STEPS):
            clock.time += step_seconds
            run.step += 1
            progress.finetune_step_end(run=run, step=run.step, loss=0.5)
        run.say(f"saved epoch {epoch}")
        if epoch == 1:
            run.best = Best(epoch=1, value=0.75)
        progress.finetune_epoch_end(run=run, epoch=epoch, metrics=line(epoch))


def finish(progress: Progress, run: Run) -> None:
    run.result = {
        "epochs": 2,
        "best": {"epoch": 1, "val_accuracy": 0.75},
        "test_accuracy": 0.5,
        "frozen_unchanged": True,
        "stopped_early": "val_loss has not improved for 5 epochs",
        "seconds": 3723.4,
    }
    progress.finetune_run_end(run=run)


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "flowers-001" / "tensorboard").mkdir(parents=True)
    stream, clock = io.StringIO(), Clock()
    progress = Progress(create_console(stream), now=clock)
    run = new_run(tmp_path / "runs" / "flowers-001")
    drive(progress, run, clock)
    finish(progress, run)
    assert stream.getvalue().splitlines() == [
        "flowers",
        "  images    120 training, 40 validation; 2 classes",
        "  network   resnext50 on cpu, the best available",
        "  weights   hub-v1.1: 318 loaded, 2 reinitialised",
        "  training  3 epochs of 4 steps, batch size 32",
        "  run       runs/flowers-001",
        "phase 1, from epoch 1: training head; frozen: stem, layer1, layer2, layer3, layer4",
        "saved epoch 1",
        "epoch 1/3, phase 1, head: train loss 2.0000, val loss 1.5000, val accuracy 0.7500 (best), lr 1.0e-03, "
        "38.2 images/s, 1:01",
        "phase 2, from epoch 2: training layer4, head; frozen: stem, layer1, layer2, layer3",
        "saved epoch 2",
        "epoch 2/3, phase 2, layer4..head: train loss 1.0000, val loss 1.5000, val accuracy 0.7500, lr 1.0e-03, "
        "38.2 images/s, 1:01",
        "  finished  2 epochs in 1:02:03; stopped early: val_loss has not improved for 5 epochs",
        "  best      epoch 1, val accuracy 0.7500",
        "  test      accuracy 0.5000",
        "  frozen    unchanged",
        "  run       runs/flowers-001",
        "  curves    tensorboard --logdir runs/flowers-001/tensorboard",
        "  predict   finetune predict runs/flowers-001 photo.jpg",
    ]


def test_a_fitted_head_is_epoch_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stream, clock = io.StringIO(), Clock()
    progress = Progress(create_console(stream), now=clock)
    run = new_run(Path("runs") / "flowers-001", epochs=0, start="fitted")
    run.images, run._say = {"train": 120}, progress.say
    progress.finetune_run_start(run=run)
    run.trainable, run.best = ("head",), Best(epoch=0, value=0.75)
    progress.finetune_epoch_start(run=run, epoch=0)
    assert progress._render_bar(run) == "fitting the head 0:00"
    progress.finetune_epoch_end(run=run, epoch=0, metrics=line(0, train_loss=0.25, phase=0, lr=0.0))
    judged = {"method": "folds", "images": 120, "accuracy": 0.75, "accuracy_low": 0.6656, "accuracy_high": 0.8188}
    run.result = {"epochs": 0, "best": {"epoch": 0, "val_accuracy": 0.75}, "seconds": 61.0, "validation": judged}
    progress.finetune_run_end(run=run)
    assert stream.getvalue().splitlines() == [
        "flowers",
        "  images    120 training; 2 classes",
        "  network   resnext50 on cpu, the best available",
        "  weights   hub-v1.1: 318 loaded, 2 reinitialised",
        "  training  the head is fitted to its optimum",
        "  run       runs/flowers-001",
        "fitted head: train loss 0.2500, val loss 1.5000, val accuracy 0.7500 (best), 1:01",
        "  finished  the head is fitted, in 1:01",
        "  best      the fitted head, val accuracy 0.7500",
        "  accuracy  0.7500 (95 % interval 0.666 to 0.819; 120 images, out of fold)",
        "  run       runs/flowers-001",
        "  predict   finetune predict runs/flowers-001 photo.jpg",
    ]
    fitted_first = new_run(tmp_path, epochs=3, start="fitted").recipe
    assert describe_training(fitted_first, 4) == "the head is fitted, then 3 epochs of 4 steps, batch size 32"


def test_a_long_epoch_gives_a_sign_of_life(tmp_path: Path) -> None:
    stream, clock = io.StringIO(), Clock()
    drive(Progress(create_console(stream), now=clock), new_run(tmp_path), clock, step_seconds=HEARTBEAT * 0.6)
    beats = [text for text in stream.getvalue().splitlines() if ", step " in text]
    assert beats[:2] == [
        "epoch 1/3, step 2/4, 0:36 left, 1.67 images/s, loss 0.5000",
        "epoch 1/3, step 4/4, 0:00 left, 1.67 images/s, loss 0.5000",
    ]
    assert "left (run " in beats[2]
    assert len(beats) == 4


def test_a_table_and_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    stream, clock = Terminal(), Clock()
    progress = Progress(create_console(stream), report=False, now=clock)
    run = new_run(tmp_path)
    drive(progress, run, clock)
    assert progress.live is not None
    progress.live.refresh()
    finish(progress, run)
    text = stream.getvalue()
    rows = [row for row in text.splitlines() if "/3 " in row and "0.7500" in row]
    assert len(rows) == 2
    assert rows[0].rstrip("\x1b[0m ").endswith("1:01*")
    assert text.count("epoch phase       trains train loss val loss val acc      lr img/s    time") == 1
    assert text.index("saved epoch 1") < text.index(rows[0]) < text.index("saved epoch 2")
    assert "finishing" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is not shown again"
    assert "predict" not in text


def test_where_the_epoch_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    clock, run = Clock(), new_run(tmp_path)
    for width, expected in ((100, "1/3 step 2/4 0:02 left 30 images/s loss 0.5000"), (34, "1/3 step 2/4 0:02 left")):
        out = Console(file=Terminal(), width=width, force_terminal=False)
        progress = Progress(out, now=clock)
        run.epoch, run.phase, run.trainable, run.step = 1, 1, ("head",), 0
        progress.finetune_epoch_start(run=run, epoch=1)
        assert progress._render_bar(run) == "1/3 compiling 0:00"
        for step in (1, 2):
            clock.time += 1.0
            progress.finetune_step_end(run=run, step=step, loss=0.5)
        with out.capture() as captured:
            out.print(progress._render_bar(run))
        (text,) = captured.get().splitlines()
        assert len(text) <= width
        assert " ".join(word for word in text.split() if word.isascii() and word.strip("-")) == expected
        progress.finetune_step_end(run=run, step=STEPS, loss=0.5)
        assert progress._render_bar(run) == "1/3 evaluating 0:00"


def test_a_reader_that_leaves_does_not_stop_a_run(tmp_path: Path) -> None:
    clock = Clock()
    for stream in (Gone(), closed()):
        progress = Progress(create_console(stream), now=clock)
        run = new_run(tmp_path)
        drive(progress, run, clock)
        finish(progress, run)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def test_an_error_takes_the_bar_down_and_tells_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my run"
    (folder / "checkpoints").mkdir(parents=True)
    for expected in ("", "resume with: finetune run --resume 'my run'\n"):
        stream = io.StringIO()
        Progress(create_console(stream)).finetune_run_error(run=new_run(folder), error=ValueError())
        assert stream.getvalue() == expected
        (folder / "checkpoints" / "1.safetensors").touch()


@given(st.integers(1, 250), st.sampled_from(["accuracy", "loss", "top5", "macro_f1"]), st.integers(1, 99999))
def test_rows_fit_any_terminal(width: int, metric: str, epoch: int) -> None:
    run = new_run(Path("x"), metric=metric, epochs=99999)
    run.stages = (*STAGES[:-1], "a-stage-with-a-long-name", "head")
    columns = epochtable.choose_columns(width, metric)
    said = line(
        epoch, trainable=["stem", "a-stage-with-a-long-name"], seconds=360000.0, val_macro_f1=0.5, val_top5=None
    )
    text = epochtable.format_row(columns, said, run)
    head = epochtable.format_header(columns)
    assert len(text) == len(head) + 1
    assert columns[0].title == "epoch"
    if width >= 9:
        assert len(text) <= width
    if width >= 80 and metric != "accuracy":
        assert metric == "loss" or metric in head


@pytest.mark.parametrize(
    ("trainable", "text"),
    [
        (STAGES, "all"),
        (("head",), "head"),
        (("layer3", "layer4", "head"), "layer3..head"),
        (("layer1", "layer2"), "layer1..layer2"),
        (("layer1", "head"), "layer1,head"),
    ],
)
def test_stages_in_few_characters(trainable: tuple[str, ...], text: str) -> None:
    assert epochtable.abridge_stages(trainable, STAGES) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_clock(seconds: float, text: str) -> None:
    assert epochtable.format_clock(seconds) == text


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60), st.floats(0.0, 1e6))
def test_time_left_is_never_negative(pauses: list[float], wait: float) -> None:
    now = Clock()
    pace = Pace(len(pauses), now=now)
    assert pace.left is None
    for done, pause in enumerate(pauses, 1):
        now.time += pause
        pace.step(done)
        assert pace.left is None or pace.left >= 0.0
    now.time += wait
    assert pace.left is None or pace.left == 0.0
    assert pace.elapsed >= 0.0


def test_the_first_step_does_not_count_as_speed() -> None:
    now = Clock()
    pace = Pace(10, now=now)
    now.time += 100.0  # compiles
    pace.step(1)
    assert pace.rate is None
    now.time += 2.0
    pace.step(2)
    assert (pace.rate, pace.left) == (0.5, 16.0)


def test_weights_in_one_line() -> None:
    assert describe_weights({"source": "none", "loaded": [], "reinitialised": ["a"]}) == "none: 1 reinitialised"


def test_an_outcome_without_evaluation_or_test_split(tmp_path: Path) -> None:
    rows = dict(summarise_result({"epochs": 1, "best": None, "seconds": 5.0}, tmp_path))
    assert rows == {
        "finished": "1 epoch in 0:05",
        "run": str(tmp_path),
        "predict": f"finetune predict {tmp_path} photo.jpg",
    }


def test_paths_are_shown_as_one_types_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert format_path(tmp_path / "runs" / "a b") == "'runs/a b'"
    assert format_path(tmp_path) == str(tmp_path)
    assert format_path(Path("/elsewhere")) == "/elsewhere"


@given(st.text())
def test_text_cannot_steer_a_terminal(text: str) -> None:
    shown = make_printable(text)
    assert all(char in "\n\u200d" or char.isprintable() or unicodedata.category(char) == "Zs" for char in shown)
    if text.isprintable():
        assert shown == text
