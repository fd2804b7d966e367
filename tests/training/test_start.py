"""What a run began with: a resume notices another start, and needs no weights file."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.numpy import save_file

import finetune_model
from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.errors import Interrupted, UsageError, WeightsError
from finetune.recipe import plan as plans
from finetune.training import engine, saving
from tests.drawn import folder
from tests.training.test_engine import Watcher, weights
from tests.weights.drawn_files import drawn

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.run import Run

pytestmark = pytest.mark.once

NANO = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}["resnext_nano"]
IMAGE = {"size": 32, "resize": 36, "keep_aspect": True, "mean": [0.5] * 3, "std": [0.2] * 3}
CLASSES = ("red", "violet", "green", "blue", "grey")


def save(path: Path, seed: int = 0, pool: str = "symmetric", **image: Any) -> Path:
    """Write weights that say what network and preprocessing they need, and class names."""
    about = {"backbone": {"use": "resnext_nano", "options": {"stem_pool": pool}}, "image": {**IMAGE, **image}}
    texts = {name: json.dumps(value) for name, value in {**about, "classes": CLASSES}.items()}
    arrays = {name: abs(array) if "variance" in name else array * 0.1 for name, array in drawn(NANO, seed=seed).items()}
    save_file(arrays, path, texts)
    return path


@dataclass
class Stopped:
    """A run that was stopped in its second epoch."""

    said: dict[str, Any]
    file: Path
    folder: Path

    def go_on(self, **more: Any) -> tuple[Run, list[str]]:
        """Resume the run and return it, and what it said."""
        lines: list[str] = []
        catalogue = Catalogue(plugins.load_plugins())
        plan = plans.load_plan({**self.said, **more}, [], catalogue)
        return engine.fine_tune(plan, catalogue, resume=self.folder, say=lines.append), lines


def begun(tmp_path: Path, watchers: tuple[object, ...] = (), **sections: Any) -> Stopped:
    """Return a run that ``watchers`` stop."""
    file, photos = save(tmp_path / "start.safetensors"), folder(tmp_path / "photos", each=6)
    said = {
        "name": "small",
        "output": str(tmp_path / "runs"),
        "backbone": {"use": "resnext_nano", "weights": str(file)},
        "dataset": {"use": "folder", "root": str(photos)},
        "train": {"epochs": 2, "batch_size": 8},
        **sections,
    }
    catalogue = Catalogue(plugins.load_plugins())
    plan = plans.load_plan(said, [], catalogue)
    if watchers:
        with pytest.raises(Interrupted):
            engine.fine_tune(plan, catalogue, watchers=watchers, say=lambda message: None)
    else:
        engine.fine_tune(plan, catalogue, say=lambda message: None)
    return Stopped(said, file, tmp_path / "runs" / "small-001")


def stop() -> tuple[Watcher]:
    """Return what stops a run after its third step."""
    return (Watcher(("step_end", 3), lambda: os.kill(os.getpid(), signal.SIGTERM)),)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"pool": "same"}, r"backbone\.stem_pool: 'symmetric' → 'same'; restore the file or start a new run$"),
        ({"resize": 40}, r"image\.resize: 36 → 40"),
        ({"seed": 1}, r"weights\.sha256: '[0-9a-f]{64}' → '[0-9a-f]{64}'"),
    ],
)
def test_resuming_refuses_another_start(tmp_path: Path, changed: dict[str, Any], text: str) -> None:
    stopped = begun(tmp_path, stop())
    save(stopped.file, **changed)
    began = r"^the weights or their settings changed since this run started: .*"
    with pytest.raises(UsageError, match=began + text):
        stopped.go_on()


def test_a_checkpoint_of_an_older_version_says_no_start(tmp_path: Path) -> None:
    stopped = begun(tmp_path, stop())
    forget(stopped.folder)
    made, lines = stopped.go_on()
    assert made.result is not None
    assert not any("continuing without" in line for line in lines)


def test_without_the_start_in_the_checkpoint_the_file_is_needed(tmp_path: Path) -> None:
    stopped = begun(tmp_path, stop())
    forget(stopped.folder)
    stopped.file.unlink()
    with pytest.raises(WeightsError, match="no weights file at"):
        stopped.go_on()


def forget(folder: Path) -> None:
    """Take the start out of a run's newest checkpoint."""
    path = saving.list_checkpoints(folder / "checkpoints")[-1]
    saved = saving.load_checkpoint(path)
    state = {key: value for key, value in saved.state.items() if key not in ("start", "version")}
    saving.save_checkpoint(path.parent, saved.arrays, state, best=False, keep=2)


@pytest.mark.parametrize("head", [{}, {"use": "linear", "keep_pretrained": True}])
def test_a_run_goes_on_to_the_same_bits_when_its_weights_are_gone(tmp_path: Path, head: dict[str, Any]) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "part").mkdir()
    whole, part = begun(tmp_path / "whole", head=head), begun(tmp_path / "part", stop(), head=head)
    report = json.loads((part.folder / "weights.json").read_text())
    part.file.unlink()
    made, lines = part.go_on()
    assert weights(made) == weights(whole.go_on()[0])
    (note,) = [line for line in lines if "continuing without the pretrained weights" in line]
    assert f"no weights file at '{part.file}'" in note
    about = json.loads((made.folder / "model" / "model.json").read_text())
    assert about["weights"]["sha256"] == report["sha256"]
    assert about["backbone"]["options"] == {"stem_pool": "symmetric"}
    assert about["image"]["mean"] == [0.5] * 3
    assert len(about["classes"]) == (5 if head else 3)
