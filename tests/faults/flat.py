"""Train hundreds of epochs on tiny data, and see whether memory, file descriptors and threads stay flat.

    python -m tests.faults.flat [--epochs 500]

Flat means: after the first fifth of the run, memory grows by less than 5 %, descriptors and threads by none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import hookimpl
from tests.drawn import folder
from tests.features import tiny

if TYPE_CHECKING:
    from finetune.run import Run

Sample = tuple[int, float, int, int]  # epoch, MB, descriptors, threads
MOST = 1.05


@dataclass
class Watcher:
    """Notes what the process holds at the end of every tenth of a run."""

    samples: list[Sample] = field(default_factory=list)

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int) -> None:
        """Note it."""
        if epoch % max(1, run.recipe.train.epochs // 10) == 0:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            memory = int(status.split("VmRSS:")[1].split()[0]) / 1024
            self.samples.append((epoch, memory, len(os.listdir("/proc/self/fd")), threading.active_count()))


def grown(samples: list[Sample]) -> list[str]:
    """Return what is not flat."""
    _, memory, descriptors, threads = samples[len(samples) // 5]
    _, *last = samples[-1]
    wrong = [f"memory grew from {memory:.0f} to {last[0]:.0f} MB"] if last[0] > MOST * memory else []
    # A checkpoint may be under way, which takes a thread and a file.
    wrong += [f"{descriptors} descriptors became {last[1]}"] if last[1] > descriptors + 1 else []
    return wrong + ([f"{threads} threads became {last[2]}"] if last[2] > threads + 1 else [])


def trained(epochs: int, top: Path, features: str = "off") -> list[Sample]:
    """Train on images of every kind of use: streamed or kept features, checkpoints, TensorBoard."""
    photos = folder(top / "photos", each=8, size=20)
    watcher = Watcher()
    said = tiny.recipe(
        photos,
        top / features,
        freeze={"use": "stages", "train": ["neck"]},
        train={"epochs": epochs, "batch_size": 8},
        cache={"features": features, "views": 2},
        callbacks=[{"use": "tensorboard"}, {"use": "checkpoint"}],
    )
    tiny.run(said, watchers=[watcher])
    return watcher.samples


def main() -> None:
    """Train as the command line says; exit with 1 if anything grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=500)
    asked, wrong = parser.parse_args(), []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FINETUNE_HOME"] = f"{scratch}/home"
        for features in ("auto", "off"):
            samples = trained(asked.epochs, Path(scratch), features)
            print(f"features {features}: epoch, MB, descriptors, threads")
            for epoch, memory, descriptors, threads in samples:
                print(f"{epoch:6} {memory:7.0f} {descriptors:4} {threads:4}")
            wrong += grown(samples)
    print("flat" if not wrong else "NOT FLAT: " + "; ".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
