"""Runs of a small pretrained network with nothing chosen, in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.recipe import plan as plans

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan
    from finetune.run import Run


@dataclass
class Made:
    """A finished run and what it said."""

    run: Run
    said: list[str] = field(default_factory=list)

    @property
    def result(self) -> dict[str, Any]:
        """Return what ``result.json`` holds."""
        assert self.run.result is not None
        return self.run.result

    @property
    def weights(self) -> bytes:
        """Return the bytes of the model's weights."""
        return (self.run.folder / "model" / "weights.safetensors").read_bytes()


def recipe(root: Path, output: Path, **sections: Any) -> dict[str, Any]:
    """Return the recipe that names the photos and a small backbone, and leaves all else open."""
    return {
        "name": "small",
        "output": str(output),
        "backbone": {"use": "resnext_nano"},
        "dataset": {"use": "folder", "root": str(root)},
        "image": {"size": 32, "resize": 36},
        "callbacks": [],
        **sections,
    }


def plan(said: dict[str, Any] | Path) -> Plan:
    """Return the plan of a recipe, or of the recipe in a file."""
    return plans.load_plan(said, [], Catalogue(plugins.load_plugins()))


def run(said: dict[str, Any] | Path, **more: Any) -> Made:
    """Run a recipe, or the recipe in a file."""
    from finetune.training import engine

    heard: list[str] = []
    catalogue = Catalogue(plugins.load_plugins())
    return Made(engine.fine_tune(plans.load_plan(said, [], catalogue), catalogue, say=heard.append, **more), heard)
