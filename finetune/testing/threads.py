"""Thread checks: compares the results of several threads with those of one."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

THREADS = 4
OFTEN = 1e-5  # seconds between switches of threads, so that races show


def make_orders(count: int) -> list[list[int]]:
    """Return an order of ``count`` jobs for each thread: ascending, descending, and two at random."""
    rng = np.random.default_rng(0)
    there = list(range(count))
    return [there, there[::-1], *(rng.permutation(count).tolist() for _ in range(THREADS - 2))]


def find_differences(work: Callable[[T], Any], jobs: Sequence[T], alone: Sequence[Any]) -> list[tuple[int, str]]:
    """Return the jobs, by number, whose results in threads differ from ``alone`` or which raised an error."""
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

    threads = [threading.Thread(target=run, args=(order,), daemon=True) for order in make_orders(len(jobs))]
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


def describe_differences(wrong: Sequence[tuple[int, str]]) -> str:
    """Describe the first error, or the difference, in threads."""
    errors = [error for _, error in wrong if error]
    return f"raised {errors[0].partition(chr(10))[0][:200]}" if errors else "differed from the result of one thread"
