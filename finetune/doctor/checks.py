"""Checks of ``finetune doctor``: what this machine has, what is missing, and how to fix it."""

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
from finetune.machine.environment import count_usable_cores
from finetune.machine.memory import read_available_memory_mb
from finetune.recipe.models import InferenceSection

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

    ``device`` must be available; ``measure`` also times convolutions, which takes a few seconds.
    """
    given, own = read_given_environment(), dict(os.environ)  # read before the imports that change it
    found = probe.run_probe("find_devices")
    remarks = [
        *check_versions(found),
        *check_machine(),
        *check_convolutions(found, measure),
        *check_inference(found),
        *check_devices(found, device),
        *(npu.examine(npu.Machine(supported=found.get("cann", ()))) if device == "ascend" else ()),
        *check_folders(),
        *check_plugins(),
        *check_variables(given, "you"),
        *check_variables({name: value for name, value in own.items() if given.get(name) != value}, "finetune"),
        *check_variables(found.get("set", {}), "MindSpore, when it is imported"),
    ]
    return {
        "ok": all(remark.level != "error" for remark in remarks),
        "remarks": [asdict(remark) for remark in remarks],
        "environment": environment.describe_environment(),
        "mindspore": found,
    }


def check_versions(found: dict[str, Any]) -> Iterator[Remark]:
    """Check the versions of Python, MindSpore and NumPy."""
    python = platform.python_version()
    if (3, 11) <= sys.version_info < (3, 13):
        yield Remark(level="ok", topic="python", text=python)
    else:
        yield Remark(level="error", topic="python", text=f"{python} is not supported", remedy="use Python 3.11 or 3.12")
    installed = environment.list_packages()
    for name, prefixes in SUPPORTED.items():
        version, wanted = installed[name], " or ".join(f"{prefix}x" for prefix in prefixes)
        if version is None:
            remedy = f"install {name} {wanted}"
            yield Remark(level="error", topic=name, text="is not installed", remedy=remedy)
        elif not version.startswith(prefixes):
            yield Remark(level="warning", topic=name, text=f"{version} is untested", remedy=f"install {name} {wanted}")
        elif name == "mindspore" and "error" in found:
            text = f"{version} cannot be imported: {found['error']}"
            remedy = "fix the cause named in the message, or reinstall mindspore"
            yield Remark(level="error", topic=name, text=text, remedy=remedy)
        else:
            seconds = f", imported in {found['import_seconds']} s" if name == "mindspore" else ""
            yield Remark(level="ok", topic=name, text=version + seconds)


def check_machine() -> Iterator[Remark]:
    """Check processor and memory."""
    cores, all_cores = count_usable_cores(), os.cpu_count() or 1
    fewer = (
        "" if cores >= all_cores else f" of {all_cores}, limited by this process's affinity or its container's quota"
    )
    yield Remark(
        level="ok", topic="cores", text=f"{cores}{fewer}; {environment.read_cpu_model() or 'unknown processor'}"
    )
    free, total = read_available_memory_mb(), environment.read_total_memory_mb()
    if free is None or total is None:
        return
    level: Level = "ok" if free >= 2000 else "warning" if free >= 500 else "error"
    remedy = "" if level == "ok" else "close other programs, or lower train.batch_size"
    yield Remark(level=level, topic="memory", text=f"{free / 1024:.1f} GB free of {total / 1024:.1f}", remedy=remedy)


def check_convolutions(found: dict[str, Any], measure: bool) -> Iterator[Remark]:
    """Check which instruction set MindSpore's convolutions use on a CPU."""
    if "error" in found:
        return
    isa = found["isa"]
    slow = isa.startswith("default (slow")
    remedy = "set ONEDNN_MAX_CPU_ISA=AVX2" if slow else ""
    yield Remark(level="warning" if slow else "ok", topic="convolutions", text=f"oneDNN uses {isa}", remedy=remedy)
    if measure:
        used, installed = (
            probe.run_probe(what).get("gflop_per_second") for what in ("measure_used", "measure_installed")
        )
        text = f"{used or '?'} GFLOP/s in a run, {installed or '?'} in MindSpore as installed"
        yield Remark(level="ok", topic="speed", text=text)
        yield from measure_training_speed()


def measure_training_speed() -> Iterator[Remark]:
    """Time the stages of each backbone with two forms, and save the result for later runs."""
    try:
        catalogue = Catalogue(plugin_loading.load_plugins())
    except Exception:  # reported by ``check_plugins``
        return
    for _, component in catalogue:
        if isinstance(component, Backbone) and component.matmul_form is not None:
            yield measure_stage_speed(component)


