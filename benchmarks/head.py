"""Time an epoch of the head alone on kept features: 100,000 vectors of 2048, 100 classes.

    python benchmarks/head.py [--vectors 100000] [--batch 32 64 128 256] [--epochs 3]

The vectors are random, written as a run keeps features, read back and trained on as a run trains. Printed are seconds
of an epoch, median (minimum to maximum), and the peak memory of the process beyond what it had before the vectors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from mindspore import nn

from finetune.data.labelled import Part
from finetune.data.loader import Batch
from finetune.data.targets import make_soft_targets
from finetune.features.features import FeatureLoader
from finetune.features.store import Table
from finetune.machine import device
from finetune.machine.environment import read_peak_memory_mb
from finetune.network import heads
from finetune.network.network import Network
from finetune.recipe.models import Recipe
from finetune.training.phases import Phase
from finetune.training.trainer import Trainer

WIDTH, CLASSES, CHUNK = 2048, 100, 16


def main() -> None:
    """Write the vectors, train on them with each batch size, and print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    device.set_up(device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        table = written(Path(scratch), given.vectors)
        before = read_peak_memory_mb() or 0.0
        for batch in given.batch:
            times = epochs(table, batch, given.epochs + 1)[1:]  # the first compiles
            spread = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
            print(
                f"batch {batch:<4} {spread} s an epoch, {(read_peak_memory_mb() or 0.0) - before:,.0f} MB more",
                flush=True,
            )


def written(folder: Path, count: int) -> Table:
    """Write random vectors as features are kept."""
    table = Table(folder=folder, count=count, shape=(WIDTH,), chunk=CHUNK)
    rng = np.random.default_rng(0)
    for number, rows in enumerate(table.list_shards()):
        table.write(number, rng.standard_normal((len(rows), WIDTH), np.float32).astype(np.float16))
    return table


def epochs(table: Table, batch: int, count: int) -> list[float]:
    """Return the seconds of each epoch."""
    said = {"dataset": {"use": "folder"}, "train": {"batch_size": batch, "epochs": count}}
    recipe = Recipe.model_validate_json(json.dumps(said))
    network = Network({"trunk": nn.Identity()}, heads.build_head(recipe.head, WIDTH, CLASSES, 0))
    trainer = Trainer(recipe, network, features=WIDTH, images=table.count, amp="off")
    trainer.enter(Phase(number=1, first=1, last=count, trainable=("head",)), 1)
    labels = np.random.default_rng(1).integers(0, CLASSES, table.count)
    part = Part(name="train", images=range(table.count), labels=labels)  # type: ignore[arg-type]
    loader = FeatureLoader(part=part, kept=table.read(), batch_size=batch, seed=0, train=True)
    times = []
    for epoch in range(1, count + 1):
        began = time.perf_counter()
        for number, each in enumerate(loader.epoch(epoch)):
            soft = make_soft_targets(each.labels, each.weights, CLASSES, 0.0, None)
            ready = Batch(
                images=each.images, labels=each.labels, weights=each.weights, indices=each.indices, targets=soft
            )
            trainer.step([ready], epoch, number)
        times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    main()
