"""Every recipe that comes along runs: on a few drawn photos, with a small network and for one epoch."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.recipe import bundled, plan
from finetune.training import engine
from tests.cli.calling import answer, command, environment
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan

pytestmark = pytest.mark.once

RECIPES = bundled.recipes()
TWO_PROCESSES = "flowers-cpu-2p"
# What makes a run short, whatever the recipe: all else is as it stands there.
SHORT = (
    *("backbone.use=resnext_nano", "backbone.weights=fractals", "image.size=32", "image.resize=36"),
    *("train.epochs=1", "train.batch_size=8", "cache.views=1", "runner.device=cpu"),
)
# These train so much of the network that compiling it would take longer than the few steps.
DEEP = ("full", "freeze-by-name", "pretrain-fractals", "quickstart")
# In place of photos that would have to be downloaded, or of thousands that would have to be drawn.
SMALLER = {
    "quickstart": ("dataset.train=24", "dataset.valid=12", "dataset.test=6", "dataset.classes=3"),
    "pretrain-fractals": ("dataset.train=24", "dataset.valid=12", "dataset.classes=3", "dataset.size=32"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of photos in three classes, some fewer than others, and a table of the same."""
    top = folder(tmp_path_factory.mktemp("gallery") / "photos", each=8)
    for extra in sorted((top / "red").glob("*.jpg"))[4:]:
        extra.unlink()
    with (top.parent / "photos.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for number, photo in enumerate(sorted(top.rglob("*.jpg"))):
            split = "valid" if number % 4 == 0 else "train"
            table.writerow([photo.relative_to(top.parent), photo.parent.name, split])
    return top


def data(recipe: Plan, photos: Path) -> tuple[str, ...]:
    """Return the photos to take instead of the recipe's own."""
    if recipe.dataset.component.name == "csv":
        return (f"dataset.file={photos.parent / 'photos.csv'}",)
    drawn = recipe.dataset.component.name in ("shapes", "fractals")
    return () if drawn else ("dataset.use=folder", f"dataset.root={photos}")


@pytest.mark.parametrize("name", [name for name in RECIPES if name != TWO_PROCESSES])
def test_every_recipe_runs(photos: Path, name: str, tmp_path: Path) -> None:
    catalogue = Catalogue(plugins.load())
    whole = plan.load(RECIPES[name], [], catalogue)
    mode = "pynative" if name in DEEP else "graph"
    changes = [*SHORT, *data(whole, photos), *SMALLER.get(name, ()), f"runner.mode={mode}", "runner.devices=1"]
    short = plan.load(RECIPES[name], [*changes, f"output={tmp_path}"], catalogue)
    run = engine.fine_tune(short, catalogue, say=lambda line: None)
    result = json.loads((run.folder / "result.json").read_text())
    assert run.folder == tmp_path / f"{name}-001"
    assert (result["epochs"], result["frozen_unchanged"]) == (1, True)
    policy = whole.freezer.component.build(whole.freezer.options)
    assert {*run.trainable} == policy(1, run.stages)
    again = plan.load(run.folder / "recipe.yaml", [], catalogue)
    assert again == short, "what is extended is written out"


@pytest.mark.slow
def test_two_processes_run(photos: Path, repo: Path, tmp_path: Path) -> None:
    changes = [*SHORT, *data(plan.load(RECIPES[TWO_PROCESSES], [], Catalogue(plugins.load())), photos)]
    line = command("run", TWO_PROCESSES, *changes, "--output", tmp_path, "--json")
    done = subprocess.run(line, env=environment(repo), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert answer(done)["epochs"] == 1
    logs = tmp_path / f"{TWO_PROCESSES}-001" / "logs" / "001"
    assert [(logs / f"worker_{rank}.log").exists() for rank in range(3)] == [True, True, False]
