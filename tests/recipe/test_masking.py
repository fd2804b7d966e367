"""Secrets of a recipe: nobody but the recipe's own copy in the run folder has them, and that is for its owner alone."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Weights, hookimpl, plugins
from finetune.catalogue import Catalogue
from finetune.errors import Interrupted
from finetune.machine.environment import mask_secrets
from finetune.recipe import masking
from finetune.recipe import plan as plans
from finetune.recipe.models import Recipe
from finetune.training import engine
from tests.drawn import folder
from tests.training.test_engine import Watcher
from tests.training.test_start import save

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.run import Run

SECRET = b"hush"


class Company:
    """Has the file of every address."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @hookimpl
    def finetune_fetch_weights(self, weights: Weights) -> Path:
        return self.file


class Reader(Watcher):
    """A callback that keeps what it can read of the recipe."""

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        self.read = run.recipe_text + run.recipe.model_dump_json()


def recipe(tmp_path: Path, address: str) -> dict[str, Any]:
    return {
        "name": "small",
        "output": str(tmp_path / "runs"),
        "backbone": {"use": "resnext_nano", "weights": address},
        "dataset": {"use": "folder", "root": str(folder(tmp_path / "photos", each=6))},
        "train": {"epochs": 1, "batch_size": 8},
        "callbacks": [{"use": "checkpoint"}, {"use": "tensorboard", "images": 0}],
    }


def test_an_address_with_secrets_stays_in_the_recipe_alone(tmp_path: Path) -> None:
    file = save(tmp_path / "start.safetensors")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    said = recipe(tmp_path, f"https://me:hush@example.invalid/net.safetensors?token=hush#sha256={digest}")
    loaded = plugins.load_plugins()
    loaded.register(Company(file), plugins.Origin(name="company", distribution="tests", version="-"))
    catalogue, made = Catalogue(loaded), tmp_path / "runs" / "small-001"
    reader = Reader(("step_end", 1), lambda: os.kill(os.getpid(), signal.SIGTERM))
    lines: list[str] = []
    with pytest.raises(Interrupted):
        engine.fine_tune(plans.load_plan(said, [], catalogue), catalogue, watchers=[reader], say=lines.append)
    again = plans.load_plan(made / "recipe.yaml", [], catalogue)
    assert again.recipe.backbone.weights == said["backbone"]["weights"]
    run = engine.fine_tune(again, catalogue, resume=made, say=lines.append)
    finished = engine.fine_tune(again, catalogue, resume=made, say=lines.append)
    shown = "https://***@example.invalid/net.safetensors?token=***"
    for each in (run, finished):
        assert each.recipe.backbone.weights == shown
        assert shown in each.recipe_text
    assert "hush" not in reader.read + "".join(lines)
    assert shown in reader.read
    holding = [path.name for path in made.rglob("*") if path.is_file() and SECRET in path.read_bytes()]
    assert holding == ["recipe.yaml"]
    assert stat.S_IMODE((made / "recipe.yaml").stat().st_mode) == 0o600
    assert any((made / "tensorboard").iterdir())
    assert not [path for path in made.iterdir() if path.name.endswith(".tmp")]


def test_a_recipe_without_secrets_is_left_as_it_is(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"dataset": {"use": "shapes", "size": 64}, "augment": ({"use": "x", "deep": [{}]},)})
    assert masking.mask_recipe(recipe) == recipe
    masking.write_recipe(tmp_path / "recipe.yaml", "name: a\n")
    before = os.umask(0o022)
    os.umask(before)
    assert stat.S_IMODE((tmp_path / "recipe.yaml").stat().st_mode) == 0o666 & ~before


def test_secrets_are_found_in_options_however_deep() -> None:
    parts = ({"use": "x", "deep": [{"api_key": "hush", "url": "ftp://a:hush@b/c"}], "3": 4},)
    recipe = Recipe.model_validate({"dataset": {"use": "cloud", "password": "hush", "rows": 3}, "augment": parts})
    shown = masking.mask_recipe(recipe).model_dump(mode="json")
    assert shown["dataset"]["password"] == "***"
    assert shown["dataset"]["rows"] == 3
    assert shown["augment"] == [{"use": "x", "deep": [{"api_key": "***", "url": "ftp://***@b/c"}], "3": 4}]
    assert "hush" not in mask_secrets(str(shown))
