"""A disk that refuses: the previous file stays, the run goes on where it can, and says what to do where it cannot."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from finetune.errors import ResourceError
from finetune.training import saving
from finetune.training.saving import list_checkpoints, load_checkpoint
from tests.faults.small import recipe
from tests.features.tiny import At, Made, run

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint in every epoch, however short that is."""
    monkeypatch.setattr(saving, "QUICK", 1e9)


def full(monkeypatch: pytest.MonkeyPatch, of: str, times: int = 10**6, first: int = 1) -> list[str]:
    """Let the disk be full for files with a text in their path, ``times`` times from the ``first`` on."""
    met: list[str] = []
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if of in path and path.endswith(".tmp"):
            met.append(path)
            if first <= len(met) < first + times:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    return met


def whole(found: Path) -> list[int]:
    """Return the steps of the checkpoints that can be read, and see that nothing half written is left."""
    assert not list(found.rglob("*.tmp"))
    return [load_checkpoint(path).state["step"] for path in list_checkpoints(found / "checkpoints")]


def test_c9_a_checkpoint_in_the_middle(
    photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, ".step-", times=1, first=2)
    made = run(recipe(photos, tmp_path))
    (message,) = made.told("warning: no checkpoint was written: cannot write ")
    assert "the disk is full; free some space" in message
    assert made.weights == plain.weights
    assert whole(made.run.folder)[-1] == 9


def test_c9_the_last_checkpoint(photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, ".step-00000009")
    said: list[str] = []
    with pytest.raises(ResourceError, match=r"cannot write '.*step-00000009.safetensors': the disk is full; free some"):
        run(recipe(photos, tmp_path), say=said.append)
    found = tmp_path / "small-001"
    assert f"free some disk space, then resume with: finetune run --resume {found}" in said
    assert whole(found)[-1] == 6
    monkeypatch.undo()
    assert run(recipe(photos, tmp_path), resume=found).weights == plain.weights


def test_c9_every_checkpoint(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met = full(monkeypatch, ".step-")
    with pytest.raises(ResourceError, match="the disk is full"):
        run(recipe(photos, tmp_path))
    assert len(met) >= 3  # it was tried in every epoch
    assert whole(tmp_path / "small-001") == []


def test_c9_the_history(photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, ".metrics.jsonl", times=2)
    made = run(recipe(photos, tmp_path))
    assert len(made.told("the disk is full; free some space or choose another folder; training continues")) == 2
    assert len((made.run.folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert made.weights == plain.weights


@pytest.mark.parametrize("file", ["weights.safetensors", "model.json", "README.md", "result.json"])
def test_c9_the_model_folder(
    file: str, photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, f".{file}")
    said: list[str] = []
    with pytest.raises(ResourceError, match="the disk is full"):
        run(recipe(photos, tmp_path), say=said.append)
    found = tmp_path / "small-001"
    assert any("resume with: finetune run --resume" in message for message in said)
    monkeypatch.undo()
    made = run(recipe(photos, tmp_path), resume=found)
    assert made.weights == plain.weights
    assert whole(found)[-1] == 9


def test_c10_a_folder_that_is_removed_while_it_is_used(photos: Path, plain: Made, tmp_path: Path) -> None:
    found, what = tmp_path / "small-001", recipe(photos, tmp_path, evaluate={"metric": "accuracy"})
    made = run(what, watchers=[At(lambda: shutil.rmtree(found), step=5)])
    assert made.told(f"warning: {found} was deleted; recreating it")
    assert made.told("the model folder contains the last epoch's weights: no checkpoint of the best epoch was saved")
    assert made.lines == plain.lines
    assert whole(found)[-1] == 9
    assert run(what, resume=found).told("nothing to do")


def test_y7_a_disk_without_room_is_noticed_before(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.training import preflight

    class Usage:
        free, total = 10_000, 10**9

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(ResourceError, match=r"the disk of .* is full; free some space or choose another"):
        run(recipe(photos, tmp_path))
    monkeypatch.setattr(preflight, "LEAST", 0.0)
    with pytest.raises(ResourceError, match=r"checkpoints need .* free some disk space or set --output"):
        run(recipe(photos, tmp_path))
    assert not list(tmp_path.iterdir())
