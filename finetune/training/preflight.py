"""What can be known before anything is scanned or downloaded: whether the device and the disk are there.

Nothing in here imports MindSpore, unless the machine has an accelerator to ask it about.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from finetune.errors import ResourceError
from finetune.machine import device
from finetune.text import escape_line

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan

MB = 2**20
LEAST = 1.0  # MB that are free where a run is written; what it needs in all is known once the network is built


def check(plan: Plan, resume: Path | None = None) -> None:
    """Raise ``UsageError`` for a device that the machine lacks, ``ResourceError`` for a disk that takes no run.

    A run that resumes is written into its folder ``resume``, wherever the recipe's output is.
    """
    check_device(plan)
    check_output(resume or plan.recipe.output)


def check_device(plan: Plan) -> None:
    """Raise ``UsageError`` where the machine lacks the device of a plan, or has fewer of them."""
    runner = plan.recipe.runner
    device.check_count(device.choose(runner.device), runner.devices)


def check_output(output: Path) -> float | None:
    """Return how many MB are free where a run goes; raise ``ResourceError`` where none can be written.

    Returns None for a file system that does not report its size, as some network drives do not.
    """
    place, name = existing(output), escape_line(str(output))
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "takes no files" if place.is_dir() else "is a file"
        raise ResourceError(
            f"runs cannot be written to {name}: {escape_line(str(place))} {why}; choose another with --output"
        )
    usage = shutil.disk_usage(place)
    if not usage.total:
        return None
    free = usage.free / MB
    if free < LEAST:
        raise ResourceError(f"the disk of {name} is full; free some space or choose another with --output")
    return free


def existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
