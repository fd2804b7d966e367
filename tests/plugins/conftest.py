"""Fixtures: a run as the engine makes it, and the plugins of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from finetune.plugins import Origin, Plugins
from finetune.recipe.models import Recipe
from finetune.run import Run

if TYPE_CHECKING:
    from pathlib import Path

Fire = Callable[..., None]


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    """Return a maker of runs, judged by their accuracy: ``recipe`` holds other sections, the rest are fields."""

    def make(recipe: dict[str, Any] | None = None, **fields: Any) -> Run:
        complete: dict[str, Any] = {
            "dataset": {"use": "shapes"},
            "train": {"epochs": 6, "batch_size": 8},
            "evaluate": {"metric": "accuracy"},
            **(recipe or {}),
        }
        values: dict[str, Any] = {
            "folder": tmp_path / "run",
            "recipe": Recipe.model_validate(complete),
            "recipe_text": "name: run\nseed: 42\n",
            "classes": ("circle", "square", "star"),
            "stages": ("stem", "layer1", "layer2", "head"),
            "device": "cpu",
            "steps_per_epoch": 3,
            "images": {"train": 20, "valid": 9},
            "_say": lambda message: None,
        }
        return Run(**(values | fields))

    return make


@pytest.fixture
def fire_on() -> Callable[[object], Fire]:
    """Return a maker of functions that fire an event at one callback, through the manager of a run."""

    def register(callback: object) -> Fire:
        plugins = Plugins()
        plugins.register(callback, Origin(name="callback", distribution="tests", version="1"))
        return plugins.fire

    return register
