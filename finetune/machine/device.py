"""Device of a run: how it is chosen and set up, and the settings in effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from finetune.errors import UsageError
from finetune.machine import ascend, cpu, gpu
from finetune.machine.environment import count_usable_cores
from finetune.machine.forms import Forms
from finetune.machine.kind import Amp, DeviceName, Kind, Settings, import_mindspore

if TYPE_CHECKING:
    from collections.abc import Iterator


KINDS: dict[str, Kind] = {module.KIND.name: module.KIND for module in (ascend, gpu, cpu)}
"""Kinds of devices by name, in the order in which ``auto`` prefers them."""
FEW = 4  # processes that are allowed on any processor
UNUSABLE = "its driver is installed, but MindSpore finds no device; see `finetune doctor --device {}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device with its oneDNN instruction set, its mixed-precision level, and the forms in which stages train.

    ``why`` is the reason why ``auto`` chose it. ``odd`` is True if the machine has a better device that is not usable.
    """

    kind: Kind
    isa: str
    amp: Amp
    forms: Forms = field(default_factory=Forms)
    why: str = ""
    odd: bool = False

    @property
    def name(self) -> DeviceName:
        return self.kind.name


def set_up(*, device: str = "auto", settings: Settings | None = None) -> Device:
    """Import MindSpore quietly, choose and set the device, and return it with the settings in effect.

    Raises ``UsageError`` for a device that this machine or this build of MindSpore does not have.
    """
    settings = settings or Settings()
    kind = KINDS[choose_device(device)]
    ms = import_mindspore()
    isa = kind.prepare(ms, settings)
    ms.set_context(mode=ms.GRAPH_MODE if settings.mode == "graph" else ms.PYNATIVE_MODE)
    set_device(ms, kind)
    level: Amp = kind.amp if settings.amp == "auto" else settings.amp
    no_forms = Forms(why=f"the matmul form is for CPUs, not {kind.name}")
    forms = cpu.limit_forms(settings) if kind is cpu.KIND else no_forms
    if device != "auto":
        return Device(kind=kind, isa=isa, amp=level, forms=forms)
    why, odd = explain_choice(kind), any(not each.missing() for each in list_preferred(kind))
    return Device(kind=kind, isa=isa, amp=level, forms=forms, why=why, odd=odd)


def set_device(ms: Any, kind: Kind) -> None:
    """Set MindSpore's device, which cannot change after the first operator has run."""
    try:
        ms.set_device(kind.target)
    except RuntimeError as error:
        current = str(ms.get_context("device_target")).lower()
        if current != kind.name:
            text = f"MindSpore already runs on {current} in this process; to use {kind.name}, start a new process"
            raise UsageError(text) from error


def choose_device(device: str) -> DeviceName:
    """Return the name of the device to use; ``auto`` prefers Ascend, then GPU, then CPU."""
    if device == "auto":
        return next(kind.name for kind in KINDS.values() if is_available(kind))
    kind = KINDS.get(device)
    if kind is None or not is_available(kind):
        have = ", ".join(each.name for each in KINDS.values() if is_available(each))
        raise UsageError(f"runner.device={device} is not available here{suggest_remedy(kind)}; available: {have}")
    return kind.name


def check_count(name: DeviceName, devices: int) -> None:
    """Raise ``UsageError`` for more devices than this machine has, or more processes than its cores can serve."""
    kind = KINDS[name]
    if kind is cpu.KIND:
        cores = count_usable_cores()
        if devices > max(FEW, 2 * cores):
            text = f"too many processes for {cores} usable cores"
            raise UsageError(f"runner.devices={devices}: {text}; set runner.devices={cores} or fewer")
        return
    if devices > 1 and (have := import_mindspore().hal.device_count(kind.target)) < devices:
        what = f"this machine has only {have} with runner.device={name}"
        raise UsageError(f"runner.devices={devices}: {what}; set runner.devices={have} or fewer")


def suggest_remedy(kind: Kind | None) -> str:
    """Return what is missing for a device, if that is known, and how to find out what to install."""
    if kind is None:
        return ""
    missing = kind.missing()
    why = f": {missing}, so the driver is not loaded" if missing else ""
    return f"{why}; run `finetune doctor --device {kind.name}` to see what to install"


def explain_choice(chosen: Kind) -> str:
    """Return why ``auto`` chose a device: what is missing for each device that it prefers."""
    lacks = (f"no {each.name} ({each.missing() or UNUSABLE.format(each.name)})" for each in list_preferred(chosen))
    return f"runner.device=auto chose {': '.join(filter(None, [chosen.name, ', '.join(lacks)]))}"


def list_preferred(chosen: Kind) -> Iterator[Kind]:
    """Yield the kinds that ``auto`` prefers to the chosen one."""
    return takewhile(lambda each: each is not chosen, KINDS.values())


def is_available(kind: Kind) -> bool:
    """Return whether MindSpore finds a device of this kind."""
    if kind is cpu.KIND:
        return True
    if kind.missing():  # checked first, because importing MindSpore takes seconds
        return False
    ms = import_mindspore()
    try:
        return bool(ms.hal.is_available(kind.target)) and ms.hal.device_count(kind.target) > 0
    except (RuntimeError, ValueError):
        return False
