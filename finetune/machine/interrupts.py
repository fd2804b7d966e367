"""Signals during a run: the first asks the run to save and stop, the second ends it at once."""

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
FROM_TERMINAL = 0x80  # SI_KERNEL of Linux: a key was pressed; what `kill` sends has another code
AGAIN, FOR_EVER = 2.0, 1e6  # seconds until a signal is raised once more, and that no signal is waited for
MEMBER, SAME = "FINETUNE_LAUNCH", 3.0  # set in processes of several, and seconds within which a signal is the same
WAKE = signal.SIGUSR2  # carries a signal from the listening thread into the main thread


class Asked(Exception):
    """Raised where the run may stop, once a signal has asked for it."""


class Stop:
    """Which signal has come; 0 for none."""

    def __init__(self) -> None:
        self.signal, self.since = 0, 0.0

    def check(self) -> None:
        """Raise ``Asked`` if a signal has come; called only where the state is whole."""
        if self.signal:
            raise Asked

    def ask(self, signum: int, frame: FrameType | None = None) -> None:
        """Note a signal; a second one ends the process without saving."""
        name = signal.Signals(signum).name
        if self.signal and MEMBER in os.environ and time.monotonic() - self.since < SAME:
            return  # a process of several hears of it from its parent, too
        if self.signal:
            say(f"{name} again: stopped without saving")
            os._exit(exit_code_of(signum))
        self.signal, self.since = signum, time.monotonic()
        say(f"{name}: saving, then stopping; once more stops at once")


class Listener:
    """A thread that alone receives this process's signals.

    MindSpore answers SIGINT by killing its own process while it compiles, and runs the handlers in threads of its
    own. So signals are blocked before any library starts a thread, and waited for here.

    Outside of runs a signal is raised in the main thread, once that is out of all ``whole`` blocks, and again until
    it is ``taken``: what is raised in a callback of Python's own, a weak reference's say, is lost.
    """

    def __init__(self) -> None:
        self.stops: list[Stop] = []
        self.early = 0
        self.blocks, self.taken = 0, False
        self.background = False

    def start(self) -> None:
        """Block the signals in this thread and all that it starts, and wait for them in a thread.

        A script's shell starts jobs in the background with SIGINT ignored, so that Ctrl-C does not reach them. `kill`
        still does. SIGHUP that is ignored, as under `nohup`, stays ignored.
        """
        self.background = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if self.background:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the system may drop what is ignored
        signals = {each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN}
        signal.signal(WAKE, self._raise)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        # Worker processes of a library, which have no such thread, are ended by it or by what watches over them.
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
                say(f"{signal.Signals(signum).name} again: stopped at once")
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
    def whole(self) -> Iterator[None]:
        """Raise nothing inside the block, but what came meanwhile at its end."""
        self.blocks += 1
        try:
            yield
        finally:
            self.blocks -= 1
        if self.early:
            self._raise(WAKE, None)


_listener: list[Listener] = []


def wait_for_signal(signals: set[signal.Signals], most: float) -> tuple[int, int]:
    """Return the next signal and the code of who sent it; the signal is 0 after ``most`` seconds.

    Only Linux can wait for a time, and tells the code.
    """
    if not hasattr(signal, "sigtimedwait"):
        return signal.sigwait(signals), 0
    found = signal.sigtimedwait(signals, most)
    return (found.si_signo, found.si_code) if found else (0, 0)


@contextmanager
def whole() -> Iterator[None]:
    """Let no interrupt into a block: MindSpore answers one inside its compiler with pages of its own state."""
    if not _listener or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _listener[0].whole():
        yield


def taken() -> None:
    """Say that a signal has had its answer, or that there is nothing left to interrupt."""
    for listener in _listener:
        listener.taken = True


def listen() -> None:
    """Take the signals of this process into a thread of their own; for a command line, as its first act."""
    if not _listener and threading.current_thread() is threading.main_thread():
        _listener.append(Listener())
        _listener[0].start()


@contextmanager
def watched() -> Iterator[Stop]:
    """Watch for signals inside the block; in a thread, where Python delivers none, the block just runs."""
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
        with handled(stop):
            yield stop


@contextmanager
def handled(stop: Stop) -> Iterator[None]:
    """Handle signals by Python's own handlers: for the Python API, where libraries have started threads before.

    A second one ends the run, not the process, which may be a notebook. While it runs a graph, MindSpore answers
    SIGINT by sending SIGTERM, so that nobody here can tell the two apart.
    """

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.signal:
            raise KeyboardInterrupt("stopped without saving")
        stop.ask(signum)

    with replaced({signum: ask for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN}):
        yield


@contextmanager
def keyboard() -> Iterator[None]:
    """Keep Ctrl-C a ``KeyboardInterrupt`` in a block that runs graphs, whatever MindSpore makes of it.

    For the Python API outside of runs; handlers that are not Python's defaults stay.
    """
    if _listener or threading.current_thread() is not threading.main_thread():
        yield
        return
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with replaced({signal.SIGTERM: signal.default_int_handler} if default else {}):
        yield


@contextmanager
def replaced(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Set signal handlers for the length of a block, and afterwards those that MindSpore replaces as well."""
    before = {signum: signal.getsignal(signum) for signum in (*handlers, signal.SIGINT)}
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, was in before.items():
            if was is not None:  # it was not set by Python
                signal.signal(signum, was)


def say(message: str) -> None:
    """Write a line to standard error from any thread; a closed terminal must not matter."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{message}\n".encode())
