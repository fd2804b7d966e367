"""Time slice: shortens the kernel's time slice for the threads of this process, for speed on a busy machine.

MindSpore's threads wait for one another by calling sched_yield in a loop. If other programs need the cores, each call
gives the core away, and Linux subtracts a full time slice from the caller's share. A thread that waits for a fraction
of a millisecond is then suspended for many milliseconds. The shorter the slice, the less a wait costs. Nothing changes
while the cores are free, and no result depends on it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

VARIABLE = "FINETUNE_TIME_SLICE_US"
MICROSECONDS, LONGEST = 100, 100_000  # the least and the most that Linux accepts
CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
ATTRIBUTES = "IIQiIQQQII"  # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, clamps
SIZE = struct.calcsize(ATTRIBUTES)
RUNTIME = 5
ORDINARY = (0, 3)  # SCHED_OTHER and SCHED_BATCH


def shorten_time_slice() -> int | None:
    """Shorten the time slice of this thread and of the threads that it starts from now on; return microseconds.

    FINETUNE_TIME_SLICE_US sets a different length, or with 0 disables this. Returns None if nothing was changed: not
    on Linux, with a scheduling policy set by the user, or if the kernel refuses.
    """
    wanted = parse_microseconds(os.environ.get(VARIABLE, ""))
    if not wanted or not sys.platform.startswith("linux") or platform.machine() not in CALLS:
        return None
    attributes = read_attributes()
    if attributes is None or attributes[1] not in ORDINARY:
        return None
    attributes[RUNTIME] = 1000 * wanted
    return wanted if write_attributes(attributes) else None


def parse_microseconds(text: str) -> int:
    """Parse the environment variable, limited to ``LONGEST``; text that is not a number counts as unset."""
    if not text.isdecimal():
        return MICROSECONDS
    return min(int(text[:20]), LONGEST)


def read_attributes() -> list[int] | None:
    """Return this thread's ``struct sched_attr``; None if the kernel refuses."""
    held = ctypes.create_string_buffer(SIZE)
    _, get = CALLS[platform.machine()]
    failed = ctypes.CDLL(None).syscall(get, 0, held, SIZE, 0)
    return None if failed else list(struct.unpack(ATTRIBUTES, held.raw))


def write_attributes(attributes: list[int]) -> bool:
    """Set this thread's ``struct sched_attr``; return False if the kernel refuses."""
    put, _ = CALLS[platform.machine()]
    failed = ctypes.CDLL(None).syscall(put, 0, struct.pack(ATTRIBUTES, *attributes), 0)
    return not failed
