"""Bundled recipes with a network of other stages than the built-in one's: all are checked, and a few really train."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from finetune.recipe import bundled
from finetune.recipe import plan as plans
from finetune.training import engine
from finetune.training.check import check
from tests.drawn import folder
from tests.features import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan

pytestmark = pytest.mark.once

RECIPES = bundled.list_recipes()
OTHER = (
    *("backbone.use=tiny", "backbone.weights=none", f"image.size={tiny.SIZE}", f"image.resize={tiny.SIZE + 4}"),
    *("runner.device=cpu", "runner.devices=1", "runner.mode=pynative", "train.batch_size=8", "cache.views=1"),
)
DRAWN = {
    "quickstart": ("dataset.train=24", "dataset.valid=12", "dataset.test=6", "dataset.classes=3"),
}
ALL = (*tiny.STAGES, "head")
# What each recipe trains, phase by phase, of the stages stem, body and neck.
PHASES = {
    "csv": [("head",)],
    "few-photos": [("head",)],
    "folder": [("neck", "head")],
    "imbalanced": [("head",)],
    "flowers": [("neck", "head"), ALL],
    "flowers-ascend": [("neck", "head"), ALL],
    "flowers-ascend-8p": [("neck", "head"), ALL],
    "flowers-cpu-2p": [("neck", "head"), ALL],
    "freeze-by-name": [("body", "neck", "head")],
    "full": [ALL],
    "linear-probe": [("head",)],
    "quickstart": [ALL],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of photos in three classes, and next to it a table of the same."""
    top = folder(tmp_path_factory.mktemp("gallery") / "photos", each=6)
    with (top.parent / "photos.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for number, photo in enumerate(sorted(top.rglob("*.jpg"))):
            split = "valid" if number % 3 == 0 else "train"
            table.writerow([photo.relative_to(top.parent), photo.parent.name, split])
    return top


def other(name: str, photos: Path, *changes: str) -> Plan:
    """Return the plan of a bundled recipe with the other network, and with photos that are here."""
    data = DRAWN.get(name, ("dataset.use=folder", f"dataset.root={photos}"))
    if name == "csv":
        data = (f"dataset.file={photos.parent / 'photos.csv'}",)
    return plans.load_plan(RECIPES[name], [*OTHER, *data, *changes], tiny.catalogue())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_checked(name: str, photos: Path, tmp_path: Path) -> None:
    found = check(other(name, photos, f"output={tmp_path}"), tiny.catalogue(), say=lambda line: None)
    assert [tuple(phase["trainable"]) for phase in found["phases"]] == PHASES[name]


@pytest.mark.parametrize("name", ["folder", "csv", "freeze-by-name"])
def test_some_really_train(name: str, photos: Path, tmp_path: Path) -> None:
    changes = ("train.epochs=1", f"output={tmp_path}")
    run = engine.fine_tune(other(name, photos, *changes), tiny.catalogue(), say=lambda line: None)
    assert run.trainable == PHASES[name][-1]
    assert run.result is not None
    assert run.result["frozen_unchanged"]
