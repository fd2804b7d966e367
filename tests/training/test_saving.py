"""Checkpoints beside training: nothing is lost, errors reach the run, one is written at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.errors import ResourceError
from finetune.training import saving
from finetune.training.saving import CheckpointWriter, Snapshot

if TYPE_CHECKING:
    from pathlib import Path


def snapshot(step: int, *, best: bool = False) -> Snapshot:
    state = {"step": step, "epoch": step, "done": 0}
    return Snapshot({"network/a": np.full(3, step, np.float32)}, state, best=best)


def saver(folder: Path, said: list[str] | None = None) -> CheckpointWriter:
    return CheckpointWriter(folder, (said if said is not None else []).append)


def kept(folder: Path) -> list[int]:
    return [saving.load_checkpoint(path).state["step"] for path in saving.list_checkpoints(folder)]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what every checkpoint waits for in the middle of its writing."""
    opened, save = threading.Event(), saving.save_checkpoint

    def waiting(*arguments: Any, **more: Any) -> Path:
        assert opened.wait(20)
        return save(*arguments, **more)

    monkeypatch.setattr(saving, "save_checkpoint", waiting)
    return opened


def test_the_run_goes_on_while_a_checkpoint_is_written(tmp_path: Path, gate: threading.Event) -> None:
    made = saver(tmp_path)
    made.begin(snapshot(1))
    assert made.take_finished() == []
    assert not made.is_due()
    gate.set()
    made.join()
    assert made.take_finished() == [(1, tmp_path / "step-00000001.safetensors", False)]
    assert made.take_finished() == []
    assert made.is_due()


def test_one_is_written_at_a_time_and_the_newest_stay(tmp_path: Path) -> None:
    made = saver(tmp_path)
    for step in range(1, 6):
        made.begin(snapshot(step, best=step == 2))
    made.join()
    assert [epoch for epoch, _, _ in made.take_finished()] == [1, 2, 3, 4, 5]
    assert kept(tmp_path) == [4, 5]
    assert saving.load_checkpoint(tmp_path / saving.BEST).state["step"] == 2


def test_the_best_epoch_waits_in_memory_and_is_written_with_the_next(tmp_path: Path) -> None:
    made = saver(tmp_path)
    made.hold(snapshot(3, best=True))
    made.write(snapshot(5))
    assert [(epoch, best) for epoch, _, best in made.take_finished()] == [(3, True), (5, False)]
    assert kept(tmp_path) == [3, 5]
    made.hold(snapshot(6, best=True))
    made.write(snapshot(7, best=True))  # which is better still
    assert [epoch for epoch, _, _ in made.take_finished()] == [7]
    made.hold(snapshot(8, best=True))
    made.flush()
    made.flush()
    assert [epoch for epoch, _, _ in made.take_finished()] == [8]


def refused(monkeypatch: pytest.MonkeyPatch, error: BaseException, steps: set[int]) -> None:
    """Let the disk refuse some checkpoints once."""
    save = saving.save_checkpoint

    def refuse(folder: Path, arrays: Any, state: dict[str, Any], **more: Any) -> Path:
        if state["step"] in steps:
            steps.remove(state["step"])
            raise error
        return save(folder, arrays, state, **more)

    monkeypatch.setattr(saving, "save_checkpoint", refuse)


def test_a_full_disk_is_said_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(monkeypatch, ResourceError("cannot write 'x': the disk is full"), {1, 4})
    said: list[str] = []
    made = saver(tmp_path, said)
    monkeypatch.setattr(saving, "QUICK", -1.0)
    made.begin(snapshot(1, best=True))
    made.join()
    assert made.take_finished() == []
    assert said == [
        "warning: no checkpoint was written: cannot write 'x': the disk is full; training continues and will retry"
    ]
    assert made.is_due()
    made.begin(snapshot(2))
    made.join()
    assert [(epoch, best) for epoch, _, best in made.take_finished()] == [(1, True), (2, False)]
    assert len(said) == 1
    assert not made.is_due()  # it has just been written
    with pytest.raises(ResourceError, match="the disk is full"):
        made.write(snapshot(4))


def test_any_other_error_reaches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(monkeypatch, ValueError("NaN is no JSON"), {1})
    made = saver(tmp_path)
    made.begin(snapshot(1))
    made.join()
    with pytest.raises(ValueError, match="NaN is no JSON"):
        made.take_finished()
