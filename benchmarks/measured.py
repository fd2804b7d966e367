"""One command of `benchmarks/jobs.py`: how long it takes, how long the whole of its job would, and its memory."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

EVERY = 0.2  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A command that does a job, or a sample of it.

    ``wanted`` says how many times the whole job has each part of which the command reports the seconds.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)
    runs: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds of the whole job, of the command and until its first step, bytes of memory, and what it printed."""

    seconds: float
    wall: float
    peak: int
    report: dict[str, Any]
    first_step: float | None = None


def measure(side: Side, log: Path) -> Measured:
    """Run a side's command to its end; raise ``SystemExit`` with the end of its log if it fails."""
    environment = {**os.environ, **side.environment}
    began, clock = time.time(), time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(side.command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True)
        memory = Memory(process.pid)
        memory.start()
        out, _ = process.communicate()
    wall = time.perf_counter() - clock
    memory.over.set()
    memory.join()
    if process.returncode:
        raise SystemExit(f"{side.name} failed: {' '.join(side.command)}\n{log.read_text()[-2000:]}")
    lines = [line for line in out.splitlines() if line.startswith("{")]
    report = json.loads(lines[-1]) if lines else {}
    first = first_step(side.runs) - began if side.runs else None
    whole = wall + left(report.get("seconds"), side.wanted) if side.wanted else wall
    return Measured(seconds=whole, wall=wall, peak=memory.peak(), report=report, first_step=first)


def left(seconds: dict[str, list[float]], wanted: dict[str, float]) -> float:
    """Return how long the rest of a job takes at the speed of all times but the first, which has more to do."""
    rest = 0.0
    for part, count in wanted.items():
        found = seconds[part]
        steady = found[1:] or found
        rest += (count - len(found)) * sum(steady) / len(steady)
    return rest


def first_step(runs: Path) -> float:
    """Return the time of day at which the newest run's first step was over, from its TensorBoard file."""
    from tensorboardX.proto.event_pb2 import Event

    newest = max(runs.glob("*/tensorboard/events*"), key=lambda path: path.stat().st_mtime)
    data, at = newest.read_bytes(), 0
    while at < len(data):  # a record is its length, a checksum of 4 bytes, the event, a checksum of 4 bytes
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        if any(value.tag == "step/loss" for value in event.summary.value):
            return float(event.wall_time)
        at += size + 16
    raise SystemExit(f"no step in {newest}")


class Memory(threading.Thread):
    """Watches a process: its own peak (VmHWM), and on top what its children have for themselves (private pages)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.over = pid, threading.Event()
        self.own = self.others = 0

    def run(self) -> None:
        """Look until it is over."""
        while not self.over.wait(EVERY):
            self.own = max(self.own, kilobytes(self.pid, "status", "VmHWM"))
            below = children(self.pid)
            self.others = max(self.others, sum(kilobytes(pid, "smaps_rollup", "Private_") for pid in below))

    def peak(self) -> int:
        """Return bytes."""
        return 1024 * (self.own + self.others)


def kilobytes(pid: int, file: str, start: str) -> int:
    """Return the sum of the lines of a file in /proc that start so; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(start))


def children(pid: int) -> list[int]:
    """Return the processes below a process."""
    parents = {int(path.name): parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = [pid]
    for each in found:
        found += [child for child, of in parents.items() if of == each]
    return found[1:]


def parent(process: Path) -> int:
    """Return the parent of a process, 0 if it is gone."""
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


ABILITIES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # that decide on speed


def machine() -> str:
    """Return processor, its abilities, cores, load, date and versions in a line; PyTorch suffers most from load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    model += f" ({', '.join(flag for flag in ABILITIES if flag in flags) or 'no AVX2'})"
    cores = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before"
    python = f"Python {sys.version.split()[0]}, mindspore-finetune {installed('mindspore-finetune')}"
    versions = [f"{name} {installed(name)}" for name in ("mindspore", "openvino", "torch", "mindcv")]
    return ", ".join([model, cores, str(datetime.date.today()), python, *versions])


def installed(name: str) -> str:
    """Return the version of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
