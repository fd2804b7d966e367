"""A bad input: what makes it, the exit code it must end with, and what must be said of it."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import invalidate_caches
from typing import TYPE_CHECKING, Any
from unittest import mock

from finetune.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Make = Callable[[Path], Sequence[str | Path]]

SITE = "site"  # a folder of this name in a case's own is on Python's path: plugins are installed there
LONGEST = 160  # characters of a message in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``make`` writes the input into an empty folder and returns the command line, which is run in there.

    The message must have every text of ``says``: the thing that is wrong first, then what to do.
    """

    fault: str
    name: str
    make: Make
    code: int
    says: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.fault} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a case ended: the exit code, the answer for programs and its message, all of standard error, CPU seconds and
    MB more."""

    code: int
    answer: dict[str, Any]
    message: str
    stderr: str
    seconds: float
    mb: float


def case(fault: str, name: str, make: Make, code: int, *says: str) -> Case:
    """Return a case."""
    return Case(fault=fault, name=name, make=make, code=code, says=says)


def outcome(each: Case, folder: Path) -> Outcome:
    """Run a case in this process, in an empty folder."""
    with ExitStack() as stack:
        stack.enter_context(chdir(folder))
        stack.enter_context(mock.patch.dict(os.environ, FINETUNE_HOME=str(folder / "home"), FINETUNE_OFFLINE="1"))
        words = [*map(str, each.make(folder)), "--json"]
        stack.enter_context(installed(folder / SITE))
        out = stack.enter_context(redirect_stdout(io.StringIO()))
        err = stack.enter_context(redirect_stderr(io.StringIO()))
        start, before = time.process_time(), peak()
        code = main(words)
        seconds, mb = time.process_time() - start, peak() - before
    last = out.getvalue().splitlines()[-1:] or ["{}"]
    answer = json.loads(last[0])
    message = str(answer.get("error", {}).get("message", ""))
    return Outcome(code=code, answer=answer, message=message, stderr=err.getvalue(), seconds=seconds, mb=mb)


def peak() -> float:
    """Return the most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def installed(site: Path) -> Iterator[None]:
    """Let Python find what lies in a folder, and forget it afterwards."""
    if not site.is_dir():
        yield
        return
    before = set(sys.modules)
    invalidate_caches()
    sys.path.insert(0, str(site))
    try:
        yield
    finally:
        sys.path.remove(str(site))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
                del sys.modules[name]


def told(each: Case, found: Outcome, folder: Path) -> str:
    """Return the line of the message that names what is wrong, with short names of files, for the table."""
    lines = found.message.replace(f"{folder}/", "").replace(str(folder), ".").splitlines()
    line = next((line for line in lines if each.says[0] in line), "").strip()
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1].rstrip()}…"
