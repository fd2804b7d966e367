"""Process state: checks that a plugin leaves folder, environment, signals and random generators unchanged."""

from __future__ import annotations

import io
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
OWN = "FINETUNE_"
LIBRARIES = ("LD_LIBRARY_PATH",)  # set by OpenCV on import


class Report(Protocol):
    """Records broken rules."""

    rules: Any

    def breaks(self, rule: str, text: str) -> None:
        """Record a broken rule."""


@contextmanager
def watch_process(report: Report, *, draws: bool = False) -> Iterator[None]:
    """Report what the code in the block prints or changes, and restore the state of the process.

    Set ``draws`` if MindSpore runs in the block, because it draws from the generators of the process.
    """
    generators = random.getstate(), np.random.get_state()
    random.random(), np.random.random()  # so that their state differs from a freshly seeded one
    before = read_state()
    out = io.StringIO()
    try:
        with redirect_stdout(out):
            yield
    finally:
        after = read_state()
        if draws:
            after |= {name: before[name] for name in ("random", "numpy")}
        for text in find_changes(before, after, out.getvalue()):
            report.breaks("process", text)
        restore_state(before)
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        sys.stdout.write(out.getvalue())


def read_state() -> dict[str, Any]:
    """Return the state of the process that all code shares."""
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "signals": {each: signal.getsignal(each) for each in SIGNALS},
        "random": random.getstate(),
        "numpy": tuple(np.random.get_state())[1:3],
    }


def find_changes(before: dict[str, Any], after: dict[str, Any], printed: str) -> Iterator[str]:
    """Yield each change, with its remedy."""
    if printed:
        yield f"prints {printed[:60]!r}; use run.say, findings or logging, because standard output is for programs"
    if before["folder"] != after["folder"]:
        yield f"changes the current folder to '{after['folder']}'; use absolute paths instead of os.chdir"
    for name, value in before["environment"].items():
        if after["environment"].get(name) != value and name not in LIBRARIES:
            yield f"changes the environment variable {name}; pass the value as an argument"
    if more := [name for name in after["environment"] if name.startswith(OWN) and name not in before["environment"]]:
        yield f"sets the environment variable {more[0]}; leave it to the user"
    for each in SIGNALS:
        if before["signals"][each] != after["signals"][each]:
            yield f"replaces the handler of {each.name}, which saves and stops runs; do not handle signals"
    if before["random"] != after["random"]:
        yield "draws from or seeds the generator of `random`; use your own, random.Random(seed)"
    if not all(map(np.array_equal, before["numpy"], after["numpy"])):
        yield "draws from or seeds the generator of numpy.random; use your own, np.random.default_rng(seed)"


def restore_state(before: dict[str, Any]) -> None:
    """Restore folder, environment and signals; the caller restores the generators."""
    if os.getcwd() != before["folder"]:
        os.chdir(before["folder"])
    os.environ.update(before["environment"])
    for name in [name for name in os.environ if name.startswith(OWN) and name not in before["environment"]]:
        del os.environ[name]
    for each in SIGNALS:
        if signal.getsignal(each) != before["signals"][each] and before["signals"][each] is not None:
            signal.signal(each, before["signals"][each])
