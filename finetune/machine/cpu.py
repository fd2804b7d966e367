"""CPU device: sets up MindSpore's oneDNN, capped at AVX2 where that makes convolutions faster."""

from __future__ import annotations

import ctypes
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.machine.environment import read_cpu_flags
from finetune.machine.forms import Forms, find_strongest_isa
from finetune.machine.kind import Kind, Settings
from finetune.machine.timeslice import shorten_time_slice

if TYPE_CHECKING:
    from collections.abc import Mapping

AVX2 = 0x7  # dnnl_cpu_isa_avx2 of oneDNN's C interface
CAPPED = "AVX2 (capped: MindSpore's AVX-512 convolutions are slower)"
PRODUCTS = "AVX-512 (not capped: this network's convolutions are matrix products)"
# Seconds that the processes wait for one another: the first scans the data, however long that takes.
PATIENCE = 24 * 3600
_ISA: list[str] = []


def prepare_cpu(ms: Any, settings: Settings) -> str:
    """Cap oneDNN, shorten the time slice and set the number of threads; return the instruction set in use."""
    shorten_time_slice()
    isa = cap_onednn(uncapped=settings.forms.uncapped)
    if settings.threads:
        ms.runtime.dispatch_threads_num(settings.threads)
    return isa


def cap_onednn(*, uncapped: bool = False) -> str:
    """Cap MindSpore's oneDNN at AVX2 on CPUs with AVX-512; return the instruction set in use, with the reason.

    With AVX-512, convolutions on plain NCHW tensors run in oneDNN's reference kernels, 10 to 100 times slower, but
    matrix products run twice as fast: ``uncapped`` is for networks that train entirely in matmul form. The C call
    affects only MindSpore's own copy of the library, and only before the first operator runs, so the first choice is
    final.
    """
    if not _ISA:
        _ISA.append(_cap_onednn(uncapped=uncapped))
    return _ISA[0]


def is_uncapped() -> bool | None:
    """Return whether oneDNN may use AVX-512 in this process, which slows convolutions; None while undecided."""
    if find_strongest_isa() != "avx512":
        return False
    if os.environ.get("ONEDNN_MAX_CPU_ISA"):
        return True
    return _ISA[0] == PRODUCTS if _ISA else None


def limit_forms(settings: Settings) -> Forms:
    """Return the forms that are possible after ``prepare_cpu``; the matmul form needs graph mode and full precision."""
    if settings.mode != "graph" or settings.amp == "O2":
        return Forms(why="the matmul form needs graph mode without mixed precision")
    return replace(settings.forms, uncapped=bool(is_uncapped()))


def _cap_onednn(*, uncapped: bool) -> str:
    chosen = os.environ.get("ONEDNN_MAX_CPU_ISA")
    if chosen:
        return f"{chosen} (set by ONEDNN_MAX_CPU_ISA)"
    if "avx512f" not in read_cpu_flags():
        return "default (this CPU has no AVX-512)"
    if uncapped:
        return PRODUCTS
    import mindspore as ms

    library = Path(ms.__file__).parent / "lib" / "libdnnl.so.3"
    try:
        status = ctypes.CDLL(str(library)).dnnl_set_max_cpu_isa(AVX2)
    except (OSError, AttributeError) as error:
        return f"default (slow: {error}; set ONEDNN_MAX_CPU_ISA=AVX2)"
    if status != 0:
        return "default (slow: an operator had already run; set ONEDNN_MAX_CPU_ISA=AVX2)"
    return CAPPED


def build_environment(timeout: int) -> Mapping[str, str]:
    """Set the timeouts of MindSpore's own collectives, which GPUs also use during start-up."""
    return {"MS_CPU_COMM_OP_TIMEOUT": str(PATIENCE), "MS_RECEIVE_MSG_TIMEOUT": str(PATIENCE)}


KIND = Kind(
    name="cpu",
    target="CPU",
    missing=lambda: "",
    prepare=prepare_cpu,
    amp="off",
    sink=0,
    queue=False,
    pins=True,
    environment=build_environment,
)
