"""CUDA GPUs. Untested on hardware: MindSpore 2.10 has no plug-in for CUDA versions newer than 11."""

from __future__ import annotations

import os
from glob import glob
from typing import TYPE_CHECKING, Any

from finetune.machine import cpu
from finetune.machine.kind import Kind

if TYPE_CHECKING:
    from finetune.machine.kind import Settings

NODE, WSL = "/dev/nvidia0", "/dev/dxg"


def find_missing_driver() -> str:
    """Return which part of the driver is missing, or an empty string; a container may lack the first device."""
    found = os.path.exists(NODE) or os.path.exists(WSL) or glob(f"{NODE[:-1]}[0-9]*")
    return "" if found else f"{NODE} is missing"


def limit_memory(ms: Any, settings: Settings) -> str:
    """Limit the device memory."""
    if settings.memory_gb:
        ms.runtime.set_memory(max_size=f"{settings.memory_gb}GB")
    return "not used"


KIND = Kind(
    name="gpu",
    target="GPU",
    missing=find_missing_driver,
    prepare=limit_memory,
    amp="O2",
    sink=0,
    queue=True,
    pins=True,
    environment=cpu.build_environment,
)
