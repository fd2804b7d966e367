"""What a plugin must leave alone in the process that it shares: looked at before and after its code has run."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 5.0  # seconds in which a child process may end
OWN = "FINETUNE_"
LIBRARIES = ("LD_LIBRARY_PATH",)  # OpenCV sets it when it is imported
_HOOKED: list[bool] = []
_UNPICKLED: list[list[str]] = []  # of the checks under way


class Report(Protocol):
    """Where broken rules are noted."""

    rules: Any

    def breaks(self, rule: str, text: str) -> None:
        """Note one."""


@contextmanager
def watched(report: Report, *, draws: bool = False) -> Iterator[None]:
    """Note what the code in the block prints, unpickles or changes, and put back what can be put back.

    ``draws`` says that MindSpore is at work, which itself draws from the generators of the process.
    """
    generators = random.getstate(), np.random.get_state()
    random.random(), np.random.random()  # so that they are not where a seed would put them
    before = state()
    out, unpickled = io.StringIO(), list[str]()
    listen()
    _UNPICKLED.append(unpickled)
    try:
        with redirect_stdout(out):
            yield
    finally:
        _UNPICKLED[:] = [each for each in _UNPICKLED if each is not unpickled]
        after = state()
        if draws:
            after |= {name: before[name] for name in ("random", "numpy")}
        for text in changes(before, after, out.getvalue()):
            report.breaks("process", text)
        if unpickled:
            text = f"{unpickled[0]} was unpickled, which can run any code; read JSON, safetensors, or .npy of numbers"
            report.breaks("pickle", text)
        restore(before)
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        sys.stdout.write(out.getvalue())


def listen() -> None:
    """Hear of everything that is unpickled in this process, from the first check on."""
    if not _HOOKED:
        _HOOKED.append(True)
        sys.addaudithook(heard)


def heard(event: str, arguments: tuple[Any, ...]) -> None:
    """Keep the name of a class or function that a pickle asks for."""
    if event == "pickle.find_class":
        for each in _UNPICKLED:
            each.append(".".join(map(str, arguments)))


def state() -> dict[str, Any]:
    """Return what a plugin shares with everyone else in the process."""
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "signals": {each: signal.getsignal(each) for each in SIGNALS},
        "random": random.getstate(),
        "numpy": tuple(np.random.get_state())[1:3],
        "processes": {each.pid for each in multiprocessing.active_children()},
    }


def changes(before: dict[str, Any], after: dict[str, Any], printed: str) -> Iterator[str]:
    """Yield what is no longer as it was, and what to do."""
    if printed:
        yield f"prints {printed[:60]!r}; standard output is for programs, so use run.say, findings, or logging"
    if before["folder"] != after["folder"]:
        yield f"changes the folder to '{after['folder']}'; use absolute paths instead of os.chdir"
    for name, value in before["environment"].items():
        if after["environment"].get(name) != value and name not in LIBRARIES:
            yield f"changes the environment variable {name}; pass what you need as an argument"
    if more := [name for name in after["environment"] if name.startswith(OWN) and name not in before["environment"]]:
        yield f"sets the environment variable {more[0]}; leave it to the user"
    for each in SIGNALS:
        if before["signals"][each] != after["signals"][each]:
            yield f"handles {each.name} itself, by which runs are saved and stopped; leave signals alone"
    if before["random"] != after["random"]:
        yield "draws from, or seeds, the generator of `random`; make one of your own, random.Random(seed)"
    if not all(map(np.array_equal, before["numpy"], after["numpy"])):
        yield "draws from, or seeds, the generator of numpy.random; make one of your own, np.random.default_rng(seed)"
    if left_behind(after["processes"] - before["processes"]):
        yield "leaves a process behind; the engine reads in threads, so start none, or join it"


def restore(before: dict[str, Any]) -> None:
    """Put back folder, environment and signals; generators are put back beside it."""
    if os.getcwd() != before["folder"]:
        os.chdir(before["folder"])
    os.environ.update(before["environment"])
    for name in [name for name in os.environ if name.startswith(OWN) and name not in before["environment"]]:
        del os.environ[name]
    for each in SIGNALS:
        if signal.getsignal(each) != before["signals"][each] and before["signals"][each] is not None:
            signal.signal(each, before["signals"][each])


def left_behind(processes: set[int]) -> bool:
    """Tell whether one of some child processes goes on; MindSpore starts some that end by themselves."""
    children = [each for each in multiprocessing.active_children() if each.pid in processes]
    for each in children:
        each.join(GRACE)
    return any(each.is_alive() for each in children)
