"""Whole runs on small photos, in this process: what they write, repeat, resume, refuse."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import hookimpl
from finetune.errors import DataError, DivergedError, Interrupted, PluginError, UsageError
from finetune.recipe import plan as plans
from finetune.weights.formats import tensorfile
from tests.drawn import folder
from tests.features import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.run import Run

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return tiny.catalogue()


def recipe(photos: Path, output: Path, **sections: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "output": str(output),
        "backbone": {"use": "tiny", "weights": "none"},
        "dataset": {"use": "folder", "root": str(photos)},
        "image": {"size": 16, "resize": 18},
        "freeze": {"use": "gradual", "schedule": {1: "head", 2: "all"}},
        "optimizer": {"use": "adamw", "lr": 3e-3},
        "train": {"epochs": 2, "batch_size": 8},
        "callbacks": [{"use": "checkpoint"}],
        **sections,
    }


def run(said: dict[str, Any], catalogue: Catalogue, **more: Any) -> Run:
    from finetune.training import engine

    return engine.fine_tune(plans.load_plan(said, [], catalogue), catalogue, say=lambda message: None, **more)


def weights(made: Run) -> str:
    """Return a hash of a run's final weights."""
    tensors = tensorfile.read_tensors(made.folder / "model" / "weights.safetensors").tensors
    return hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()


class Watcher:
    """Notes every event, and does what it is told at one of them."""

    def __init__(self, at: tuple[str, int] | None = None, act: Any = None) -> None:
        self.events: list[str] = []
        self.at, self.act = at, act

    def note(self, event: str, number: int = 0) -> None:
        self.events.append(event)
        if (event, number) == self.at:
            self.act()

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        self.note("run_start")

    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        self.note("epoch_start", epoch)

    @hookimpl
    def finetune_step_end(self, run: Run, step: int, loss: float) -> None:
        self.note("step_end", step)

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        self.note("epoch_end", epoch)

    @hookimpl
    def finetune_checkpoint_saved(self, run: Run, epoch: int, path: Path, best: bool) -> None:
        self.note("checkpoint_saved", epoch)

    @hookimpl
    def finetune_run_error(self, run: Run, error: BaseException) -> None:
        self.note("run_error")

    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        self.note("run_end")


@pytest.fixture(scope="module")
def finished(photos: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Watcher]:
    watcher = Watcher()
    return run(recipe(photos, tmp_path_factory.mktemp("runs")), catalogue, watchers=[watcher]), watcher


def test_a_run_learns_and_keeps_what_is_frozen(finished: tuple[Run, Watcher]) -> None:
    made, _ = finished
    assert made.result is not None
    assert made.result["frozen_unchanged"] is True
    assert [line["trainable"] for line in made.history] == [["head"], [*made.stages]]
    assert made.history[1]["train_loss"] < made.history[0]["train_loss"]


