"""How long users wait for answers and ends, in seconds on the clock.

    python benchmarks/waits.py

Measures, three times each: `finetune --help`, `finetune doctor --device ascend` on a machine without one, the end of a
run after SIGTERM, and the end of a run of two processes after one of them was killed. Only a quiet machine gives
numbers that mean something, so the tests do not bound these; the last column is what each is meant to stay below.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from measured import machine
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
RECIPE = """\
name: long
backbone: {use: resnext_nano, weights: none}
dataset: {use: folder, root: photos, split: 0.2}
image: {size: 32, resize: 36}
freeze: {use: head}
train: {epochs: 5000, batch_size: 12}
callbacks: [{use: checkpoint}]
"""


def draw_photos(root: Path) -> None:
    """Write 20 noisy photos of each of two classes."""
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (root / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 128, (40, 40, 3)) + 127 * (name == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")


def time_command(*words: str) -> float:
    """Return the seconds that a command takes."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "finetune", *words], capture_output=True, check=False)
    return time.monotonic() - began


def time_end(signum: signal.Signals, *changes: str, of_member: bool = False) -> float:
    """Return the seconds from a signal to a run, or to one of its processes, until the run has ended."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        draw_photos(place / "photos")
        (place / "long.yaml").write_text(RECIPE)
        command = [sys.executable, "-m", "finetune", "run", "long.yaml", *changes]
        env = {**os.environ, "TMPDIR": scratch, "FINETUNE_HOME": str(place / "home")}
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, cwd=place, env=env, stdout=quiet, stderr=quiet) as process:
            while not (place / "runs" / "long-001" / "metrics.jsonl").exists():
                if process.poll() is not None:
                    sys.exit(f"the run ended with {process.returncode} before it trained")
                time.sleep(0.02)
            victim = int(next(place.glob("finetune-*/rank-1.pid")).read_text()) if of_member else process.pid
            began = time.monotonic()
            os.kill(victim, signum)
            process.wait()
            return time.monotonic() - began


def main() -> None:
    """Measure and print a table."""
    waits: list[tuple[str, float, Callable[[], float]]] = [
        ("`finetune --help`", 0.5, lambda: time_command("--help")),
        ("`finetune doctor --device ascend` without one", 5, lambda: time_command("doctor", "--device", "ascend")),
        ("from SIGTERM to the end of a run", 10, lambda: time_end(signal.SIGTERM)),
        (
            "from the death of one of two processes to the end of the run",
            15,
            lambda: time_end(signal.SIGKILL, "runner.devices=2", of_member=True),
        ),
    ]
    print(machine(), "", sep="\n")
    print("| wait | median s | slowest s | meant to be below |", "| --- | --- | --- | --- |", sep="\n")
    for what, bound, measure in waits:
        seconds = [measure() for _ in range(ROUNDS)]
        print(f"| {what} | {median(seconds):.1f} | {max(seconds):.1f} | {bound:g} |", flush=True)


if __name__ == "__main__":
    main()
