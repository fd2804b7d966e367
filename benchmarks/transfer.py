"""Measure what pretrained weights of ``resnext_nano`` are worth: the same recipes and seeds with and without them.

    python benchmarks/transfer.py [--data shapes flowers] [--flowers FOLDER] [--weights fractals] [--seeds 1 2 3]

``shapes`` are this project's drawn flowers; ``flowers`` are the photos of the 20 kinds that have most of them in a
folder of Oxford 102 Flowers, with ``train``, ``valid`` and ``test``. Each is learnt by the head alone and by all
stages, at 96 pixels. Every run is one `finetune run`, whose command is printed. Printed at last are test
accuracies: mean, and the interval of 95 % by Student's t over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy.stats import t

CLASSES = 20
RECIPE = """
name: {name}
seed: {seed}
backbone: {{use: resnext_nano, weights: {weights}}}
dataset: {dataset}
image: {{size: 96, resize: {resize}}}
augment: [{{use: albumentations, ops: [{ops}]}}]
head: {{start: random}}
freeze: {{use: {freeze}}}
optimizer: {{use: adamw, lr: {lr}, weight_decay: 5e-2}}
schedule: {{use: cosine, warmup_epochs: 1}}
train: {{epochs: {epochs}, batch_size: 32}}
callbacks: [{{use: checkpoint, keep: 1}}]
"""
FLIP = "{HorizontalFlip: {p: 0.5}}"
CROP = "{RandomResizedCrop: {size: [96, 96], scale: [0.35, 1.0]}}"
EPOCHS = {("shapes", "head"): 10, ("shapes", "none"): 4, ("flowers", "head"): 15, ("flowers", "none"): 12}
RATES = {"head": "1e-2", "none": "3e-3"}


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["shapes", "flowers"], choices=["shapes", "flowers"])
    parser.add_argument("--flowers", type=Path, help="folder of Oxford 102 Flowers, with train, valid and test")
    parser.add_argument("--weights", default="fractals", help="name or file of the pretrained weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--modes", nargs="+", default=["head", "none"], choices=["head", "none"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if "flowers" in given.data:
            if given.flowers is None:
                parser.error("--flowers is needed for the photos; or say --data shapes")
            subset(given.flowers, folder / "flowers")
        rows = []
        for data in given.data:
            for freeze in given.modes:
                for weights in ("none", given.weights):
                    found = [accuracy(folder, data, freeze, weights, seed) for seed in given.seeds]
                    rows.append((data, freeze, weights, found))
        print(table(rows))


def subset(flowers: Path, target: Path) -> None:
    """Link the photos of the kinds that have most of them, under their names."""
    names = json.loads((flowers / "cat_to_name.json").read_text())
    counts = {kind.name: sum(1 for _ in flowers.glob(f"*/{kind.name}/*.jpg")) for kind in (flowers / "train").iterdir()}
    for number in sorted(counts, key=lambda kind: (-counts[kind], int(kind)))[:CLASSES]:
        for split in ("train", "valid", "test"):
            (target / split / names[number]).mkdir(parents=True)
            for photo in (flowers / split / number).iterdir():
                (target / split / names[number] / photo.name).symlink_to(photo)


def accuracy(folder: Path, data: str, freeze: str, weights: str, seed: int) -> float:
    """Return the test accuracy of one run."""
    recipe = folder / f"{data}-{freeze}-{seed}.yaml"
    dataset = "{use: shapes, size: 96, test: 1000}" if data == "shapes" else f"{{use: folder, root: {folder / data}}}"
    text = RECIPE.format(
        name=recipe.stem,
        seed=seed,
        weights=weights,
        dataset=dataset,
        resize=96 if data == "shapes" else 110,
        ops=FLIP if data == "shapes" else f"{CROP}, {FLIP}",
        freeze=freeze,
        lr=RATES[freeze],
        epochs=EPOCHS[data, freeze],
    )
    recipe.write_text(text)
    command = [sys.executable, "-m", "finetune", "run", str(recipe), "--output", str(folder / "runs"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    result = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{data} freeze={freeze} weights={weights} seed={seed}: {result['test_accuracy']:.4f} {result['seconds']:.0f} s"
    )
    sys.stdout.flush()
    return float(result["test_accuracy"])


def table(rows: list[tuple[str, str, str, list[float]]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| data | trains | weights | test accuracy, mean | 95 % interval | runs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for data, freeze, weights, found in rows:
        mean = statistics.mean(found)
        trains = "head" if freeze == "head" else "all"
        runs = ", ".join(f"{value:.3f}" for value in found)
        lines.append(f"| {data} | {trains} | {weights} | {mean:.3f} | {interval(found)} | {runs} |")
    return "\n".join(lines)


def interval(found: list[float]) -> str:
    """Return the interval of 95 % by Student's t, within 0..1; one seed tells nothing of it."""
    if len(found) < 2:
        return "-"
    mean, half = statistics.mean(found), t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / len(found) ** 0.5
    return f"{max(0.0, mean - half):.3f} to {min(1.0, mean + half):.3f}"


if __name__ == "__main__":
    main()
