"""A head that is fitted while two processes work: the first fits it, and both go on from the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import drawn
from tests.launch import runs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

TWO = "runner.devices=2"
HEAD = (
    "backbone.weights=fractals",
    "augment=[{use: albumentations}]",
    "freeze={use: head}",
    "train.epochs=auto",
)
LAST = (
    "backbone.weights=fractals",
    "augment=[{use: albumentations}]",
    "freeze={use: gradual, schedule: {1: last 1}}",
    "optimizer={use: adamw}",
    "train.epochs=2",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.folder(tmp_path_factory.mktemp("photos"))


def model(done: runs.Done) -> bytes:
    """Return the file of a run's weights."""
    return (done.folder / "model" / "weights.safetensors").read_bytes()


def shown(done: runs.Done) -> list[str]:
    """Return the lines about the head that was fitted, without the time."""
    lines = [line for line in done.errors.splitlines() if line.startswith(("head fitted: ", "fitted head: "))]
    assert [line.partition(": ")[0] for line in lines] == ["head fitted", "fitted head"]
    assert "(best), " in lines[1]
    return [lines[0], lines[1].rpartition(", ")[0]]


def test_the_head_of_two_processes_is_that_of_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of two processes each has half the cores; the same bits take the same number of BLAS threads.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    said = (f"dataset={{use: folder, root: {photos}}}", *HEAD)  # no split, so that there are folds
    one = runs.run(tmp_path / "one", photos, *said)
    two = runs.run(tmp_path / "two", photos, *said, TWO)
    assert (one.code, two.code) == (0, 0), one.errors + two.errors
    assert (one.result["devices"], two.result["devices"]) == (1, 2)
    for done in (one, two):
        assert "validate.folds=auto chose 5: " in done.errors
        assert "fitting the head to 36 training images in 5 views" in done.errors
        assert (done.result["epochs"], done.result["features"]["computed"]) == (0, 5 * 36)
    assert shown(two) == shown(one)
    assert two.result["fitted"] == one.result["fitted"]
    assert two.history == one.history
    for name, array in one.weights.items():
        np.testing.assert_array_equal(two.weights[name], array, err_msg=name)
    rows = [(done.folder / "out_of_fold.csv").read_text() for done in (one, two)]
    assert rows[0] == rows[1]
    assert runs.remains(tmp_path) == []


def test_two_processes_repeat_what_they_fit_and_train(photos: Path, tmp_path: Path) -> None:
    first, second = (runs.run(tmp_path / name, photos, *LAST, TWO) for name in ("first", "second"))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert [line["trainable"] for line in first.history] == [["head"], *[["layer4", "head"]] * 2]
    assert first.errors.count("optimizer.lr=auto chose ") == 1
    assert first.result["frozen_unchanged"] is True
    assert second.history == first.history
    assert model(second) == model(first)
