"""Events of a run, passed from its first process to the parent with the terminal, as lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.hookspecs import hookimpl
from finetune.recipe.models import Recipe
from finetune.run import Best, Run

if TYPE_CHECKING:
    from finetune.display.progress import Progress

EVENTS = "events.jsonl"
BETWEEN = 0.1  # minimum seconds between two step events
START = ("device", "steps_per_epoch", "images", "weights", "resumed")
ALWAYS = ("epoch", "step", "phase", "trainable", "stop_reason", "result")


class EventWriter:
    """A watcher that writes a run's events into a file; with ``quiet``, it only prints messages to its own log."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        self.path, self.quiet, self.told = folder / EVENTS, quiet, 0.0

    def _tell(self, event: str, run: Run | None = None, **more: Any) -> None:
        about = {"event": event, **more}
        if run is not None:
            best = run.best and [run.best.epoch, run.best.value]
            about["run"] = {"best": best, **{name: getattr(run, name) for name in ALWAYS}}
        if event == "run_start" and run is not None:
            recipe = run.recipe.model_dump(
                mode="json", by_alias=True
            )  # with the values that the first process chose for auto
            about["run"] |= {"folder": str(run.folder), "classes": run.classes, "stages": run.stages, "recipe": recipe}
            about["run"] |= {name: getattr(run, name) for name in START}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(about) + "\n")

    def say(self, message: str) -> None:
        """Print a message and pass it on."""
        sys.stdout.write(f"{message}\n")
        sys.stdout.flush()
        if not self.quiet:
            self._tell("say", message=message)

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Write the event that the run has started."""
        self._tell("run_start", run)

    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        """Write the event that an epoch has started."""
        self._tell("epoch_start", run, epoch=epoch)

    @hookimpl
    def finetune_step_end(self, run: Run, step: int, loss: float) -> None:
        """Write a step event, unless the last one was less than ``BETWEEN`` seconds ago."""
        now = time.monotonic()
        if now - self.told >= BETWEEN:
            self.told = now
            self._tell("step_end", run, step=step, loss=loss)

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, Any]) -> None:
        """Write the metrics of an epoch."""
        self._tell("epoch_end", run, epoch=epoch, metrics=metrics)

    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        """Write the event that the run has ended."""
        self._tell("run_end", run)

    def finished(self, run: Run) -> None:
        """Write the run's folder and result; on every machine except the first, this is the only event."""
        self._tell("finished", folder=str(run.folder), result=run.result)


class EventReader:
    """Shows the events of a relay; ``run`` is None until it has started, and stays None except on the first machine.

    ``run_folder`` and ``result`` are those of the run, once they are known.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.path, self.progress = folder / EVENTS, progress
        self.run: Run | None = None
        self.run_folder: Path | None = None
        self.result: dict[str, Any] = {}
        self._read = 0

    def update(self) -> None:
        """Show the events that were written since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().split(b"\n")[:-1]  # the last one may be incomplete
        for line in lines:
            self._read += len(line) + 1
            self._show(json.loads(line))

    def _show(self, about: dict[str, Any]) -> None:
        event, given = about.pop("event"), about.pop("run", None)
        if event == "say":
            self.progress.say(about["message"])
            return
        if event == "finished":
            self.run_folder, self.result = Path(about["folder"]), about["result"] or {}
            return
        if event == "run_start":
            self.run = self._start_run(given)
            self.run_folder = self.run.folder
        assert self.run is not None
        best = given.pop("best")
        self.run.best = Best(epoch=best[0], value=best[1]) if best else None
        for name in ALWAYS:
            setattr(self.run, name, tuple(given[name]) if name == "trainable" else given[name])
        getattr(self.progress, f"finetune_{event}")(run=self.run, **about)

    def _start_run(self, given: dict[str, Any]) -> Run:
        return Run(
            folder=Path(given.pop("folder")),
            recipe=Recipe.model_validate_json(json.dumps(given.pop("recipe"))),
            recipe_text="",
            classes=tuple(given.pop("classes")),
            stages=tuple(given.pop("stages")),
            **{name: given.pop(name) for name in START},
        )
