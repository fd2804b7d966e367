"""``finetune doctor``: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import plugins as plugin_loading
from finetune.catalogue import Catalogue
from finetune.components import Backbone
from finetune.doctor import npu, probe
from finetune.doctor.probe import Level, Remark
from finetune.errors import ResourceError
from finetune.features import entries, identity
from finetune.files import atomic
from finetune.machine import environment, forms, speeds
from finetune.machine.device import KINDS
from finetune.machine.environment import usable_cores
from finetune.machine.memory import available_memory_mb
from finetune.recipe.models import TrunkSection

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 2**20
SUPPORTED = {"mindspore": ("2.10.",), "numpy": ("1.26.",)}
INSTALL = {
    "gpu": "install CUDA 11.6 with cuDNN 8 and add their folders to LD_LIBRARY_PATH",
    "ascend": "install CANN and run its set_env.sh",
}
WATCHED = (
    *("FINETUNE_", "ONEDNN_", "DNNL_", "OMP_", "KMP_", "OPENBLAS_", "MKL_", "GLOG_", "MS_", "CUDA_", "ASCEND_"),
    *(
        "HCCL_",
        "RANK_",
        "DEVICE_ID",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PYTHONPATH",
        "NO_ALBUMENTATIONS_UPDATE",
        "NO_COLOR",
    ),
    *("PROTOCOL_BUFFERS_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "XDG_CACHE_HOME"),
)


def diagnose(device: str = "auto", *, measure: bool = False) -> dict[str, Any]:
    """Return ``{"ok", "remarks", "environment", "mindspore"}`` as JSON; ``ok`` is False if a remark is an error.

    ``device`` is the one that must be there; ``measure`` also times a convolution, which takes some seconds.
    """
    given, own = given_environment(), dict(os.environ)  # before anything else is imported that changes it
    found = probe.ask("devices")
    remarks = [
        *versions(found),
        *machine(),
        *convolutions(found, measure),
        *inference(found),
        *devices(found, device),
        *(npu.examine(npu.Machine(supported=found.get("cann", ()))) if device == "ascend" else ()),
        *folders(),
        *plugins(),
        *variables(given, "you"),
        *variables({name: value for name, value in own.items() if given.get(name) != value}, "finetune"),
        *variables(found.get("set", {}), "MindSpore, when it is imported"),
    ]
    return {
        "ok": all(remark.level != "error" for remark in remarks),
        "remarks": [asdict(remark) for remark in remarks],
        "environment": environment.describe(),
        "mindspore": found,
    }


def versions(found: dict[str, Any]) -> Iterator[Remark]:
    """Look at Python, MindSpore and NumPy."""
    python = platform.python_version()
    if (3, 11) <= sys.version_info < (3, 13):
        yield Remark(level="ok", topic="python", text=python)
    else:
        yield Remark(level="error", topic="python", text=f"{python} is not supported", remedy="use Python 3.11 or 3.12")
    installed = environment.packages()
    for name, prefixes in SUPPORTED.items():
        version, wanted = installed[name], " or ".join(f"{prefix}x" for prefix in prefixes)
        if version is None:
            remedy = f"install {name} {wanted}"
            yield Remark(level="error", topic=name, text="is not installed", remedy=remedy)
        elif not version.startswith(prefixes):
            yield Remark(level="warning", topic=name, text=f"{version} is untested", remedy=f"install {name} {wanted}")
        elif name == "mindspore" and "error" in found:
            text = f"{version} cannot be imported: {found['error']}"
            yield Remark(
                level="error", topic=name, text=text, remedy="mend what the message names, or reinstall mindspore"
            )
        else:
            seconds = f", imported in {found['import_seconds']} s" if name == "mindspore" else ""
            yield Remark(level="ok", topic=name, text=version + seconds)


def machine() -> Iterator[Remark]:
    """Look at processor and memory."""
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    fewer = "" if cores >= all_cores else f" of {all_cores}, by this process's affinity or its container's quota"
    yield Remark(level="ok", topic="cores", text=f"{cores}{fewer}; {environment.cpu_model() or 'unknown processor'}")
    free, total = available_memory_mb(), environment.total_memory_mb()
    if free is None or total is None:
        return
    level: Level = "ok" if free >= 2000 else "warning" if free >= 500 else "error"
    remedy = "" if level == "ok" else "close other programs, or lower train.batch_size"
    yield Remark(level=level, topic="memory", text=f"{free / 1024:.1f} GB free of {total / 1024:.1f}", remedy=remedy)


def convolutions(found: dict[str, Any], measure: bool) -> Iterator[Remark]:
    """Look at the kernels that MindSpore's convolutions run in on a CPU."""
    if "error" in found:
        return
    isa = found["isa"]
    slow = isa.startswith("default (slow")
    remedy = "set ONEDNN_MAX_CPU_ISA=AVX2" if slow else ""
    yield Remark(level="warning" if slow else "ok", topic="convolutions", text=f"oneDNN uses {isa}", remedy=remedy)
    if measure:
        used, installed = (probe.ask(what).get("gflop_per_second") for what in ("as_used", "as_installed"))
        text = f"{used or '?'} GFLOP/s in a run, {installed or '?'} in MindSpore as installed"
        yield Remark(level="ok", topic="speed", text=text)
        yield from training_speed()