def measure_stage_speed(backbone: Backbone) -> Remark:
    """Time each stage of a backbone as convolutions and in matmul form, and save the result."""
    rates: speeds.Rates = {}
    # Convolutions are slow with AVX-512, so each setting of oneDNN needs a process of its own.
    for probed in ("measure_capped", *(["measure_uncapped"] if may_choose_isa() else [])):
        found = probe.run_probe(probed, probe.STAGES_LIMIT, **{probe.BACKBONE: backbone.name})
        if "ms" not in found:
            return Remark(level="warning", topic="training", text=f"{backbone.name} not timed: {found.get('error')}")
        rates |= found["ms"]
    tail = forms.Tail(stages=backbone.stages, measured=rates)
    chosen = forms.describe_forms(
        backbone.stages, forms.choose_forms(tail, forms.find_strongest_isa(), fixed=find_fixed_isa())
    )
    lines = [f"{kind} {' '.join(f'{ms:.0f}' for ms in each.values())}" for kind, each in rates.items()]
    text = f"{backbone.name}, ms a stage: {', '.join(lines)}; {chosen}"
    try:
        speeds.save_speeds(backbone.name, identity.hash_code(backbone), rates)
    except ResourceError as error:
        return Remark(level="warning", topic="training", text=f"{text}; not saved: {error}")
    return Remark(level="ok", topic="training", text=f"{text}; saved in {speeds.locate_file()}")


def may_choose_isa() -> bool:
    """Return whether a run may choose to cap oneDNN or not."""
    return forms.find_strongest_isa() == "avx512" and not os.environ.get("ONEDNN_MAX_CPU_ISA")


def find_fixed_isa() -> bool | None:
    """Return whether a new process must use AVX-512; None if it may choose."""
    return None if may_choose_isa() else forms.find_strongest_isa() == "avx512"


def check_inference(found: dict[str, Any]) -> Iterator[Remark]:
    """Check which engine computes frozen stages and predictions."""
    from finetune.network import engines

    if not found.get("devices", {}).get("cpu", {}).get("available"):
        return
    if reason := engines.explain_unavailable("cpu"):
        text, _, remedy = reason.partition("; ")
        yield Remark(level="warning", topic="openvino", text=text, remedy=remedy)
        return
    about = engines.describe_expected(InferenceSection(), "cpu")
    text = f"{about['version']} computes frozen stages and predictions in {about['precision']}"
    yield Remark(level="ok", topic="openvino", text=text)


def check_devices(found: dict[str, Any], wanted: str) -> Iterator[Remark]:
    """Check which devices MindSpore can use."""
    for name, state in found.get("devices", {}).items():
        if state["available"]:
            yield Remark(level="ok", topic=name, text="available")
            continue
        here = not KINDS[name].missing()
        level: Level = "error" if name == wanted else "warning" if here else "ok"
        text = f"{'is in this machine, but MindSpore lacks' if here else 'not available; lacks'}"
        lacks = ", ".join(state["lacks"]) or "a device"
        yield Remark(level=level, topic=name, text=f"{text} {lacks}", remedy=INSTALL[name] if level != "ok" else "")


def check_folders() -> Iterator[Remark]:
    """Check the folders that a run writes to."""
    yield check_folder("cache", atomic.cache_folder(), "set FINETUNE_HOME to a folder that you may write to")
    kept = sum(entries.measure_size(each) for each in entries.locate_cache().glob("*") if each.is_dir())
    if kept:
        yield Remark(
            level="ok",
            topic="features",
            text=f"{kept / 1e9:.2f} GB cached in {entries.locate_cache()}, can be removed at any time",
        )
    yield check_folder("output", Path.cwd(), "choose another folder with --output")
    if atomic.is_offline():
        yield Remark(level="ok", topic="network", text="not used, because FINETUNE_OFFLINE is set")


def check_folder(topic: str, path: Path, remedy: str) -> Remark:
    """Check that a folder can be written and has enough free space."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return Remark(level="error", topic=topic, text=f"{path} cannot be written", remedy=remedy)
    free = shutil.disk_usage(existing).free / 2**30
    level: Level = "ok" if free >= 5 else "warning" if free >= 0.5 else "error"
    more = "" if level == "ok" else f"free some space, or {remedy}"
    return Remark(level=level, topic=topic, text=f"{path}, {free:.1f} GB free", remedy=more)


def check_plugins() -> Iterator[Remark]:
    """Check that the plugins load."""
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
        yield Remark(level="ok", topic="plugins", text=f"disabled by FINETUNE_DISABLE_PLUGINS: {disabled}")


def read_given_environment() -> dict[str, str]:
    """Return the environment that this process was started with, or the current one if that is unknown."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def check_variables(values: dict[str, str], who: str) -> Iterator[Remark]:
    """Check the environment variables that affect runs."""
    for name, value in sorted(values.items()):
        if name.startswith(WATCHED) and value:
            yield check_variable(name, value, who)


def check_variable(name: str, value: str, who: str) -> Remark:
    """Check one environment variable."""
    text = environment.mask_secrets(f"{name}={value}")
    topic, by = "environment", f"set by {who}"
    if name == "ONEDNN_MAX_CPU_ISA":
        remedy = "unset it: finetune caps only MindSpore, but this variable also affects OpenVINO"
        return Remark(level="warning", topic=topic, text=f"{text}, {by}", remedy=remedy)
    if name == "OMP_NUM_THREADS" and value.isdecimal() and int(value) > count_usable_cores():
        remedy = f"unset it, or set it to at most {count_usable_cores()}"
        return Remark(level="warning", topic=topic, text=f"{text}, {by}: more threads than usable cores", remedy=remedy)
    return Remark(level="ok", topic=topic, text=f"{text}, {by}")
