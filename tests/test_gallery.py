"""Every bundled recipe runs: on a few drawn photos, with a small network and for one epoch at most."""

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
from finetune.training import engine, older
from tests.cli.calling import answer, command, environment
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan

pytestmark = pytest.mark.once

RECIPES = bundled.list_recipes()
TWO_PROCESSES = "flowers-cpu-2p"
# What makes a run short, whatever the recipe: all else is as it stands there.
SHORT = (
    *("backbone.use=resnext_nano", "backbone.weights=fractals", "image.size=32", "image.resize=36"),
    *("train.batch_size=8", "cache.views=1", "runner.device=cpu"),
)
ONE_EPOCH = "train.epochs=1"
# These fit the head, and train nothing after that.
FITTED = ("csv", "few-photos", "imbalanced", "linear-probe")
# These train so much of the network that compiling it would take longer than the few steps.
DEEP = ("full", "freeze-by-name", "quickstart")
# In place of photos that would have to be downloaded, or of thousands that would have to be drawn.
SMALLER = {
    "quickstart": ("dataset.train=24", "dataset.valid=12", "dataset.test=6", "dataset.classes=3"),
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
    drawn = recipe.dataset.component.name == "shapes"
    return () if drawn else ("dataset.use=folder", f"dataset.root={photos}")


@pytest.mark.parametrize("name", [name for name in RECIPES if name != TWO_PROCESSES])
def test_every_recipe_runs(photos: Path, name: str, tmp_path: Path) -> None:
    catalogue = Catalogue(plugins.load_plugins())
    whole = plan.load_plan(RECIPES[name], [], catalogue)
    mode = "pynative" if name in DEEP else "graph"
    changes = [*SHORT, *data(whole, photos), *SMALLER.get(name, ()), f"runner.mode={mode}", "runner.devices=1"]
    changes += [] if name in FITTED else [ONE_EPOCH]
    short = plan.load_plan(RECIPES[name], [*changes, f"output={tmp_path}"], catalogue)
    run = engine.fine_tune(short, catalogue, say=lambda line: None)
    result = json.loads((run.folder / "result.json").read_text())
    assert run.folder == tmp_path / f"{name}-001"
    assert (result["epochs"], result["frozen_unchanged"]) == (int(name not in FITTED), True)
    assert ("fitted" in result) == (getattr(short.recipe.head, "start", "") != "random")
    policy = whole.freezer.component.build(whole.freezer.options)
    assert {*run.trainable} == policy(1, run.stages)
    again = plan.load_plan(run.folder / "recipe.yaml", [], catalogue)
    assert settled(short) <= settled(again), "what is extended is written out"
    assert again.freezer == short.freezer
    assert [each.component for each in again.augment] == [each.component for each in short.augment]


def settled(found: Plan) -> set[tuple[str, str, str]]:
    """Return section, key and value of all that the recipe of a plan does not leave to the run."""
    sections = found.recipe.model_dump(mode="json", exclude={"augment"})
    pairs = ((name, key, value) for name, each in sections.items() for key, value in items(each))
    return {(name, key, repr(value)) for name, key, value in pairs if older.OPEN.get((name, key), ...) != value}


def items(section: object) -> list[tuple[str, object]]:
    """Return the keys and values of a section, or the value of a key at the top."""
    return [*section.items()] if isinstance(section, dict) else [("", section)]


@pytest.mark.slow
def test_two_processes_run(photos: Path, repo: Path, tmp_path: Path) -> None:
    changes = [
        *SHORT,
        ONE_EPOCH,
        *data(plan.load_plan(RECIPES[TWO_PROCESSES], [], Catalogue(plugins.load_plugins())), photos),
    ]
    line = command("run", TWO_PROCESSES, *changes, "--output", tmp_path, "--json")
    done = subprocess.run(line, env=environment(repo), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert answer(done)["epochs"] == 1
    logs = tmp_path / f"{TWO_PROCESSES}-001" / "logs" / "001"
    assert [(logs / f"worker_{rank}.log").exists() for rank in range(3)] == [True, True, False]
