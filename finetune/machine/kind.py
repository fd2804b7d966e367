"""Kinds of devices: what the engine needs to know about each, and the import of MindSpore."""

from __future__ import annotations

import atexit
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from finetune.machine import working_folder
from finetune.machine.forms import Forms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DeviceName = Literal["cpu", "gpu", "ascend"]
Amp = Literal["off", "O2"]
_QUIET: list[bool] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of device, defined as ``KIND`` in the module of that device.

    ``target`` is MindSpore's name for it. ``missing`` returns which part of the driver is missing, or an empty string.
    ``prepare`` applies MindSpore's settings before the first operator runs, and returns the instruction set in use, if
    there is a choice. ``amp`` is the mixed precision that ``auto`` selects. ``sink`` is the default number of steps per
    data sink call, 0 for single steps. ``queue`` tells whether MindSpore can fill a queue of inputs on the device.
    ``pins`` tells whether each of several processes binds itself to its own cores; if not, MindSpore's launcher does.
    ``environment`` returns the environment variables for several processes, given the seconds that they may wait for
    one another.
    """

    name: DeviceName
    target: str
    missing: Callable[[], str]
    prepare: Callable[[Any, Settings], str]
    amp: Amp
    sink: int
    queue: bool
    pins: bool
    environment: Callable[[int], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a recipe that a device is set up with.

    ``forms`` are the forms in which the stages of a network train on a CPU. ``threads`` is the number of compute
    threads, 0 for MindSpore's default. ``memory_gb`` limits the device memory, 0 for no limit.
    """

    mode: Literal["graph", "pynative"] = "graph"
    amp: Literal["auto", "off", "O2"] = "auto"
    forms: Forms = field(default_factory=Forms)
    threads: int = 0
    memory_gb: int = 0


def import_mindspore() -> Any:
    """Import MindSpore without its warnings and without the errors that it prints at exit."""
    if "mindspore" not in sys.modules:
        working_folder.check_exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mindspore as ms
        from mindspore import nn
    if not _QUIET:
        _QUIET.append(True)
        # At exit MindSpore unloads its modules before its cells; the __del__ of each cell would then print a traceback.
        atexit.register(lambda: setattr(nn.Cell, "__del__", lambda self: None))
    return ms
