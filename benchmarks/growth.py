"""Measure how the cost of a run grows with photos, classes, image size and cores.

    python benchmarks/growth.py --flowers FOLDER [--train head] [--rounds 3] [--json FILE]

ResNeXt-50 from random weights on photos of Oxford 102 Flowers, 20 epochs, standard augmentation, 4 kept views, a cold
cache in every run; each case changes one thing of the first. Linux only: `taskset` chooses the cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import material
from measured import Side, machine, measure

RECIPE = """
backbone: {{use: resnext50, weights: {weights}}}
dataset: {{use: folder, root: {photos}}}
image: {{size: {size}, resize: {resize}}}
augment: [{{use: albumentations, preset: standard}}]
head: {{start: random}}
freeze: {freeze}
optimizer: {{use: sgd, lr: 0.01, momentum: 0.9, weight_decay: 0.0}}
train: {{epochs: 20, batch_size: 32}}
cache: {{views: 4}}
"""
FREEZE = {"head": "{use: head}", "layer4": "{use: stages, train: [layer4]}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one run is given; half as many photos again are for validation."""

    photos: int = 300
    kinds: int = 20
    size: int = 224
    cores: int = 2

    @property
    def name(self) -> str:
        """Return it in words."""
        return f"{self.photos} photos, {self.kinds} classes, {self.size} px, {self.cores} cores"


FIRST = Case()
CASES = [
    FIRST,
    replace(FIRST, photos=150),
    replace(FIRST, photos=600),
    replace(FIRST, kinds=10),
    replace(FIRST, kinds=80),
    replace(FIRST, size=160),
    replace(FIRST, size=320),
    replace(FIRST, cores=1),
]


def main() -> None:
    """Run all cases in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", type=Path, required=True, help="Oxford 102 Flowers, with train, valid and test")
    parser.add_argument("--train", default="head", choices=FREEZE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the raw numbers here")
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {case.name: [] for case in CASES}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = material.weights(folder / "resnext50.safetensors")
        for number in range(given.rounds):
            for case in CASES:
                kept = folder / f"{CASES.index(case)}-{number}"
                measured = measure(side(case, given, weights, folder, kept), folder / "log.txt")
                found[case.name].append((measured.wall, measured.peak))
                print(f"round {number + 1}, {case.name}: {measured.wall:.1f} s", file=sys.stderr, flush=True)
    where = machine()
    print(f"{where}\n\n| {given.train} | seconds, median (min to max) | times the first | peak MB |")
    print("| --- | --- | --- | --- |")
    for name, rows in found.items():
        seconds = [row[0] for row in rows]
        ratio = statistics.median(a / b[0] for a, b in zip(seconds, found[FIRST.name], strict=True))
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        print(f"| {name} | {spread} | {ratio:.2f} | {max(row[1] for row in rows) / 1e6:,.0f} |")
    if given.json:
        given.json.write_text(json.dumps({"machine": where, "train": given.train, "runs": found}, indent=1))


def side(case: Case, given: argparse.Namespace, weights: Path, folder: Path, kept: Path) -> Side:
    """Return the run of a case, with a cache of its own."""
    photos = folder / f"{case.photos}-{case.kinds}"
    if not photos.exists():
        counts = {"train": case.photos, "valid": case.photos // 2}
        material.subset(given.flowers, photos, counts, kinds=case.kinds)
    kept.mkdir()
    recipe, resize = kept / "recipe.yaml", round(case.size * 256 / 224)
    said = {"weights": weights, "photos": photos, "size": case.size, "resize": resize, "freeze": FREEZE[given.train]}
    recipe.write_text(RECIPE.format(**said))
    cores = ["taskset", "-c", "0"] if case.cores == 1 else []
    command = [*cores, sys.executable, "-m", "finetune", "run", str(recipe), "--output", str(kept / "runs")]
    return Side(name=case.name, command=command, environment={"FINETUNE_HOME": str(kept / "home")})


if __name__ == "__main__":
    main()
