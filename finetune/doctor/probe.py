"""What MindSpore finds on this machine, asked in a process of its own: a broken installation may end the asker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.machine import cpu, device
from finetune.machine.kind import quiet_mindspore

if TYPE_CHECKING:
    from collections.abc import Callable


Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing that was looked at; ``remedy`` is empty where nothing needs doing."""

    level: Level
    topic: str
    text: str
    remedy: str = ""


TIME_LIMIT = 120.0
STAGES_LIMIT = 900.0  # compiling takes most of it
LIBRARIES = {"gpu": "libmindspore_gpu.so*", "ascend": "libmindspore_ascend.so*"}
CONVOLUTION = (1, 64, 28, 3)  # batch, channels, side, kernel: a layer of a ResNet
BACKBONE = "FINETUNE_PROBED_BACKBONE"  # in the environment of a probe that times one


def ask(what: str, limit: float | None = None, **environment: str) -> dict[str, Any]:
    """Return what the function ``what`` of this module finds in a new process, or ``{"error": ...}``."""
    package = str(Path(__file__).parents[2])
    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), package]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))} | environment
    limit = limit or TIME_LIMIT
    code = f"from finetune.machine import probe; probe.answer(probe.{what})"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {limit:g} s"}
    return _read(done)


def _read(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if done.returncode < 0:
        number = -done.returncode
        return {"error": f"the process was ended by {signal.Signals(number).name} ({signal.strsignal(number)})"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {"error": next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def answer(function: Callable[[], dict[str, Any]]) -> None:
    """Print what a function returns, for ``ask``."""
    print(json.dumps(function()))


def devices() -> dict[str, Any]:
    """Import MindSpore and return its devices, what each lacks, and the environment variables that it set."""
    before = dict(os.environ)
    start = time.monotonic()
    ms = quiet_mindspore()
    seconds = time.monotonic() - start
    folder = Path(ms.__file__).parent / "lib" / "plugin"
    return {
        "version": ms.__version__,
        "import_seconds": round(seconds, 2),
        "devices": {
            name: {"available": device.available(kind), "lacks": lacks(folder, name)}
            for name, kind in device.KINDS.items()
        },
        "cann": cann(),
        "isa": cpu.cap_onednn(),
        "set": {name: value for name, value in os.environ.items() if before.get(name) != value},
    }


def cann() -> list[str]:
    """Return the versions of CANN that the installed MindSpore says it was made for."""
    try:
        from mindspore.run_check._check_version import AscendEnvChecker

        return [str(version) for version in AscendEnvChecker(None).version]
    except (ImportError, AttributeError, TypeError):  # none of it is promised
        return []


def lacks(folder: Path, name: str) -> list[str]:
    """Return the libraries that MindSpore's plug-in for a device needs and does not find."""
    plugins = sorted(folder.glob(LIBRARIES[name])) if name in LIBRARIES else []
    if name in LIBRARIES and not plugins:
        return ["MindSpore's plug-in for it (not in this build)"]
    if not plugins or not shutil.which("ldd"):
        return []
    listed = subprocess.run(["ldd", str(plugins[-1])], capture_output=True, text=True, timeout=30, check=False)
    return sorted({line.split()[0] for line in listed.stdout.splitlines() if line.endswith("not found")})


def as_installed() -> dict[str, Any]:
    """Return the speed of a convolution in MindSpore as it comes."""
    return _convolution(quiet_mindspore())


def as_used() -> dict[str, Any]:
    """Return the speed of a convolution in MindSpore as a run sets it up on a CPU."""
    device.setup(device="cpu")
    return _convolution(quiet_mindspore())


def capped_stages() -> dict[str, Any]:
    """Return milliseconds of the stages of the backbone named in ``BACKBONE``, in both forms, as capped."""
    return _stages(uncapped=False)


def uncapped_stages() -> dict[str, Any]:
    """Return the same in matmul form, with all instruction sets that the processor has."""
    return _stages(uncapped=True)


def _stages(*, uncapped: bool) -> dict[str, Any]:
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.components import Backbone
    from finetune.doctor import stagespeeds

    backbone = Catalogue(plugins.load_plugins()).get(Backbone, os.environ[BACKBONE])
    return {"ms": stagespeeds.time_stages(backbone, uncapped=uncapped)}


def _convolution(ms: Any) -> dict[str, Any]:
    batch, channels, side, kernel = CONVOLUTION
    images = ms.ops.ones((batch, channels, side, side), ms.float32)
    layer = ms.nn.Conv2d(channels, channels, kernel)
    return _timed(lambda: layer(images).asnumpy(), 2 * batch * side**2 * channels**2 * kernel**2)


def _timed(run: Callable[[], object], flop: int) -> dict[str, Any]:
    run()  # compiles
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.5:
        start = time.monotonic()
        run()
        times.append(time.monotonic() - start)
    return {"gflop_per_second": round(flop / sorted(times)[len(times) // 2] / 1e9, 2)}
