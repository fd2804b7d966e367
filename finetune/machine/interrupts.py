"""Signal handling: the first signal asks a run to save and stop, the second ends it immediately."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune.errors import Interrupted, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FROM_TERMINAL = 0x80  # SI_KERNEL on Linux: a key was pressed; signals from `kill` have a different code
AGAIN, FOR_EVER = 2.0, 1e6  # seconds until an unanswered signal is raised again; seconds to wait for any signal
MEMBER, SAME = "FINETUNE_LAUNCH", 3.0  # variable set in launched processes; seconds within which signals count as one
WAKE = signal.SIGUSR2  # passes a signal from the listening thread on to the main thread


class StopRequested(Exception):
    """Raised at the next point where the run can stop, after a signal asked it to."""


class Stop:
    """The signal that was received; 0 for none."""

    def __init__(self) -> None:
        self.signal, self.since = 0, 0.0

    def check(self) -> None:
        """Raise ``StopRequested`` if a signal was received; called only where the state is consistent."""
        if self.signal:
            raise StopRequested

    def ask(self, signum: int, frame: FrameType | None = None) -> None:
        """Record a signal; a second one ends the process without saving."""
        name = signal.Signals(signum).name
        if self.signal and MEMBER in os.environ and time.monotonic() - self.since < SAME:
            return  # the parent of a launched process passes the same signal on
        if self.signal:
            say(f"{name} again: stopped without saving")
            os._exit(exit_code_of(signum))
        self.signal, self.since = signum, time.monotonic()
        say(f"{name}: saving and stopping; press Ctrl-C again to stop immediately")


class Listener:
    """The only thread that receives this process's signals.

    On SIGINT, MindSpore kills its own process while it compiles, and it runs signal handlers in its own threads. So
    signals are blocked before any library starts a thread, and this thread waits for them.

    Outside of runs a signal is raised in the main thread once that has left all ``uninterrupted`` blocks. It is raised
    again until it is ``taken``, because an exception in a callback, such as that of a weak reference, is lost.
    """

    def __init__(self) -> None:
        self.stops: list[Stop] = []
        self.early = 0
        self.blocks, self.taken = 0, False
        self.background = False

    def start(self) -> None:
        """Block the signals in this thread and all threads that it starts, and wait for them in a new thread.

        Shell scripts start background jobs with SIGINT ignored, so that Ctrl-C does not reach them; `kill` still does.
        If SIGHUP is ignored, as under `nohup`, it stays ignored.
        """
        self.background = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if self.background:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the system may drop ignored signals
        signals = {each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN}
        signal.signal(WAKE, self._raise)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        # Worker processes of a library have no such thread; the library or its watchdog ends them with SIGTERM.
        os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}))
        threading.Thread(target=self._listen, args=(signals,), daemon=True).start()

    def _listen(self, signals: set[signal.Signals]) -> None:
        while True:
            waiting = self.early and not self.taken
            signum, code = wait_for_signal(signals, AGAIN if waiting else FOR_EVER)
            if not signum:
                self._wake()
            elif signum == signal.SIGINT and self.background and code == FROM_TERMINAL:
                continue
            elif self.stops:
                self.stops[-1].ask(signum)
            elif self.early and not self.taken:
                say(f"{signal.Signals(signum).name} again: stopped immediately")
                os._exit(exit_code_of(signum))
            else:
                self.early = signum
                self._wake()

    def _wake(self) -> None:
        if self.early and not self.taken:
            signal.pthread_kill(threading.main_thread().ident or 0, WAKE)

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        if self.taken or self.blocks:
            return
        if self.early == signal.SIGINT:
            raise KeyboardInterrupt
        raise Interrupted(self.early, "stopped before training began; nothing was written")

    @contextmanager
    def is_complete(self) -> Iterator[None]:
        """Delay signals until the end of the block."""
        self.blocks += 1
        try:
            yield
        finally:
            self.blocks -= 1
        if self.early:
            self._raise(WAKE, None)


_listener: list[Listener] = []


def wait_for_signal(signals: set[signal.Signals], most: float) -> tuple[int, int]:
    """Wait for a signal; return it and the code of its sender, or 0 for both after ``most`` seconds.

    Only Linux supports a time limit and reports the code.
    """
    if not hasattr(signal, "sigtimedwait"):
        return signal.sigwait(signals), 0
    found = signal.sigtimedwait(signals, most)
    return (found.si_signo, found.si_code) if found else (0, 0)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Delay interrupts until the end of a block: inside its compiler, MindSpore would print pages of internal state."""
    if not _listener or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _listener[0].is_complete():
        yield


def mark_taken() -> None:
    """Record that a signal has been handled, or that nothing is left to interrupt."""
    for listener in _listener:
        listener.taken = True


def listen() -> None:
    """Receive the signals of this process in a thread of their own; a command line calls this first."""
    if not _listener and threading.current_thread() is threading.main_thread():
        _listener.append(Listener())
        _listener[0].start()


@contextmanager
def watch_signals() -> Iterator[Stop]:
    """Watch for signals inside the block; has no effect in a thread, where Python delivers none."""
    stop = Stop()
    if _listener:
        _listener[0].stops.append(stop)
        try:
            yield stop
        finally:
            _listener[0].stops.remove(stop)
    elif threading.current_thread() is not threading.main_thread():
        yield stop
    else:
        with handle_signals(stop):
            yield stop


@contextmanager
def handle_signals(stop: Stop) -> Iterator[None]:
    """Handle signals with Python's own handlers: for the Python API, where libraries have already started threads.

    A second signal ends the run, not the process, which may be a notebook. While MindSpore runs a graph, it responds to
    SIGINT by sending SIGTERM, so the two cannot be distinguished.
    """

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.signal:
            raise KeyboardInterrupt("stopped without saving")
        stop.ask(signum)

    with replace_handlers({signum: ask for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN}):
        yield


@contextmanager
def keep_keyboard_interrupt() -> Iterator[None]:
    """Make Ctrl-C raise ``KeyboardInterrupt`` in a block that runs graphs, where MindSpore turns it into SIGTERM.

    For the Python API outside of runs; handlers that are not Python's defaults are kept.
    """
    if _listener or threading.current_thread() is not threading.main_thread():
        yield
        return
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with replace_handlers({signal.SIGTERM: signal.default_int_handler} if default else {}):
        yield


@contextmanager
def replace_handlers(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Replace signal handlers inside a block; afterwards restore them, and the ones that MindSpore replaced."""
    before = {signum: signal.getsignal(signum) for signum in (*handlers, signal.SIGINT)}
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, was in before.items():
            if was is not None:  # None: it was not set by Python
                signal.signal(signum, was)


def say(message: str) -> None:
    """Write a line to standard error from any thread; errors of a closed terminal are ignored."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{message}\n".encode())
