"""Signals during a run: the first asks the run to save and stop, the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Asked(Exception):
    """Raised where the run may stop, once a signal has asked for it."""


class Stop:
    """Which signal has come; 0 for none."""

    def __init__(self) -> None:
        self.signal = 0

    def check(self) -> None:
        """Raise ``Asked`` if a signal has come; called only where the state is whole."""
        if self.signal:
            raise Asked

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """Note a signal; a second one ends the process without saving."""
        name = signal.Signals(signum).name
        if self.signal:
            os.write(2, f"\n{name} again: stopped without saving\n".encode())
            os._exit(128 + signum)
        self.signal = signum
        os.write(2, f"\n{name}: saving, then stopping; once more stops at once\n".encode())


@contextmanager
def watched() -> Iterator[Stop]:
    """Watch for signals inside the block; in a thread, where Python delivers none, the block just runs."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, stop.ask)
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        sys.stderr.flush()
