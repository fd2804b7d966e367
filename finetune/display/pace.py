"""How fast an epoch goes, and how long the rest of it will take."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.run import Run

WINDOW = 50  # steps; long enough to be smooth, short enough to notice a change


class Pace:
    """Measures the steps of one epoch: ``done`` of ``total``, on a clock that nobody can set.

    The first step compiles the network, so the clock of the measurement starts after it.
    """

    def __init__(self, total: int, done: int = 0, *, now: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self.now = total, done, now
        self.began = now()
        self.marks: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    @classmethod
    def of_epoch(cls, run: Run, epoch: int, *, now: Callable[[], float] = time.monotonic) -> Pace:
        """Return the pace of an epoch of a run, where that stands; in epoch 0 the head is fitted, without steps."""
        steps = run.steps_per_epoch if epoch else 0
        return cls(steps, run.step - (epoch - 1) * steps, now=now)

    def step(self, done: int) -> None:
        """Note that ``done`` steps of the epoch are behind us."""
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
        """Seconds until the last step of the epoch, never below zero; None while that cannot be known."""
        rate = self.rate
        if not rate:
            return None
        return max(0.0, (self.total - self.done) / rate - (self.now() - self.marks[-1][0]))
