"""Ascend NPUs. Untested on hardware; a test checks the MindSpore functions it uses against the installed version."""

from __future__ import annotations

import os
from glob import glob
from typing import TYPE_CHECKING, Any

from finetune.machine.kind import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.machine.kind import Settings

NODE = "/dev/davinci0"
CONNECT, EXECUTE = 7200, 17340  # seconds; HCCL accepts no more
SINK = 20  # steps: a signal is noticed within half a minute, and a loss is read back every few seconds


def find_missing_driver() -> str:
    """Return which part of the driver is missing, or an empty string; a container may lack the first device."""
    found = os.path.exists(NODE) or glob(f"{NODE[:-1]}[0-9]*")
    return "" if found else f"{NODE} is missing"


def limit_memory(ms: Any, settings: Settings) -> str:
    """Limit the device memory."""
    if settings.memory_gb:
        ms.runtime.set_memory(max_size=f"{settings.memory_gb}GB")
    return "not used"


def build_environment(timeout: int) -> Mapping[str, str]:
    """Set HCCL's timeouts: the other processes wait while the first one scans the data."""
    return {"HCCL_CONNECT_TIMEOUT": str(CONNECT), "HCCL_EXEC_TIMEOUT": str(EXECUTE)}


KIND = Kind(
    name="ascend",
    target="Ascend",
    missing=find_missing_driver,
    prepare=limit_memory,
    amp="O2",
    sink=SINK,
    queue=True,
    pins=False,
    environment=build_environment,
)
