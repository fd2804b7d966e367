"""Measured speeds: milliseconds per training step of each stage in each form, from `finetune doctor --measure`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from finetune.files import atomic
from finetune.files.atomic import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


Rates = dict[str, dict[str, float]]
"""Milliseconds of a training step by kind (``convolutions``, ``matmul``, ``avx512``) and stage."""


def locate_file() -> Path:
    """Return the path of the file with the measurements."""
    return cache_folder() / "speeds.json"


def read_speeds(backbone: str, code: str) -> Rates:
    """Return the measurements of a backbone on this machine with this hash of its code; empty without any."""
    try:
        kept = json.loads(locate_file().read_text(encoding="utf-8"))["backbones"][backbone]
        if kept["machine"] == describe_machine() and kept["code"] == code:
            return {kind: {stage: float(ms) for stage, ms in each.items()} for kind, each in kept["ms"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def save_speeds(backbone: str, code: str, rates: Mapping[str, Mapping[str, float]]) -> None:
    """Save measurements for later runs."""
    try:
        kept = dict(json.loads(locate_file().read_text(encoding="utf-8"))["backbones"])
    except (OSError, ValueError, KeyError, TypeError):  # no file yet, or one of an older version
        kept = {}
    kept[backbone] = {"machine": describe_machine(), "code": code, "ms": rates}
    atomic.write_json(locate_file(), {"backbones": kept})


def describe_machine() -> str:
    """Return what a measurement is valid for: processor, instruction sets, cores, and MindSpore's version."""
    from finetune.machine import environment
    from finetune.machine.environment import count_usable_cores, read_cpu_flags

    flags = " ".join(flag for flag in environment.ISA_FLAGS if flag in read_cpu_flags())
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "-")
    version = environment.list_packages()["mindspore"]
    return f"{environment.read_cpu_model()}, {flags}, {limit}, {count_usable_cores()} cores, MindSpore {version}"
