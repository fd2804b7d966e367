"""Tiny real runs for checks of callbacks: images drawn by code, a network of two stages, three epochs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.catalogue import Catalogue
from finetune.components import Backbone, Callback, Dataset, Freezer, NoOptions, Samples, Split
from finetune.hookspecs import hookimpl
from finetune.plugins import HERE, Origin, Plugins
from finetune.recipe import plan as plans
from finetune.testing.photos import draw_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from finetune.components import Options
    from finetune.recipe.plan import Plan
    from finetune.run import Run

NAME = "finetune-testing"  # name of all components of the rehearsal
EPOCHS, IMAGES, CLASSES, BATCH, SIDE = 3, 8, ("light", "dark"), 2, 16
FREE = {"state", "stop_reason", "messages", "checkpoint_keep"}  # fields of a run that a plugin may change


class Halt(Exception):
    """Interrupts a run at a chosen step."""


def make_pictures(options: NoOptions, split: Split) -> Samples | None:
    """Return light and dark images, one class each."""
    if split != "train":
        return None
    images = [draw_picture(SIDE, SIDE, seed=number) >> np.uint8(number % 2) for number in range(IMAGES)]
    return Samples(images=images, labels=[number % 2 for number in range(IMAGES)], classes=CLASSES)


def build_stages(options: NoOptions) -> dict[str, Any]:
    """Return two stages: a convolution and a BatchNorm."""
    from mindspore import nn

    return {"stem": nn.Conv2d(3, 8, 4, 4), "body": nn.BatchNorm2d(8)}


def build_policy(options: NoOptions) -> Callable[[int, tuple[str, ...]], frozenset[str]]:
    """Return the policy that trains the head, and everything from epoch 2 on."""
    return lambda epoch, names: frozenset(names if epoch > 1 else names[-1:])


@dataclass
class Stage:
    """A plugin with all components of a run, and one callback."""

    callback: Callback

    @hookimpl
    def finetune_backbones(self) -> Iterator[Backbone]:
        yield Backbone(name=NAME, build=build_stages, stages=("stem", "body"), features=8)

    @hookimpl
    def finetune_datasets(self) -> Iterator[Dataset]:
        yield Dataset(name=NAME, build=make_pictures)

    @hookimpl
    def finetune_freezers(self) -> Iterator[Freezer]:
        yield Freezer(name=NAME, build=build_policy)

    @hookimpl
    def finetune_callbacks(self) -> Iterator[Callback]:
        yield self.callback


def plan_run(callback: Callback, options: Options, output: Path) -> tuple[Plan, Catalogue]:
    """Return the plan of a run with a callback, with only the components of this module."""
    plugins = Plugins()
    plugins.register(Stage(callback), Origin(name=callback.name, distribution=HERE, version="-"))
    catalogue = Catalogue(plugins)
    said = {
        "name": "rehearsal",
        "output": str(output),
        "backbone": {"use": NAME, "weights": "none"},
        "dataset": {"use": NAME, "split": 0.5},
        "image": {"size": SIDE, "resize": SIDE},
        "augment": [],
        "freeze": {"use": NAME},
        "train": {"epochs": EPOCHS, "batch_size": BATCH},
        "inference": {"engine": "mindspore"},
        "cache": {"features": "off"},
        "callbacks": [{"use": callback.name, **options.model_dump(mode="json", by_alias=True)}],
        "runner": {"device": "cpu", "mode": "pynative", "workers": 1},
    }
    return plans.load_plan(said, [], catalogue), catalogue


@dataclass
class Watcher:
    """Compares the run before and after each event of the callback, and can halt the run at a step."""

    report: Callable[[str, str], None]
    halt: int = 0
    events: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)

    def first(self, event: str, run: Run, **more: Any) -> None:
        """Store the values that the callback must not change."""
        self.events.append(event)
        self.before = copy.deepcopy(more) | copy_read_only(run)

    def last(self, event: str, run: Run, **more: Any) -> None:
        """Compare."""
        after = copy_read_only(run) | more
        for name, value in self.before.items():
            if repr(value) != repr(after[name]):
                own = f"run.{name}" if name not in more else f"the argument {name}"
                text = f"{own} was changed in {event}; treat it as read-only, and keep your own values in run.state"
                self.report("run", text)


def copy_read_only(run: Run) -> dict[str, Any]:
    """Return a copy of the read-only fields of a run."""
    names = [name for name in run.__dataclass_fields__ if name not in FREE and not name.startswith("_")]
    return {name: copy.deepcopy(getattr(run, name)) for name in names}


class First:
    """Passes events to the watcher before the callback."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    @hookimpl(tryfirst=True)
    def finetune_run_start(self, run: Run) -> None:
        self.watcher.first("finetune_run_start", run)

    @hookimpl(tryfirst=True)
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        self.watcher.first("finetune_epoch_start", run)

    @hookimpl(tryfirst=True)
    def finetune_step_end(self, run: Run, step: int) -> None:
        self.watcher.first("finetune_step_end", run)

    @hookimpl(tryfirst=True)
    def finetune_epoch_end(self, run: Run, metrics: dict[str, float]) -> None:
        self.watcher.first("finetune_epoch_end", run, metrics=metrics)

    @hookimpl(tryfirst=True)
    def finetune_checkpoint_saved(self, run: Run) -> None:
        self.watcher.first("finetune_checkpoint_saved", run)

    @hookimpl(tryfirst=True)
    def finetune_run_error(self, run: Run) -> None:
        self.watcher.first("finetune_run_error", run)

    @hookimpl(tryfirst=True)
    def finetune_run_end(self, run: Run) -> None:
        self.watcher.first("finetune_run_end", run)


class Last:
    """Passes events to the watcher after the callback."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    @hookimpl(trylast=True)
    def finetune_run_start(self, run: Run) -> None:
        self.watcher.last("finetune_run_start", run)

    @hookimpl(trylast=True)
    def finetune_epoch_start(self, run: Run) -> None:
        self.watcher.last("finetune_epoch_start", run)

    @hookimpl(trylast=True)
    def finetune_step_end(self, run: Run, step: int) -> None:
        self.watcher.last("finetune_step_end", run)
        if step == self.watcher.halt:
            raise Halt

    @hookimpl(trylast=True)
    def finetune_epoch_end(self, run: Run, metrics: dict[str, float]) -> None:
        self.watcher.last("finetune_epoch_end", run, metrics=metrics)

    @hookimpl(trylast=True)
    def finetune_checkpoint_saved(self, run: Run) -> None:
        self.watcher.last("finetune_checkpoint_saved", run)


def rehearse_run(
    plan: Plan, catalogue: Catalogue, watcher: Watcher, said: list[str], resume: Path | None = None
) -> Mapping[str, Any]:
    """Start or resume a run; return its epochs and the plugins' state at the end."""
    from finetune.training import engine

    run = engine.fine_tune(plan, catalogue, resume=resume, watchers=[First(watcher), Last(watcher)], say=said.append)
    return {"run": run, "epochs": [line["epoch"] for line in run.history], "state": copy.deepcopy(run.state)}
