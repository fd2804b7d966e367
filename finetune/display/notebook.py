"""Notebook progress: one block of output below the cell, updated in place."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from finetune.display import html
from finetune.display.epochtable import format_clock
from finetune.display.progress import Pace, Progress
from finetune.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.run import Run

REST = 0.25  # seconds between two updates
LINES = 100  # messages that stay visible; all of them are in log.txt


def create_progress() -> Progress | Block:
    """Return the progress display for this environment: a block in a notebook, else a table or lines."""
    return Block() if is_notebook() else Progress()


def is_notebook() -> bool:
    """Return whether this code runs in a Jupyter kernel."""
    python = sys.modules.get("IPython")
    return python is not None and hasattr(python.get_ipython(), "kernel")


class Block:
    """A watcher that shows a run as one block of a notebook; ``say`` adds a line to the block."""

    def __init__(self, put: Callable[[str], None] | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.put, self.now = put or Place(), now
        self.run: Run | None = None
        self.lines: deque[str] = deque(maxlen=LINES)
        self.pace = Pace(0, now=now)
        self.shown = -REST

    def say(self, message: str) -> None:
        """Show a line."""
        self.lines.append(message)
        self.show()

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Show the run's settings."""
        self.run = run
        self.show()

    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        """Start a progress bar."""
        self.pace = Pace.of_epoch(run, epoch, now=self.now)
        self.update_block()

    @hookimpl
    def finetune_step_end(self, run: Run, step: int, loss: float) -> None:
        """Move the bar."""
        self.pace.step(step - (run.epoch - 1) * run.steps_per_epoch)
        self.update_block()

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, Any]) -> None:
        """Add the epoch to the table."""
        self.update_block()

    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        """Show the result."""
        self.pace = Pace(0, now=self.now)
        self.show()

    def update_block(self) -> None:
        """Update the block, at most once every ``REST`` seconds."""
        if self.now() - self.shown >= REST:
            self.show()

    def show(self) -> None:
        """Update the block now."""
        self.shown = self.now()
        self.put(self.render_html())

    def render_html(self) -> str:
        """Render the block: the messages, then the run with its progress bar."""
        lines = "\n".join(self.lines)
        messages = f"<pre>{html.escape_text(lines)}</pre>" if lines else ""
        if self.run is None:
            return messages
        fits = self.run.epoch == 0 and bool(self.run.trainable) and not self.run.history
        return (
            messages
            + html.render_run(self.run)
            + (self.render_bar(self.run) if self.pace.total else "<p>fitting the head</p>" * fits)
        )

    def render_bar(self, run: Run) -> str:
        """Render the progress of the epoch."""
        left = "" if self.pace.left is None else f", {format_clock(self.pace.left)} left"
        words = f"epoch {run.epoch} of {run.recipe.train.length}, step {self.pace.done} of {self.pace.total}{left}"
        return (
            f'<p><progress value="{self.pace.done}" max="{self.pace.total}"></progress> {html.escape_text(words)}</p>'
        )


class Place:
    """An output below a cell; each call replaces its HTML."""

    def __init__(self) -> None:
        self.handle: Any = None

    def __call__(self, code: str) -> None:
        """Show HTML in place of the previous one."""
        from IPython.display import HTML, display

        if self.handle is None:
            self.handle = display(HTML(code), display_id=True)
        else:
            self.handle.update(HTML(code))