def training_speed() -> Iterator[Remark]:
    """Time the stages of backbones that have two forms, and keep the result for the choice that runs make."""
    try:
        catalogue = Catalogue(plugin_loading.load_plugins())
    except Exception:  # reported by ``plugins``
        return
    for _, component in catalogue:
        if isinstance(component, Backbone) and component.products is not None:
            yield stage_speed(component)


def stage_speed(backbone: Backbone) -> Remark:
    """Time the stages of a backbone, each as convolutions and in matmul form, and keep the result."""
    rates: speeds.Rates = {}
    # With AVX-512 allowed convolutions are slow, so that each setting of oneDNN needs a process of its own.
    for probed in ("capped_stages", *(["uncapped_stages"] if may_choose_isa() else [])):
        found = probe.ask(probed, probe.STAGES_LIMIT, **{probe.BACKBONE: backbone.name})
        if "ms" not in found:
            return Remark(level="warning", topic="training", text=f"{backbone.name} not timed: {found.get('error')}")
        rates |= found["ms"]
    tail = forms.Tail(stages=backbone.stages, measured=rates)
    chosen = forms.describe(backbone.stages, forms.choose(tail, forms.strongest_isa(), fixed=fixed_isa()))
    lines = [f"{kind} {' '.join(f'{ms:.0f}' for ms in each.values())}" for kind, each in rates.items()]
    text = f"{backbone.name}, ms a stage: {', '.join(lines)}; {chosen}"
    try:
        speeds.remember(backbone.name, identity.of_code(backbone), rates)
    except ResourceError as error:
        return Remark(level="warning", topic="training", text=f"{text}; not saved: {error}")
    return Remark(level="ok", topic="training", text=f"{text}; saved in {speeds.place()}")


def may_choose_isa() -> bool:
    """Tell whether a run may both cap oneDNN and leave it uncapped."""
    return forms.strongest_isa() == "avx512" and not os.environ.get("ONEDNN_MAX_CPU_ISA")


def fixed_isa() -> bool | None:
    """Return what a new process is bound to: uncapped, capped, or None where it may choose."""
    return None if may_choose_isa() else forms.strongest_isa() == "avx512"


def inference(found: dict[str, Any]) -> Iterator[Remark]:
    """Look at what computes frozen stages and predictions."""
    from finetune.network import engines

    if not found.get("devices", {}).get("cpu", {}).get("available"):
        return
    if reason := engines.unavailable("cpu"):
        text, _, remedy = reason.partition("; ")
        yield Remark(level="warning", topic="openvino", text=text, remedy=remedy)
        return
    about = engines.expected(TrunkSection(), "cpu")
    text = f"{about['version']} computes what is frozen, and predictions, in {about['precision']}"
    yield Remark(level="ok", topic="openvino", text=text)


