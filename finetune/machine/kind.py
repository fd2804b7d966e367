"""What the engine has to know of a kind of device, and how MindSpore is imported for any of them."""

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
    """A kind of device: each of its modules holds one as ``KIND``.

    ``target`` is MindSpore's name for it. ``missing`` says what of its driver the machine lacks, empty where nothing
    does. ``prepare`` makes MindSpore's settings for it before its first operator, and returns the instruction set in
    force where that is a matter of choice. ``amp`` is the mixed precision that ``auto`` stands for, ``sink`` the steps
    that it takes at once by default, 0 for one by one; ``queue`` says that MindSpore can fill a queue of inputs on it.
    ``pins`` says that each of several processes keeps to cores of its own; on others MindSpore's launcher sees to that.
    ``environment`` returns what several processes need in theirs, from the seconds that they may wait for one another.
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
    """What of a recipe a device is set up by.

    ``forms`` are the forms that the stages of a network are to train in on a CPU. ``threads`` compute, 0 leaves their
    number to MindSpore; ``memory_gb`` of the device may be taken, 0 is all of it.
    """

    mode: Literal["graph", "pynative"] = "graph"
    amp: Literal["auto", "off", "O2"] = "auto"
    forms: Forms = field(default_factory=Forms)
    threads: int = 0
    memory_gb: int = 0


def quiet_mindspore() -> Any:
    """Import MindSpore, its log at error level as ``finetune/__init__.py`` set it, and without its noise at exit."""
    if "mindspore" not in sys.modules:
        working_folder.check()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mindspore as ms
        from mindspore import nn
    if not _QUIET:
        _QUIET.append(True)
        # At exit MindSpore tears its modules down before its cells, whose __del__ then prints a traceback each.
        atexit.register(lambda: setattr(nn.Cell, "__del__", lambda self: None))
    return ms
