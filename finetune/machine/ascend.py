"""Ascend NPUs. Never run: there was none. What it uses of MindSpore a test compares with the installed one."""

from __future__ import annotations

import os
from glob import glob
from typing import TYPE_CHECKING, Any

from finetune.machine.kind import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.machine.kind import Settings

NODE = "/dev/davinci0"
CONNECT, EXECUTE = 7200, 17340  # seconds; HCCL takes no more
SINK = 20  # steps: half a minute at most until a signal is looked at, and a loss read back in every few seconds


def missing() -> str:
    """Return what of the driver is not there; a container may have other devices than the first."""
    found = os.path.exists(NODE) or glob(f"{NODE[:-1]}[0-9]*")
    return "" if found else f"{NODE} is missing"


def prepare(ms: Any, settings: Settings) -> str:
    """Bound the memory."""
    if settings.memory_gb:
        ms.runtime.set_memory(max_size=f"{settings.memory_gb}GB")
    return "not used"


def environment(timeout: int) -> Mapping[str, str]:
    """Return how long HCCL waits: the first process looks at the data while the others wait."""
    return {"HCCL_CONNECT_TIMEOUT": str(CONNECT), "HCCL_EXEC_TIMEOUT": str(EXECUTE)}


KIND = Kind(
    name="ascend",
    target="Ascend",
    missing=missing,
    prepare=prepare,
    amp="O2",
    sink=SINK,
    queue=True,
    pins=False,
    environment=environment,
)