def devices(found: dict[str, Any], wanted: str) -> Iterator[Remark]:
    """Look at what MindSpore can compute on."""
    for name, state in found.get("devices", {}).items():
        if state["available"]:
            yield Remark(level="ok", topic=name, text="available")
            continue
        here = not KINDS[name].missing()
        level: Level = "error" if name == wanted else "warning" if here else "ok"
        text = f"{'is in this machine, but MindSpore lacks' if here else 'not available; lacks'}"
        lacks = ", ".join(state["lacks"]) or "a device"
        yield Remark(level=level, topic=name, text=f"{text} {lacks}", remedy=INSTALL[name] if level != "ok" else "")


def folders() -> Iterator[Remark]:
    """Look at the folders that a run writes to."""
    yield folder("cache", atomic.cache_folder(), "set FINETUNE_HOME to a folder that you may write to")
    kept = sum(entries.size(each) for each in entries.home().glob("*") if each.is_dir())
    if kept:
        yield Remark(level="ok", topic="features", text=f"{kept / 1e9:.2f} GB kept in {entries.home()}, free to remove")
    yield folder("output", Path.cwd(), "choose another folder with --output")
    if atomic.offline():
        yield Remark(level="ok", topic="network", text="not used, because FINETUNE_OFFLINE is set")


def folder(topic: str, path: Path, remedy: str) -> Remark:
    """Look at whether a folder can be written and what is free there."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return Remark(level="error", topic=topic, text=f"{path} cannot be written", remedy=remedy)
    free = shutil.disk_usage(existing).free / 2**30
    level: Level = "ok" if free >= 5 else "warning" if free >= 0.5 else "error"
    more = "" if level == "ok" else f"free some space, or {remedy}"
    return Remark(level=level, topic=topic, text=f"{path}, {free:.1f} GB free", remedy=more)


def plugins() -> Iterator[Remark]:
    """Look at which plugins load."""
    from finetune import plugins
    from finetune.catalogue import Catalogue

    try:
        catalogue = Catalogue(plugins.load_plugins())
    except Exception as error:
        remedy = "reinstall mindspore-finetune"
        yield Remark(level="error", topic="plugins", text=f"{type(error).__name__}: {error}", remedy=remedy)
        return
    distributions = {origin.distribution for origin, _ in catalogue}
    text = f"{sum(1 for _ in catalogue)} components from {', '.join(sorted(distributions))}"
    yield Remark(level="ok", topic="plugins", text=text)
    disabled = os.environ.get("FINETUNE_DISABLE_PLUGINS", "")
    remedy = "update or uninstall it, or name it in FINETUNE_DISABLE_PLUGINS"
    for broken in catalogue.plugins.broken:
        yield Remark(level="warning", topic="plugins", text=f"{broken.origin}: {broken.reason}", remedy=remedy)
    if disabled:
        yield Remark(level="ok", topic="plugins", text=f"left out by FINETUNE_DISABLE_PLUGINS: {disabled}")


def given_environment() -> dict[str, str]:
    """Return the environment that this process was started with; where that cannot be known, the current one."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def variables(values: dict[str, str], who: str) -> Iterator[Remark]:
    """Look at environment variables that change how a run goes."""
    for name, value in sorted(values.items()):
        if name.startswith(WATCHED) and value:
            yield variable(name, value, who)


def variable(name: str, value: str, who: str) -> Remark:
    """Look at one environment variable."""
    text = environment.masked(f"{name}={value}")
    topic, by = "environment", f"set by {who}"
    if name == "ONEDNN_MAX_CPU_ISA":
        remedy = "unset it: finetune caps MindSpore alone, this variable also reaches OpenVINO"
        return Remark(level="warning", topic=topic, text=f"{text}, {by}", remedy=remedy)
    if name == "OMP_NUM_THREADS" and value.isdecimal() and int(value) > usable_cores():
        remedy = f"unset it, or set it to at most {usable_cores()}"
        return Remark(level="warning", topic=topic, text=f"{text}, {by}: more threads than usable cores", remedy=remedy)
    return Remark(level="ok", topic=topic, text=f"{text}, {by}")
