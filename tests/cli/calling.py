"""Calling the command line in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import finetune
from finetune.cli import main

RECIPE = """\
backbone: {use: resnext_nano, weights: none}
dataset: {use: folder, root: photos}
image: {size: 32, resize: 36}
augment: []
freeze: {use: gradual, schedule: {1: head, 2: all}}
optimizer: {use: adamw, lr: 3e-3}
train: {epochs: 2, batch_size: 8}
"""

Finetune = Callable[..., subprocess.CompletedProcess[str]]


def environment(repo: Path, **more: str) -> dict[str, str]:
    """Return the environment of a child that imports what this process does: the source tree, or a wheel."""
    if not Path(finetune.__file__).is_relative_to(repo):
        return {**os.environ, **more}
    paths = [repo, repo / "model", repo / "plugins", *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **more}


def command(*arguments: str | Path) -> list[str]:
    """Return the command line that starts ``finetune``."""
    return [sys.executable, "-P", "-m", "finetune", *map(str, arguments)]


def call_in_process(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call the command line in this process, which saves the seconds that importing MindSpore takes."""
    words = [str(each) for each in arguments]
    with ExitStack() as stack:
        stack.enter_context(chdir(cwd or Path.cwd()))
        out = stack.enter_context(redirect_stdout(io.StringIO()))
        err = stack.enter_context(redirect_stderr(io.StringIO()))
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the JSON object on the last line of standard output."""
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
