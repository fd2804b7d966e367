"""Whole runs of several processes, started from the command line as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from finetune.weights.formats import tensorfile
from tests.cli.calling import call_in_process
from tests.clocks import LONGEST, wait_for

if TYPE_CHECKING:
    import numpy as np

TIMES = ("seconds", "images_per_second")

# 48 photos of training and 12 of validation; with batches of 9 no share is like another.
RECIPE = """\
name: shared
backbone: {use: resnext_nano, weights: none}
dataset: {use: folder, root: PHOTOS, split: 0.2}
image: {size: 32, resize: 36}
augment: []
freeze: {use: gradual, schedule: {1: head, 2: stem}, batch_norm: frozen}
optimizer: {use: sgd, lr: 0.001}
train: {epochs: 3, batch_size: 12}
callbacks: [{use: checkpoint}]
runner: {device: cpu, mode: pynative}
output: runs
"""


@dataclass
class Done:
    """What a command came to."""

    code: int
    errors: str
    folder: Path

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl`` without times."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Return the final weights by name."""
        return tensorfile.read_tensors(self.folder / "model" / "weights.safetensors").tensors

    @property
    def result(self) -> dict[str, Any]:
        """Return ``result.json``."""
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return found


def begun(
    place: Path, photos: Path, *changes: str, flags: tuple[str, ...] = (), inside: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start ``finetune run`` in a folder of its own; ``inside`` is a command that starts it elsewhere."""
    words = write_recipe(place, photos, flags)
    command = [*inside, sys.executable, "-m", "finetune", "run", *words, *changes, *flags]
    env = {**os.environ, "FINETUNE_HOME": str(place / "home"), "TMPDIR": str(place)}
    return subprocess.Popen(command, cwd=place, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(process: subprocess.Popen[str], place: Path) -> Done:
    """Wait for the end of a run."""
    try:
        _, errors = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Done(process.returncode, errors, place / "runs" / "shared-001")


def run(place: Path, photos: Path, *changes: str, flags: tuple[str, ...] = ()) -> Done:
    """Run to the end."""
    return ended(begun(place, photos, *changes, flags=flags), place)


def run_here(place: Path, photos: Path, *changes: str, flags: tuple[str, ...] = ()) -> Done:
    """Run to the end with one process, which is this one: that saves the seconds that importing MindSpore takes."""
    words = write_recipe(place, photos, flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(place / "home"))
        done = call_in_process("run", *words, *changes, *flags, cwd=place)
    return Done(done.returncode, done.stderr, place / "runs" / "shared-001")


def write_recipe(place: Path, photos: Path, flags: tuple[str, ...]) -> tuple[str, ...]:
    """Write the recipe into a folder, and return how the command line names it."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "shared.yaml").write_text(RECIPE.replace("PHOTOS", str(photos)))
    return () if "--resume" in flags else ("shared.yaml",)


def after_step(place: Path, process: subprocess.Popen[str]) -> Path:
    """Wait until a run has written a checkpoint, and return its folder."""
    folder = place / "runs" / "shared-001"
    wait_for(lambda: any(folder.glob("checkpoints/step-*.safetensors")), process)
    assert process.poll() is None, process.communicate()[1]
    return folder


def members(place: Path) -> dict[int, int]:
    """Return the process ids by rank of the run that works in a folder."""
    found = place.glob("finetune-*/rank-*.pid")
    return {int(path.stem.partition("-")[2]): int(path.read_text()) for path in found}


def remains(place: Path) -> list[str]:
    """Return all processes that still have to do with a folder, and what their launch left in it."""
    found = [str(path) for path in place.glob("finetune-*")]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            about = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if os.fsencode(place) in about and state != "Z" and int(entry.name) != os.getpid():
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
