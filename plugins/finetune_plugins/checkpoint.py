"""A callback that asks for checkpoints: every so often, at the end, and whenever the run got better."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from pydantic import PositiveInt, field_validator

from finetune import Callback, Finding, Options, Run, RunFacts, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EVERY = re.compile(r"([1-9]\d{0,8}) (epoch|step|minute)s?")


class Checkpoint(Options):
    """How often a checkpoint is saved, and how many are kept."""

    keep: PositiveInt = 2
    """Number of recent checkpoints to keep on disk, in addition to the best one."""
    every: PositiveInt | str = 1
    """Interval, such as `2 epochs`, `500 steps` or `30 minutes`; a number alone means epochs. The last epoch and each
    new best epoch are always saved."""

    @field_validator("every")
    @classmethod
    def known(cls, every: int | str) -> int | str:
        """Take a number of epochs, or a number and its unit."""
        if isinstance(every, str) and not EVERY.fullmatch(every):
            raise ValueError(f"'{every}' is no interval; write `2 epochs`, `500 steps` or `30 minutes`")
        return every


@hookimpl
def finetune_callbacks() -> Iterable[Callback]:
    """Return the callback ``checkpoint``."""
    yield Callback(name="checkpoint", options=Checkpoint, build=Saver, check=check)


def parse_interval(every: int | str) -> tuple[int, str]:
    """Return a number and its unit: epoch, step or minute."""
    found = EVERY.fullmatch(str(every))
    return (int(found[1]), found[2]) if found else (int(every), "epoch")


def check(options: Checkpoint, facts: RunFacts) -> Iterator[Finding]:
    """Yield an interval that is longer than the run."""
    count, unit = parse_interval(options.every)
    most = {"epoch": facts.recipe.train.length, "step": facts.steps}.get(unit)
    if most and count > most:
        text = f"longer than the run of {most} {unit}{'s' * (most > 1)}, so that only the best and last epoch are saved"
        yield Finding(severity="note", subject="every", text=f"{text}; lower it to save in between")


class Saver:
    """Asks the run for a checkpoint after a step or an epoch that deserves one."""

    def __init__(self, options: Checkpoint) -> None:
        self.count, self.unit = parse_interval(options.every)
        self.keep, self.asked = options.keep, time.monotonic()

    @hookimpl
    def finetune_step_end(self, run: Run, step: int) -> None:
        """Ask for a checkpoint inside the epoch, or not."""
        if self.unit == "step":
            due = step % self.count == 0
        else:
            due = self.unit == "minute" and time.monotonic() - self.asked >= 60 * self.count
        if due:
            self.ask(run)

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int) -> None:
        """Ask for a checkpoint of this epoch, or not."""
        due = self.unit == "epoch" and epoch % self.count == 0
        last = epoch == run.recipe.train.length or run.stop_reason is not None
        better = run.best is not None and run.best.epoch == epoch
        if due or last or better:
            self.ask(run)

    def ask(self, run: Run) -> None:
        """Ask for a checkpoint."""
        self.asked = time.monotonic()
        run.request_checkpoint(keep=self.keep)
