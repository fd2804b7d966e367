"""Dry runs for checks of callbacks: images drawn by code, a network of two stages, three epochs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.catalogue import Catalogue
from finetune.components import Backbone, Callback, Dataset, Freezer, NoOptions, Samples, Split
from finetune.hookspecs import hookimpl
from finetune.plugins import HERE, Origin, Plugins
from finetune.recipe import plan as plans
from finetune.testing.photos import draw_picture
from finetune.testing.process_state import watch_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from finetune.components import Options
    from finetune.recipe.plan import Plan
    from finetune.run import Run
    from finetune.testing.process_state import Report

NAME = "finetune-testing"  # name of all components of a dry run
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
        "name": "dry-run",
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

    report: Report
    halt: int = 0

    def watch(self, callback: object) -> object:
        """Return an object with the callback's hooks, each of which is compared."""
        hooks = {name: getattr(callback, name) for name in dir(callback) if name.startswith("finetune_")}
        return SimpleNamespace(**{name: self._compare(name, hook) for name, hook in hooks.items()})

    def _compare(self, event: str, hook: Any) -> Any:
        if not callable(hook):
            return hook

        names = signature(hook).parameters

        @wraps(hook)
        def compared(*values: Any) -> Any:
            arguments = dict(zip(names, values, strict=True))
            run, more = arguments.get("run"), {k: v for k, v in arguments.items() if isinstance(v, dict)}
            before = copy.deepcopy(more) | copy_read_only(run)
            with watch_process(self.report):
                result = hook(*values)
            after = copy_read_only(run) | more
            for name, value in before.items():
                if repr(value) != repr(after[name]):
                    own = f"run.{name}" if name not in more else f"the argument {name}"
                    text = f"{own} was changed in {event}; treat it as read-only, and keep your own values in run.state"
                    self.report.breaks("run", text)
            return result

        return compared

    @hookimpl(trylast=True)
    def finetune_step_end(self, run: Run, step: int) -> None:
        if step == self.halt:
            raise Halt


def copy_read_only(run: Run | None) -> dict[str, Any]:
    """Return a copy of the read-only fields of a run."""
    if run is None:
        return {}
    names = [name for name in run.__dataclass_fields__ if name not in FREE and not name.startswith("_")]
    return {name: copy.deepcopy(getattr(run, name)) for name in names}


def run_watched(
    plan: Plan, catalogue: Catalogue, watcher: Watcher, said: list[str], resume: Path | None = None
) -> Mapping[str, Any]:
    """Start or resume a run with watched callbacks; return its epochs and the plugins' state at the end."""
    from finetune.training import engine

    (chosen,) = plan.callbacks
    build = chosen.component.build
    watched = replace(chosen.component, build=lambda options: watcher.watch(build(options)))
    plan = replace(plan, callbacks=(replace(chosen, component=watched),))
    run = engine.fine_tune(plan, catalogue, resume=resume, watchers=[watcher], say=said.append)
    return {"run": run, "epochs": [line["epoch"] for line in run.history], "state": copy.deepcopy(run.state)}
