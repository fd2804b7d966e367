"""From the first process of a run to the one that has the terminal: what happens, one line of JSON after the other."""

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
BETWEEN = 0.1  # seconds, at least, between two steps that are told
START = ("device", "steps_per_epoch", "images", "weights", "resumed")
ALWAYS = ("epoch", "step", "phase", "trainable", "stop_reason", "result")


class Relay:
    """A watcher that writes a run's events into a file; a ``quiet`` one only what is said, into its own log."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        self.path, self.quiet, self.told = folder / EVENTS, quiet, 0.0

    def _tell(self, event: str, run: Run | None = None, **more: Any) -> None:
        about = {"event": event, **more}
        if run is not None:
            best = run.best and [run.best.epoch, run.best.value]
            about["run"] = {"best": best, **{name: getattr(run, name) for name in ALWAYS}}
        if event == "run_start" and run is not None:
            recipe = run.recipe.model_dump(mode="json", by_alias=True)  # with what the first process has settled
            about["run"] |= {"folder": str(run.folder), "classes": run.classes, "stages": run.stages, "recipe": recipe}
            about["run"] |= {name: getattr(run, name) for name in START}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(about) + "\n")

    def say(self, message: str) -> None:
        """Show a line."""
        sys.stdout.write(f"{message}\n")
        sys.stdout.flush()
        if not self.quiet:
            self._tell("say", message=message)

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Tell that the run begins."""
        self._tell("run_start", run)

    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        """Tell that an epoch begins."""
        self._tell("epoch_start", run, epoch=epoch)

    @hookimpl
    def finetune_step_end(self, run: Run, step: int, loss: float) -> None:
        """Tell of a step, if the last one told was long enough ago."""
        now = time.monotonic()
        if now - self.told >= BETWEEN:
            self.told = now
            self._tell("step_end", run, step=step, loss=loss)

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, Any]) -> None:
        """Tell what an epoch came to."""
        self._tell("epoch_end", run, epoch=epoch, metrics=metrics)

    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        """Tell that the run has ended, and how."""
        self._tell("run_end", run)

    def finished(self, run: Run) -> None:
        """Tell where the run is: on other machines than the first nothing else says it."""
        self._tell("finished", folder=str(run.folder), result=run.result)


class Screen:
    """Shows the events of a relay as they come; ``run`` is None until it has begun, and on other machines always.

    ``folder`` is the run's, once it is known, and ``result`` what it came to.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.path, self.progress = folder / EVENTS, progress
        self.run: Run | None = None
        self.run_folder: Path | None = None
        self.result: dict[str, Any] = {}
        self._read = 0

    def update(self) -> None:
        """Show what was written since."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().split(b"\n")[:-1]  # the last one may not be whole
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
            self.run = self._begun(given)
            self.run_folder = self.run.folder
        assert self.run is not None
        best = given.pop("best")
        self.run.best = Best(epoch=best[0], value=best[1]) if best else None
        for name in ALWAYS:
            setattr(self.run, name, tuple(given[name]) if name == "trainable" else given[name])
        getattr(self.progress, f"finetune_{event}")(run=self.run, **about)

    def _begun(self, given: dict[str, Any]) -> Run:
        return Run(
            folder=Path(given.pop("folder")),
            recipe=Recipe.model_validate_json(json.dumps(given.pop("recipe"))),
            recipe_text="",
            classes=tuple(given.pop("classes")),
            stages=tuple(given.pop("stages")),
            **{name: given.pop(name) for name in START},
        )
