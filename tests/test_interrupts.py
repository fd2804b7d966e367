"""Ctrl-C and SIGTERM against the real command line, at several moments of a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from finetune.training.checkpoint import newest
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


def wait_for(path: Path, seconds: float = 60) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


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
    process = started(place)
    wait_for(place / "runs" / "long-001" / after)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "saving, then stopping" in errors
    assert "--resume" in errors
    saved, broken = newest(place / "runs" / "long-001" / "checkpoints")
    assert not broken
    assert saved.state["step"] >= 1
    lines = (
        (place / "runs" / "long-001" / "metrics.jsonl").read_text().splitlines() if after != "environment.json" else []
    )
    assert all(json.loads(line) for line in lines)


def test_a_signal_before_training_leaves_nothing(place: Path) -> None:
    process = started(place)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
