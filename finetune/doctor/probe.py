"""Probes of MindSpore in a separate process, because a broken installation may end the process."""

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
from finetune.machine.kind import import_mindspore

if TYPE_CHECKING:
    from collections.abc import Callable


Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """The result of one check; ``remedy`` is empty if there is nothing to do."""

    level: Level
    topic: str
    text: str
    remedy: str = ""


TIME_LIMIT = 120.0
STAGES_LIMIT = 900.0  # most of it for compiling
LIBRARIES = {"gpu": "libmindspore_gpu.so*", "ascend": "libmindspore_ascend.so*"}
CONVOLUTION = (1, 64, 28, 3)  # batch, channels, side, kernel: a layer of a ResNet
BACKBONE = "FINETUNE_PROBED_BACKBONE"  # the environment variable that names the backbone to time


def run_probe(what: str, limit: float | None = None, **environment: str) -> dict[str, Any]:
    """Call the function ``what`` of this module in a new process; return its result or ``{"error": ...}``."""
    package = str(Path(__file__).parents[2])
    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), package]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))} | environment
    limit = limit or TIME_LIMIT
    code = f"from finetune.doctor import probe; probe.print_answer(probe.{what})"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {limit:g} s"}
    return _read_answer(done)


def _read_answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if done.returncode < 0:
        number = -done.returncode
        return {"error": f"the process was ended by {signal.Signals(number).name} ({signal.strsignal(number)})"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {"error": next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def print_answer(function: Callable[[], dict[str, Any]]) -> None:
    """Print the result of a function as JSON, for ``run_probe``."""
    print(json.dumps(function()))


def find_devices() -> dict[str, Any]:
    """Import MindSpore; return its devices, what is missing for each, and the environment variables that it set."""
    before = dict(os.environ)
    start = time.monotonic()
    ms = import_mindspore()
    seconds = time.monotonic() - start
    folder = Path(ms.__file__).parent / "lib" / "plugin"
    return {
        "version": ms.__version__,
        "import_seconds": round(seconds, 2),
        "devices": {
            name: {"available": device.is_available(kind), "lacks": find_missing_libraries(folder, name)}
            for name, kind in device.KINDS.items()
        },
        "cann": find_cann_versions(),
        "isa": cpu.cap_onednn(),
        "set": {name: value for name, value in os.environ.items() if before.get(name) != value},
    }


def find_cann_versions() -> list[str]:
    """Return the versions of CANN that the installed MindSpore supports."""
    try:
        from mindspore.run_check._check_version import AscendEnvChecker

        return [str(version) for version in AscendEnvChecker(None).version]
    except (ImportError, AttributeError, TypeError):  # not a public API
        return []


def find_missing_libraries(folder: Path, name: str) -> list[str]:
    """Return the libraries that MindSpore's plug-in for a device needs but does not find."""
    plugins = sorted(folder.glob(LIBRARIES[name])) if name in LIBRARIES else []
    if name in LIBRARIES and not plugins:
        return ["MindSpore's plug-in for it (not in this build)"]
    if not plugins or not shutil.which("ldd"):
        return []
    listed = subprocess.run(["ldd", str(plugins[-1])], capture_output=True, text=True, timeout=30, check=False)
    return sorted({line.split()[0] for line in listed.stdout.splitlines() if line.endswith("not found")})


def measure_installed() -> dict[str, Any]:
    """Measure the speed of a convolution in MindSpore with its own defaults."""
    return _measure_convolution(import_mindspore())


def measure_used() -> dict[str, Any]:
    """Measure the speed of a convolution in MindSpore as a run sets it up on a CPU."""
    device.set_up(device="cpu")
    return _measure_convolution(import_mindspore())


def measure_capped() -> dict[str, Any]:
    """Measure the stages of the backbone named in ``BACKBONE`` in both forms, with oneDNN capped."""
    return _measure_stages(uncapped=False)


def measure_uncapped() -> dict[str, Any]:
    """Measure the same stages in matmul form, with all instruction sets of the processor."""
    return _measure_stages(uncapped=True)


def _measure_stages(*, uncapped: bool) -> dict[str, Any]:
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.components import Backbone
    from finetune.doctor import stagespeeds

    backbone = Catalogue(plugins.load_plugins()).get(Backbone, os.environ[BACKBONE])
    return {"ms": stagespeeds.time_stages(backbone, uncapped=uncapped)}


def _measure_convolution(ms: Any) -> dict[str, Any]:
    batch, channels, side, kernel = CONVOLUTION
    images = ms.ops.ones((batch, channels, side, side), ms.float32)
    layer = ms.nn.Conv2d(channels, channels, kernel)
    return _measure_speed(lambda: layer(images).asnumpy(), 2 * batch * side**2 * channels**2 * kernel**2)


def _measure_speed(run: Callable[[], object], flop: int) -> dict[str, Any]:
    run()  # compiles
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.5:
        start = time.monotonic()
        run()
        times.append(time.monotonic() - start)
    return {"gflop_per_second": round(flop / sorted(times)[len(times) // 2] / 1e9, 2)}
