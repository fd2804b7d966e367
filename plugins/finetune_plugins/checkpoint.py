"""A callback that asks for checkpoints: every few epochs, at the end, and whenever the run got better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveInt

from finetune import Callback, Options, Run, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable


class Checkpoint(Options):
    """When a checkpoint is saved, and how many stay."""

    keep: PositiveInt = 2
    """Numbered checkpoints that stay on disk; the best one stays besides."""
    every: PositiveInt = 1
    """Epochs between checkpoints; the last epoch and a new best one are always saved."""


@hookimpl
def finetune_callbacks() -> Iterable[Callback]:
    """Return the callback ``checkpoint``."""
    yield Callback(name="checkpoint", options=Checkpoint, build=Saver)


class Saver:
    """Asks the run for a checkpoint at the end of an epoch that deserves one."""

    def __init__(self, options: Checkpoint) -> None:
        self.options = options

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int) -> None:
        """Ask for a checkpoint of this epoch, or not."""
        due = epoch % self.options.every == 0
        last = epoch == run.recipe.train.epochs or run.stop_reason is not None
        better = run.best is not None and run.best.epoch == epoch
        if due or last or better:
            run.request_checkpoint(keep=self.options.keep)
