"""Setting up MindSpore for a device: chosen, quiet, reproducible, and on CPUs with the fast convolution kernels."""

from __future__ import annotations

import atexit
import ctypes
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.errors import UsageError
from finetune.machine import speeds

DeviceName = Literal["cpu", "gpu", "ascend"]
TARGETS: dict[str, str] = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}
NODES = {"gpu": "/dev/nvidia0", "ascend": "/dev/davinci0"}  # of the first device
AVX2 = 0x7  # dnnl_cpu_isa_avx2 of oneDNN's C interface
CAPPED = "AVX2 (capped: MindSpore's AVX-512 convolutions are slower)"
PRODUCTS = "AVX-512 (not capped: this network's convolutions are matrix products)"
_ISA: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device of a run, the oneDNN instruction set in force on it, its mixed-precision level, and whether it
    computes matrix products faster than convolutions."""

    name: DeviceName
    isa: str
    amp: Literal["off", "O2"]
    products: bool = False


def setup(*, device: str = "auto", mode: str = "graph", amp: str = "auto", products: bool = False) -> Device:
    """Import MindSpore quietly, choose and set the device, and return what is in force.

    ``products`` says that a network will be trained whose stages are matrix products. Raises ``UsageError`` for a
    device that this machine or this build of MindSpore does not have. Mixed precision is off on CPUs unless asked for:
    they gain nothing by it.
    """
    ms = quiet_mindspore()
    name = choose(device)
    wanted = products and mode == "graph" and amp != "O2"
    isa = cap_onednn(products=wanted) if name == "cpu" else "not used"
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    set_device(ms, name)
    level: Literal["off", "O2"] = "O2" if amp == "O2" or (amp == "auto" and name != "cpu") else "off"
    return Device(
        name=name, isa=isa, amp=level, products=name == "cpu" and uncapped() and mode == "graph" and level == "off"
    )


def set_device(ms: Any, name: DeviceName) -> None:
    """Set MindSpore's device; once an operator has run it stays what it is."""
    try:
        ms.set_device(TARGETS[name])
    except RuntimeError as error:
        current = str(ms.get_context("device_target")).lower()
        if current != name:
            raise UsageError(f"MindSpore already runs on {current} here; to use {name}, start a new process") from error


def quiet_mindspore() -> Any:
    """Import MindSpore, its log at error level as ``finetune/__init__.py`` set it, and without its noise at exit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mindspore as ms
        from mindspore import nn
    if not _ISA:
        # At exit MindSpore tears its modules down before its cells, whose __del__ then prints a traceback each.
        atexit.register(lambda: setattr(nn.Cell, "__del__", lambda self: None))
    return ms


def choose(device: str) -> DeviceName:
    """Return the device to use; ``auto`` prefers Ascend, then GPU, then CPU."""
    order: tuple[DeviceName, ...] = ("ascend", "gpu", "cpu")
    if device == "auto":
        return next(name for name in order if available(name))
    chosen = next((name for name in order if name == device), None)
    if chosen is None or not available(chosen):
        have = ", ".join(name for name in order if available(name))
        raise UsageError(f"runner.device={device} is not available here{lacking(device)}; available: {have}")
    return chosen


def lacking(device: str) -> str:
    """Return what the driver of a device leaves in the system and is not there, and where the remedies stand."""
    node = NODES.get(device)
    if node is None:
        return ""
    why = f": {node} is missing, so the driver is not loaded" if not os.path.exists(node) else ""
    return f"{why}; `finetune doctor --device {device}` tells what to install"


def available(name: str) -> bool:
    """Tell whether MindSpore finds a device of this kind."""
    if name == "cpu":
        return True
    ms = quiet_mindspore()
    try:
        return bool(ms.hal.is_available(TARGETS[name])) and ms.hal.device_count(TARGETS[name]) > 0
    except (RuntimeError, ValueError):
        return False


def cap_onednn(*, products: bool = False) -> str:
    """Cap MindSpore's oneDNN at AVX2 on CPUs with AVX-512, and return what is in force, with the reason.

    With AVX-512 its convolutions on plain NCHW tensors run in oneDNN's reference kernels, 10 to 100 times slower, but
    its matrix products run twice as fast: where only ``products`` are trained, there is no cap. The C call reaches
    MindSpore's own copy of the library only; it works until the first operator runs, so the first choice stays.
    """
    if not _ISA:
        _ISA.append(_cap_onednn(products=products))
    return _ISA[0]


def uncapped() -> bool:
    """Tell whether this process was set up for matrix products, on which its convolutions are slow."""
    return _ISA[:1] == [PRODUCTS]


def _cap_onednn(*, products: bool) -> str:
    chosen = os.environ.get("ONEDNN_MAX_CPU_ISA")
    if chosen:
        return f"{chosen} (set by ONEDNN_MAX_CPU_ISA)"
    if "avx512f" not in cpu_flags():
        return "default (this CPU has no AVX-512)"
    if products and products_pay():
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


def products_pay() -> bool:
    """Tell whether matrix products with AVX-512 beat convolutions with AVX2: as measured here, or else assumed."""
    measured = speeds.known()
    return not measured or measured["products"] > measured["convolution"]


def cpu_flags() -> frozenset[str]:
    """Return the instruction-set flags of the first CPU; empty where /proc/cpuinfo does not exist."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), ":")
    return frozenset(line.partition(":")[2].split())


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, cut down to the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores
