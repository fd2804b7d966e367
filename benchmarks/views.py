"""Compare accuracy with kept views and with fresh augmentation, and with the trunk in short and in full precision.

    pip install examples/finetune-squeezenet
    python benchmarks/views.py --flowers PHOTOS --weights squeezenet1_1.safetensors [--seeds 1 2 3] [--epochs 10]

SqueezeNet 1.1 with ImageNet weights, Oxford 102 Flowers, a folder with train/, valid/ and test/; the head trains.
Printed
is the test accuracy of each run, mean and 95 % interval (Student's t).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from transfer import interval

RECIPE = """\
seed: {seed}
backbone: {{use: squeezenet1_1, weights: {weights}}}
dataset: {{use: folder, root: {flowers}}}
augment: [{{use: albumentations, preset: standard}}]
head: {{start: random}}
freeze: {{use: {freeze}}}
optimizer: {{use: adamw, lr: 2e-3}}
train: {{epochs: {epochs}, batch_size: 64}}
"""
SIDES = {
    "4 views, kept": ["cache.views=4"],
    "fresh in every epoch": ["cache.features=off"],
    "4 views, kept, trunk in fp32": ["cache.views=4", "inference.precision=fp32"],
}


def main() -> None:
    """Run all sides with all seeds in turn and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flowers", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--freeze", default="head")
    given = parser.parse_args()
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in given.seeds:
            recipe = Path(scratch) / "views.yaml"
            recipe.write_text(RECIPE.format(seed=seed, **vars(given) | {"flowers": given.flowers.resolve()}))
            for side, changes in SIDES.items():
                result = run(recipe, changes, Path(scratch) / "runs")
                found[side].append(result["test_accuracy"])
                seconds[side].append(result["seconds"])
                print(f"seed {seed}, {side}: {result['test_accuracy']:.4f}, {result['seconds']:.0f} s", flush=True)
    print("| the head trains on | test accuracy, mean | 95 % interval | runs | seconds, median |")
    print("| --- | --- | --- | --- | --- |")
    for side, each in found.items():
        runs = ", ".join(f"{value:.3f}" for value in each)
        took = statistics.median(seconds[side])
        print(f"| {side} | {statistics.mean(each):.3f} | {interval(each)} | {runs} | {took:.0f} |")


def run(recipe: Path, changes: list[str], output: Path) -> dict[str, float]:
    """Return the result of a run."""
    command = [sys.executable, "-m", "finetune", "run", str(recipe), *changes, "--output", str(output), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
