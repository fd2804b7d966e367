"""The same work again: from several threads at once, each in an order of its own."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

THREADS = 4
OFTEN = 1e-5  # seconds between two switches of threads, so that they get into each other's way


def orders(count: int) -> list[list[int]]:
    """Return an order of ``count`` jobs for each thread: as they are, backwards, and two at random."""
    rng = np.random.default_rng(0)
    there = list(range(count))
    return [there, there[::-1], *(rng.permutation(count).tolist() for _ in range(THREADS - 2))]


def differing(work: Callable[[T], Any], jobs: Sequence[T], alone: Sequence[Any]) -> list[tuple[int, str]]:
    """Return the jobs, by number, of which threads made something else than ``alone``, or raised an error."""
    wrong: dict[int, str] = {}
    start = threading.Barrier(THREADS)

    def run(order: list[int]) -> None:
        start.wait()
        for number in order:
            try:
                if work(jobs[number]) != alone[number]:
                    wrong.setdefault(number, "")
            except Exception as error:
                wrong.setdefault(number, f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(order,), daemon=True) for order in orders(len(jobs))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(OFTEN)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    return sorted(wrong.items())


def told(wrong: Sequence[tuple[int, str]]) -> str:
    """Return what threads saw in place of the same."""
    errors = [error for _, error in wrong if error]
    return f"raised {errors[0].partition(chr(10))[0][:200]}" if errors else "gave something else than alone"
