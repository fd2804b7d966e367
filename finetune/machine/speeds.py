"""How fast this machine computes convolutions and matrix products, as `finetune doctor --measure` found it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from finetune.files import atomic
from finetune.files.home import cache_folder

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("convolution", "products")


def place() -> Path:
    """Return the file of what was measured."""
    return cache_folder() / "speeds.json"


def known() -> dict[str, float]:
    """Return GFLOP/s of a training step by name, if they were measured on this machine; else nothing."""
    try:
        found = json.loads(place().read_text(encoding="utf-8"))
        if found["machine"] == this_machine():
            return {name: float(found[name]) for name in NAMES}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def remember(measured: dict[str, float]) -> None:
    """Keep what was measured for the runs to come."""
    atomic.write_json(place(), {"machine": this_machine(), **measured})


def this_machine() -> str:
    """Return what a measurement holds for: processor, cores and MindSpore's version."""
    from finetune.machine import environment

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{environment.cpu_model()}, {cores} cores, MindSpore {environment.packages()['mindspore']}"
