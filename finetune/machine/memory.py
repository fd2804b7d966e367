"""Memory: how much is available, and how to return freed memory to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.machine import environment

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1 << 20


def read_available_memory_mb() -> float | None:
    """Return the memory that is available to new programs, in MB."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return None
    limit = environment.read_memory_limit()
    try:
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        used = 0
    return free if limit is None else max(0.0, min(free, (limit - used) / MB))


def release_memory() -> None:
    """Return freed memory to the system; only glibc supports this."""
    _find_trim()(0)


@cache
def _find_trim() -> Callable[[int], object]:
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
