"""What a run that starts with a fitted head still does: resume, extend, stop early, and average weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune.errors import Interrupted
from tests.drawn import folder
from tests.features import tiny
from tests.training import pretrained

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]

HEAD = {"use": "head"}  # which compiles in no time


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("fitted") / "photos")


def resumed(photos: Path, output: Path, watcher: tiny.At, **sections: Any) -> tiny.Made:
    """Stop a run where the watcher does, and return it as it ends once it is resumed."""
    said = pretrained.recipe(photos, output, **sections)
    with pytest.raises(Interrupted):
        tiny.run(said, watchers=[watcher])
    stopped = output / "small-001"
    return tiny.run(said, resume=stopped)


@pytest.mark.parametrize(
    "at", [{"epoch": 0}, {"step": 1, "epoch": -1}, {"step": 6, "epoch": -1}], ids=["epoch 0", "step 1", "step 6"]
)
def test_a_run_that_is_stopped_ends_as_one_that_is_not(photos: Path, tmp_path: Path, at: dict[str, int]) -> None:
    sections = {"freeze": HEAD, "train": {"epochs": 2, "ema": 0.9}}
    whole = pretrained.run(photos, tmp_path / "whole", **sections)
    again = resumed(photos, tmp_path / "stopped", tiny.At(tiny.terminate, **at), **sections)
    assert again.weights == whole.weights
    assert again.lines == whole.lines
    assert again.run.recipe.optimizer.lr == whole.run.recipe.optimizer.lr
    texts = [(made.run.folder / "recipe.yaml").read_text() for made in (whole, again)]
    assert texts[0].replace(str(tmp_path / "whole"), str(tmp_path / "stopped")) == texts[1]


def test_a_rate_that_only_the_checkpoint_knows_is_kept(photos: Path, tmp_path: Path) -> None:
    """As where a run is killed after the checkpoint and before its recipe was written."""
    sections = {"freeze": HEAD, "train": {"epochs": 2}}
    whole = pretrained.run(photos, tmp_path / "whole", **sections)
    said = pretrained.recipe(photos, tmp_path / "stopped", **sections)
    with pytest.raises(Interrupted):
        tiny.run(said, watchers=[tiny.At(tiny.terminate, step=1, epoch=-1)])
    written = tmp_path / "stopped" / "small-001" / "recipe.yaml"
    rate = whole.run.recipe.optimizer.lr
    text = written.read_text()
    assert f"lr: {rate}" in text
    written.write_text(text.replace(f"lr: {rate}", "lr: auto"))
    again = tiny.run(said, resume=written.parent)
    assert again.weights == whole.weights
    assert again.told("optimizer.lr=auto") == []
    assert written.read_text() == text


def test_a_head_that_was_judged_by_folds_can_be_trained_on(photos: Path, tmp_path: Path) -> None:
    fitted = pretrained.run(photos, tmp_path, freeze=HEAD, train={"epochs": "auto"})
    assert fitted.run.result is not None
    assert fitted.run.result["validation"]["images"] == 36
    said = pretrained.recipe(photos, tmp_path, freeze=HEAD, train={"epochs": "auto"})
    more = tiny.run(said, resume=fitted.run.folder, extend=1)
    assert [line["epoch"] for line in more.run.history] == [0, 1]
    assert len(more.told("optimizer.lr=auto chose")) == 1
    assert more.run.result is not None
    assert more.run.result["best"] is None  # nothing was held back to choose an epoch by
    assert "accuracy" not in more.run.result["validation"]  # which was that of the fitted head


def test_early_stopping_counts_from_the_fitted_head(photos: Path, tmp_path: Path) -> None:
    stopping = [{"use": "early_stopping", "patience": 1, "min_delta": 1000.0, "metric": "loss"}]
    made = pretrained.run(photos, tmp_path, freeze=HEAD, train={"epochs": 3}, callbacks=stopping)
    assert [line["epoch"] for line in made.run.history] == [0, 1]
    assert made.run.result is not None
    assert made.run.result["stopped_early"].startswith("val_loss did not improve for 1 evaluation; best ")
    assert made.run.result["stopped_early"].endswith(" in epoch 0")


def test_the_moving_average_begins_with_the_fitted_head(photos: Path, tmp_path: Path) -> None:
    plain, averaged = (
        pretrained.run(photos, tmp_path, freeze=HEAD, train={"epochs": 1, **ema}) for ema in ({}, {"ema": 0.999})
    )
    assert plain.lines[0] == averaged.lines[0]
