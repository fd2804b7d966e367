"""Callback ``checkpoint``: requests checkpoints at an interval, at the end, and at each new best epoch."""

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
        """Accept a number of epochs, or a number with its unit."""
        if isinstance(every, str) and not EVERY.fullmatch(every):
            raise ValueError(f"'{every}' is not an interval; write `2 epochs`, `500 steps` or `30 minutes`")
        return every


@hookimpl
def finetune_callbacks() -> Iterable[Callback]:
    """Return the callback ``checkpoint``."""
    yield Callback(name="checkpoint", options=Checkpoint, build=CheckpointCallback, check=check)


def parse_interval(every: int | str) -> tuple[int, str]:
    """Parse an interval into a number and its unit: epoch, step or minute."""
    found = EVERY.fullmatch(str(every))
    return (int(found[1]), found[2]) if found else (int(every), "epoch")


def check(options: Checkpoint, facts: RunFacts) -> Iterator[Finding]:
    """Yield a note if the interval is longer than the run."""
    count, unit = parse_interval(options.every)
    most = {"epoch": facts.recipe.train.length, "step": facts.steps}.get(unit)
    if most and count > most:
        text = f"longer than the run of {most} {unit}{'s' * (most > 1)}, so only the best and the last epoch are saved"
        yield Finding(severity="note", subject="every", text=f"{text}; lower it to save in between")


class CheckpointCallback:
    """Requests a checkpoint when the interval has passed, or after the best or last epoch."""

    def __init__(self, options: Checkpoint) -> None:
        self.count, self.unit = parse_interval(options.every)
        self.keep, self.asked = options.keep, time.monotonic()

    @hookimpl
    def finetune_step_end(self, run: Run, step: int) -> None:
        """Request a checkpoint inside an epoch if the interval has passed."""
        if self.unit == "step":
            due = step % self.count == 0
        else:
            due = self.unit == "minute" and time.monotonic() - self.asked >= 60 * self.count
        if due:
            self.ask(run)

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int) -> None:
        """Request a checkpoint of this epoch if the interval has passed, or if it is the best or last."""
        due = self.unit == "epoch" and epoch % self.count == 0
        last = epoch == run.recipe.train.length or run.stop_reason is not None
        better = run.best is not None and run.best.epoch == epoch
        if due or last or better:
            self.ask(run)

    def ask(self, run: Run) -> None:
        """Request a checkpoint, and restart the interval."""
        self.asked = time.monotonic()
        run.request_checkpoint(keep=self.keep)