def test_a_run_folder_holds_every_file(finished: tuple[Run, Watcher]) -> None:
    made, _ = finished
    names = {str(p.relative_to(made.folder)) for p in made.folder.rglob("*") if p.is_file()}
    files = ("recipe.yaml", "environment.json", "data.json", "weights.json", "metrics.jsonl", "result.json")
    assert names >= {*files, "model/weights.safetensors", "model/model.json", "model/README.md"}
    assert not [name for name in names if name.endswith(".tmp")]
    assert json.loads((made.folder / "result.json").read_text()) == made.result
    lines = (made.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == made.history


def test_events_come_in_order(finished: tuple[Run, Watcher]) -> None:
    made, watcher = finished
    epoch = ["epoch_start", *["step_end"] * made.steps_per_epoch, "epoch_end"]
    saved = [at for at, event in enumerate(watcher.events) if event == "checkpoint_saved"]
    assert [event for event in watcher.events if event != "checkpoint_saved"] == [
        "run_start",
        *epoch,
        *epoch,
        "run_end",
    ]
    assert len(saved) == 2  # each while later steps run, but after its epoch
    assert saved[0] > watcher.events.index("epoch_end")
    assert watcher.events[-2:] == ["checkpoint_saved", "run_end"]


def test_the_resolved_recipe_repeats_the_run(
    finished: tuple[Run, Watcher], catalogue: Catalogue, tmp_path: Path
) -> None:
    from finetune.training import engine

    made, _ = finished
    again = plans.load_plan(made.folder / "recipe.yaml", [f"output={tmp_path}", "runner.workers=4"], catalogue)
    assert weights(engine.fine_tune(again, catalogue, say=lambda message: None)) == weights(made)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_number_of_workers_changes_no_bit(
    workers: int, finished: tuple[Run, Watcher], photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    assert weights(run(recipe(photos, tmp_path, runner={"workers": workers}), catalogue)) == weights(finished[0])


def test_another_seed_gives_other_weights(
    finished: tuple[Run, Watcher], photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    other = run(recipe(photos, tmp_path, seed=1, train={"epochs": 1, "batch_size": 8}), catalogue)
    assert weights(other) != weights(finished[0])


@pytest.mark.parametrize("at", [("step_end", 2), ("step_end", 6), ("epoch_end", 1), ("step_end", 8)])
def test_an_interrupted_run_resumes_to_the_same_bits(
    at: tuple[str, int], finished: tuple[Run, Watcher], photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    said = recipe(photos, tmp_path)
    watcher = Watcher(at, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted) as caught:
        run(said, catalogue, watchers=[watcher])
    assert caught.value.exit_code == 143
    assert watcher.events[-2:] == ["run_error", "run_end"]
    stopped = tmp_path / "small-001"
    assert not (stopped / "result.json").exists()
    resumed = run(said, catalogue, resume=stopped)
    assert weights(resumed) == weights(finished[0])
    assert [line["train_loss"] for line in resumed.history] == [line["train_loss"] for line in finished[0].history]


def test_resuming_a_finished_run_does_nothing(
    finished: tuple[Run, Watcher], photos: Path, catalogue: Catalogue
) -> None:
    made, _ = finished
    before = {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")}
    again = run(recipe(photos, made.folder.parent), catalogue, resume=made.folder)
    assert again.result == made.result
    assert {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")} == before


def test_resuming_refuses_another_recipe(photos: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    watcher = Watcher(("step_end", 1), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        run(recipe(photos, tmp_path), catalogue, watchers=[watcher])
    changed = recipe(photos, tmp_path, optimizer={"use": "adamw", "lr": 1e-3})
    with pytest.raises(UsageError, match=r"optimizer\.lr: 0\.003 → 0\.001"):
        run(changed, catalogue, resume=tmp_path / "small-001")


def test_a_loss_that_is_not_finite_stops_before_best_is_touched(
    photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    said = recipe(photos, tmp_path, optimizer={"use": "sgd", "lr": 1e30}, freeze={"use": "none"})
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) in epoch 1, step \d+, at learning rate \S+e\+\d+"):
        run(said, catalogue)
    assert not list((tmp_path / "small-001").rglob("best*"))


def test_a_failing_callback_names_itself_and_others_still_end(
    photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    def fail() -> None:
        raise KeyError("gone")

    bad, good = Watcher(("step_end", 1), fail), Watcher()
    with pytest.raises(PluginError, match=r"plugin 'watcher' .* failed in finetune_step_end: KeyError: 'gone'"):
        run(recipe(photos, tmp_path), catalogue, watchers=[good, bad])
    assert good.events[-2:] == ["run_error", "run_end"]
    assert [path.name for path in (tmp_path / "small-001" / "checkpoints").iterdir()] == ["step-00000001.safetensors"]


def test_a_photo_lost_while_training_names_it_and_saves(catalogue: Catalogue, tmp_path: Path) -> None:
    root = folder(tmp_path / "photos")
    watcher = Watcher(("epoch_end", 1), lambda: [photo.unlink() for photo in (root / "red").iterdir()])
    with pytest.raises(DataError, match=r"red/\d\d\.jpg"):
        run(recipe(root, tmp_path / "runs"), catalogue, watchers=[watcher])
    assert list((tmp_path / "runs" / "small-001" / "checkpoints").glob("step-*"))


def test_bad_data_leaves_no_run_folder(catalogue: Catalogue, tmp_path: Path) -> None:
    root = folder(tmp_path / "photos")
    (root / "red" / "broken.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        run(recipe(root, tmp_path / "runs"), catalogue)
    assert not (tmp_path / "runs").exists()


def test_early_stopping_keeps_the_best_epoch(photos: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    said = recipe(
        photos,
        tmp_path,
        freeze={"use": "head"},
        train={"epochs": 6, "batch_size": 8},
        optimizer={"use": "sgd", "lr": 1e-12},
        callbacks=[{"use": "checkpoint"}, {"use": "early_stopping", "patience": 2}],
    )
    made = run(said, catalogue)
    assert made.result is not None
    assert len(made.history) == 3
    assert made.result["best"]["epoch"] == 1
    assert made.result["stopped_early"]
    kept = json.loads((made.folder / "model" / "model.json").read_text())["metrics"]
    assert kept["val_accuracy"] == made.history[0]["val_accuracy"]


def test_accumulation_average_clipping_mixing_and_smoothing_run_together(
    photos: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    said = recipe(
        photos,
        tmp_path,
        head={"use": "mlp", "hidden": 16, "dropout": 0.2},
        loss={"label_smoothing": 0.1, "class_weights": "auto"},
        schedule={"use": "cosine", "warmup_epochs": 1},
        train={"epochs": 2, "batch_size": 4, "accumulate": 2, "clip_norm": 1.0, "mixup": 0.2, "cutmix": 1, "ema": 0.9},
        freeze={"use": "stages", "train": ["neck"], "batch_norm": "frozen"},
    )
    made = run(said, catalogue)
    assert made.result is not None
    assert made.result["frozen_unchanged"] is True
    assert all(np.isfinite(line["train_loss"]) for line in made.history)


def test_mixed_precision_trains_float32_weights(photos: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    made = run(recipe(photos, tmp_path, train={"epochs": 2, "batch_size": 8}, runner={"amp": "O2"}), catalogue)
    assert made.result is not None
    assert made.result["frozen_unchanged"] is True
    assert made.history[1]["train_loss"] < made.history[0]["train_loss"]
    kept = tensorfile.read_tensors(made.folder / "model" / "weights.safetensors").tensors
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float32)}


def test_pynative_mode_runs(photos: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    import mindspore as ms

    said = recipe(photos, tmp_path, runner={"mode": "pynative"}, train={"epochs": 1, "batch_size": 8})
    try:
        assert run(said, catalogue).result is not None
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
