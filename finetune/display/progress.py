"""Progress of a run: a growing table with a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from finetune.display import epochtable
from finetune.display.epochtable import format_clock
from finetune.display.summary import format_path, summarise_result, summarise_run
from finetune.display.terminal import can_animate, create_console, make_printable, show_pairs
from finetune.errors import DivergedError
from finetune.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, RenderableType
    from rich.live import Live

    from finetune.run import Run


WINDOW = 50  # steps that the speed is averaged over: smooth, but quick to follow a change


class Pace:
    """Measures the speed of one epoch: ``done`` of ``total`` steps, on a monotonic clock.

    The first step compiles the network, so the measurement starts after it.
    """

    def __init__(self, total: int, done: int = 0, *, now: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self.now = total, done, now
        self.began = now()
        self.marks: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    @classmethod
    def of_epoch(cls, run: Run, epoch: int, *, now: Callable[[], float] = time.monotonic) -> Pace:
        """Return the pace of the current epoch of a run; epoch 0 fits the head and has no steps."""
        steps = run.steps_per_epoch if epoch else 0
        return cls(steps, run.step - (epoch - 1) * steps, now=now)

    def step(self, done: int) -> None:
        """Record that ``done`` steps of the epoch are complete."""
        self.done = done
        self.marks.append((self.now(), done))

    @property
    def elapsed(self) -> float:
        """Seconds since the epoch began."""
        return max(0.0, self.now() - self.began)

    @property
    def rate(self) -> float | None:
        """Steps per second; None until two steps are done."""
        if len(self.marks) < 2:
            return None
        (first, start), (last, end) = self.marks[0], self.marks[-1]
        return (end - start) / (last - first) if last > first else None

    @property
    def left(self) -> float | None:
        """Seconds until the end of the epoch, never negative; None while the speed is unknown."""
        rate = self.rate
        if not rate:
            return None
        return max(0.0, (self.total - self.done) / rate - (self.now() - self.marks[-1][0]))


HEARTBEAT = 30.0  # seconds between two lines of progress without a progress bar
SHORTEST_BAR = 10
ROWS = 25  # rows of the table between two headers


class Progress:
    """A watcher that shows a run on standard error; ``say`` prints a line above the progress bar.

    ``report`` tells whether to print the result at the end, or to leave that to the caller.
    """

    def __init__(
        self, out: Console | None = None, *, report: bool = True, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.out = out or create_console()
        self.report, self.now = report, now
        self.live: Live | None = None
        self.phase = 0
        self.epoch_seconds: float | None = None
        self.spoke = now()

    def say(self, message: str, style: str = "") -> None:
        """Show a line."""
        self.spoke = self.now()
        self.out.print(make_printable(message), style=style, soft_wrap=True)

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Show the run's settings."""
        self.say(f"{run.recipe.name}{', resumed' if run.resumed else ''}", style="bold")
        show_pairs(self.out, summarise_run(run))

    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        """Announce a new phase and start the progress bar."""
        self.opening = "starting"
        if run.phase != self.phase:
            self._enter_phase(run, epoch)
        self.pace = Pace.of_epoch(run, epoch, now=self.now)
        self._animate(run)

    def _enter_phase(self, run: Run, epoch: int) -> None:
        self.phase, self.opening = run.phase, "compiling"
        frozen = [stage for stage in run.stages if stage not in run.trainable]
        trains, stays = ", ".join(run.trainable), ", ".join(frozen) or "nothing"
        self.say(f"phase {run.phase}, from epoch {epoch}: training {trains}; frozen: {stays}")

    def _animate(self, run: Run) -> None:
        if self.live is not None or not can_animate(self.out):
            return
        from rich.live import Live

        self.rows = 0
        self.live = Live(
            console=self.out, get_renderable=lambda: self._render_bar(run), refresh_per_second=4, transient=True
        )
        self.live.start()

    @hookimpl
    def finetune_step_end(self, run: Run, step: int, loss: float) -> None:
        """Move the progress bar; without one, print a line every ``HEARTBEAT`` seconds."""
        self.loss = loss
        self.pace.step(step - (run.epoch - 1) * run.steps_per_epoch)
        if self.live is None and self.now() - self.spoke >= HEARTBEAT:
            self.say(f"epoch {run.epoch}/{run.recipe.train.length}, {', '.join(self._format_position(run))}")

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, Any]) -> None:
        """Print the epoch's line."""
        self.epoch_seconds = metrics["seconds"]
        if self.live is None:
            self.say(epochtable.format_sentence(metrics, run))
            return
        self._add_row(run, metrics)
        self.pace = Pace(0, now=self.now)

    def _add_row(self, run: Run, metrics: dict[str, Any]) -> None:
        columns = epochtable.choose_columns(self.out.width, run.recipe.evaluate.metric)
        if self.rows % ROWS == 0:
            self.out.print(epochtable.format_header(columns), style="bold", no_wrap=True, crop=True)
        self.rows += 1
        style = "green" if epochtable.is_best(metrics, run) else ""
        self.out.print(epochtable.format_row(columns, metrics, run), style=style, no_wrap=True, crop=True)

    @hookimpl
    def finetune_run_error(self, run: Run, error: BaseException) -> None:
        """Remove the progress bar and print how to resume."""
        self._stop()
        if any(run.folder.glob("checkpoints/*")) and not isinstance(error, DivergedError):
            self.say(f"resume with: finetune run --resume {format_path(run.folder)}")

    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        """Remove the progress bar and print the result."""
        self._stop()
        if self.report and run.result is not None:
            show_pairs(self.out, summarise_result(run.result, run.folder))

    def _stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _format_position(self, run: Run) -> Iterator[str]:
        """Yield the progress of the epoch, the most important item first."""
        pace = self.pace
        yield f"step {pace.done}/{pace.total}"
        if pace.left is not None:
            yield f"{format_clock(pace.left)} left{self._format_run(run, pace.left)}"
        if pace.rate:
            yield f"{pace.rate * run.images['train'] / run.steps_per_epoch:.3g} images/s"
        yield f"loss {self.loss:.4f}"

    def _format_run(self, run: Run, left: float) -> str:
        if self.epoch_seconds is None:
            return ""
        return f" (run {format_clock(left + (run.recipe.train.length - run.epoch) * self.epoch_seconds)})"

    def _render_bar(self, run: Run) -> RenderableType:
        pace, epoch = self.pace, f"{run.epoch}/{run.recipe.train.length}"
        if run.epoch == 0:
            return f"fitting the head {format_clock(pace.elapsed)}"
        if pace.total == 0:
            return f"{epoch} finishing {format_clock(pace.elapsed)}"
        if not pace.marks:
            return f"{epoch} {self.opening} {format_clock(pace.elapsed)}"
        if pace.done >= pace.total:
            return f"{epoch} evaluating {format_clock(self.now() - pace.marks[-1][0])}"
        texts = list(self._format_position(run))
        while len(texts) > 1 and len(epoch) + sum(len(text) + 1 for text in texts) + SHORTEST_BAR > self.out.width:
            texts.pop()
        return draw_bar(epoch, pace.done / pace.total, texts)


def draw_bar(name: str, share: float, texts: Sequence[str]) -> RenderableType:
    """Return a progress bar between a name and texts, as wide as the terminal."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for _ in texts:
        grid.add_column(no_wrap=True)
    grid.add_row(name, ProgressBar(total=1.0, completed=share), *texts)
    return grid
