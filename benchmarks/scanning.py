"""Measure how long it takes to look at all photos of a dataset, the first time and when nothing has changed.

    python benchmarks/scanning.py [--photos 10000] [--rounds 3]

The photos are drawn, 500 x 375 pixels and about 100 kB each, in 20 class folders of a temporary folder. Each is hashed
and decoded the first time; both times the dataset is divided and its report made, as before every run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from measured import machine
from PIL import Image

CLASSES = 20


def draw(top: Path, count: int) -> None:
    """Write photos of noise over a colour, each of its own bytes."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 25, (375, 500, 3))
    for number in range(count):
        folder = top / f"class{number % CLASSES:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(np.roll(noise, number, 1) + rng.uniform(60, 200, 3), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=80)


def looked(photos: Path) -> float:
    """Return the seconds that it takes to load the data of a recipe."""
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.machine.environment import count_usable_cores
    from finetune.recipe import plan as plans
    from finetune.training.records import load_data

    catalogue = Catalogue(plugins.load_plugins())
    plan = plans.load_plan({"dataset": {"use": "folder", "root": str(photos)}}, [], catalogue)
    began = time.perf_counter()
    load_data(plan, count_usable_cores(), lambda split, done, total: None)
    return time.perf_counter() - began


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    first, second = [], []
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        draw(top / "photos", asked.photos)
        mean = sum(path.stat().st_size for path in (top / "photos").rglob("*.jpg")) / asked.photos / 1000
        print(f"{asked.photos} photos of {mean:.0f} kB", flush=True)
        for number in range(asked.rounds):
            os.environ["FINETUNE_HOME"] = str(top / f"home-{number}")
            first.append(looked(top / "photos"))
            second.append(looked(top / "photos"))
            print(f"round {number + 1}: {first[-1]:.1f} s, then {second[-1]:.2f} s", flush=True)
    print(machine())
    for name, values in (("the first time", first), ("unchanged", second)):
        print(f"{name}: {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
