"""Processor time and waiting, for tests that must not depend on what else the machine does.

A test that bounds how long something takes measures processor time. A test that waits does so for a condition, with a
limit that only a process that hangs can reach.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    import subprocess
    from collections.abc import Callable, Iterator

LONGEST = 240.0  # seconds of a wait; what takes longer hangs. Less than pytest's limit for a test.
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Used:
    """Processor seconds that a block took, once it has ended."""

    seconds: float = 0.0


@contextmanager
def processor_time() -> Iterator[Used]:
    """Measure the processor time of this process, and of the child processes that ended in the block."""
    used, before = Used(), total_processor_time()
    yield used
    used.seconds = total_processor_time() - before


def total_processor_time() -> float:
    """Return the processor seconds of this process so far, and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def least_processor_time(call: Callable[[], object], bound: float, *, tries: int = 5) -> float:
    """Return the least processor time that a call took; the first that is within the bound ends the tries.

    On a busy machine the same instructions take longer, since programs share caches and cores.
    """
    least = float("inf")
    for _ in range(tries):
        with processor_time() as used:
            call()
        least = min(least, used.seconds)
        if least < bound:
            break
    return least


def processor_time_of(pid: int) -> float:
    """Return the processor seconds of a process so far; it may have ended, but not been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds; fail where the process has ended before, or something hangs."""
    end = time.monotonic() + LONGEST
    while not condition():
        if process is not None and process.poll() is not None:
            assert condition(), f"the process ended with {process.returncode}: {process.communicate()[1]}"
            return
        assert time.monotonic() < end, f"waited for {LONGEST:.0f} s"
        time.sleep(0.02)


def catches(pid: int, signum: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal, or blocks it in order to wait for it, as finetune does."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    masks = [int(status.partition(f"{name}:")[2].split()[0], 16) for name in ("SigCgt", "SigBlk")]
    return any(mask >> (signum - 1) & 1 for mask in masks)
