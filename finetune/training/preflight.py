"""Checks of the device and the disk before anything is scanned or downloaded.

Nothing here imports MindSpore, unless the machine has an accelerator to ask it about.
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
LEAST = 1.0  # MB of free disk space to start with; the total need is known once the network is built


def check_machine(plan: Plan, resume: Path | None = None) -> None:
    """Raise ``UsageError`` for a device that is not available, and ``ResourceError`` for a disk that is not writable.

    A resumed run is written into its folder ``resume``, whatever the recipe's output is.
    """
    check_device(plan)
    check_output(resume or plan.recipe.output)


def check_device(plan: Plan) -> None:
    """Raise ``UsageError`` if the machine lacks the device of a plan, or has too few of them."""
    runner = plan.recipe.runner
    device.check_count(device.choose_device(runner.device), runner.devices)


def check_output(output: Path) -> float | None:
    """Return the free disk space in MB of an output folder; raises ``ResourceError`` if it cannot be written.

    Returns None for a file system that does not report its size, such as some network drives.
    """
    place, name = find_existing(output), escape_line(str(output))
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "is not writable" if place.is_dir() else "is a file"
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


def find_existing(path: Path) -> Path:
    """Return the nearest existing folder of a path."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
