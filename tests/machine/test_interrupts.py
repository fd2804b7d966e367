"""Ctrl-C and SIGTERM against the real command line, at several moments of a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from finetune.training.saving import load_newest
from tests.clocks import LONGEST, catches, wait_for
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
backbone: {use: resnext_nano, weights: none}
dataset: {use: folder, root: photos}
image: {size: 32, resize: 36}
augment: []
freeze: {use: none}
train: {epochs: 400, batch_size: 8}
runner: {mode: pynative}
output: runs
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder(tmp_path / "photos")
    (tmp_path / "long.yaml").write_text(RECIPE)
    return tmp_path


def started(place: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "finetune", "run", "long.yaml"]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("signum", "code", "after"),
    [
        (signal.SIGINT, 130, "environment.json"),  # it compiles now
        (signal.SIGINT, 130, "metrics.jsonl"),
        (signal.SIGTERM, 143, "metrics.jsonl"),
    ],
)
def test_a_signal_ends_with_a_checkpoint_and_its_code(
    place: Path, signum: signal.Signals, code: int, after: str
) -> None:
    if after == "environment.json":
        (place / "long.yaml").write_text(RECIPE.replace("pynative", "graph"))
    process = started(place)
    wait_for((place / "runs" / "long-001" / after).exists, process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "saving and stopping" in errors
    assert "--resume" in errors
    saved, broken = load_newest(place / "runs" / "long-001" / "checkpoints")
    assert not broken
    assert saved.state["step"] >= 1
    lines = (
        (place / "runs" / "long-001" / "metrics.jsonl").read_text().splitlines() if after != "environment.json" else []
    )
    assert all(json.loads(line) for line in lines)


def test_a_signal_before_training_leaves_nothing(place: Path) -> None:
    process = started(place)
    wait_for(lambda: catches(process.pid, signal.SIGTERM))  # from here on finetune answers for signals
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


LISTENING = """
import os, signal, sys, time, weakref
from finetune.machine import interrupts
interrupts.listen()
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
"""


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("with interrupts.hold_signals():\n    interrupt()\n    print('whole')\nprint('never')", "whole\n"),
        ("a = type('A', (), {})()\nr = weakref.ref(a, interrupt)\ndel a\ntime.sleep(200)\nprint('never')", ""),
        ("interrupts.mark_taken()\ninterrupt()\nprint('done')", "done\n"),
    ],
    ids=["not inside a whole block", "again where it was lost", "not once all is done"],
)
def test_an_interrupt_outside_of_runs_is_raised_where_it_can_be_answered(code: str, printed: str) -> None:
    wrapped = (
        "try:\n" + "".join(f"    {line}\n" for line in code.splitlines()) + "except KeyboardInterrupt: sys.exit(130)"
    )
    done = subprocess.run(
        [sys.executable, "-c", LISTENING + wrapped], capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert (done.returncode, done.stdout) == (0 if printed == "done\n" else 130, printed), done.stderr


def test_a_second_interrupt_ends_even_a_whole_block() -> None:
    code = "with interrupts.hold_signals():\n    interrupt()\n    interrupt()\n    print('never')"
    done = subprocess.run(
        [sys.executable, "-c", LISTENING + code], capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert "SIGINT again: stopped immediately" in done.stderr
