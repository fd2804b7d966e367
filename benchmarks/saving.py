"""Measure what a checkpoint in every epoch costs: training steps of ResNeXt-50 with and without one beside them.

    python benchmarks/saving.py [--train layer4 all] [--photos 1000] [--rounds 3]

Steps on random images are timed in turn: as many as a checkpoint takes to be written, with it and without it. What it
costs is the time of both that is more, and of the copy it is written from, as a share of an epoch over the photos.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine

from finetune.components import Backbone
from finetune.data.loader import Batch
from finetune.machine import device
from finetune.machine.forms import Forms
from finetune.machine.kind import Settings
from finetune.network import heads
from finetune.network.network import Network, build_matmul_form, find_trunk
from finetune.recipe.models import Recipe
from finetune.training.phases import Phase
from finetune.training.saving import CheckpointWriter, Snapshot
from finetune.training.trainer import Trainer

BATCH, SIZE, CLASSES = 32, 224, 20
TRAIN = {"layer4": ("layer4", "head"), "all": ("stem", "layer1", "layer2", "layer3", "layer4", "head")}
SHAPES = {"layer4": (1024, 14, 14), "all": (3, SIZE, SIZE)}


def trainer(what: str) -> Trainer:
    """Return ResNeXt-50 from random weights, ready to train some stages."""
    from finetune import plugins
    from finetune.catalogue import Catalogue

    component: Any = Catalogue(plugins.load_plugins()).get(Backbone, "resnext50")
    chosen = device.set_up(device="cpu", said=Settings(forms=Forms(uncapped=True)))
    said = {"dataset": {"use": "none"}, "optimizer": {"use": "adamw"}, "train": {"batch_size": BATCH}}
    recipe = Recipe.model_validate(said, strict=False)
    stages = component.build(component.options())
    network = Network(stages, heads.build_head(recipe.head, component.features, CLASSES, 0))
    matmul_form = build_matmul_form(component, network, chosen.forms)
    made = Trainer(recipe, network, features=component.features, images=BATCH, amp="off")
    first = len(find_trunk(network.names, TRAIN[what]))
    made.enter(Phase(number=1, first=1, last=99, trainable=TRAIN[what]), first, matmul_form)
    return made


def batch(what: str) -> Batch:
    """Return random inputs of a step."""
    every = np.arange(BATCH)
    images = np.random.default_rng(0).standard_normal((BATCH, *SHAPES[what]), np.float32)
    soft = np.eye(CLASSES, dtype=np.float32)[every % CLASSES]
    return Batch(images=images, labels=every, weights=np.ones(BATCH, np.float32), indices=every, targets=soft)


def stepped(made: Trainer, given: Batch, count: int) -> float:
    """Return the seconds of some steps."""
    began = time.perf_counter()
    for number in range(count):
        made.step([given], 1, number)
    return time.perf_counter() - began


def measured(what: str, rounds: int, photos: int, folder: Path) -> str:
    """Return the line of a table."""
    made, given, saver = trainer(what), batch(what), CheckpointWriter(folder, print)
    one = stepped(made, given, 2) and stepped(made, given, 2) / 2  # the first compile
    shares, seconds = [], []
    for number in range(rounds):
        began = time.perf_counter()
        saver.begin(Snapshot(made.arrays(kept=True), {"step": number, "epoch": number}, best=True))
        copied, steps = time.perf_counter() - began, 0
        while saver.is_busy:
            stepped(made, given, 1)
            steps += 1
        beside = time.perf_counter() - began
        alone = stepped(made, given, steps) if steps else 0.0
        seconds.append(beside - alone)
        shares.append((beside - alone) / (photos / BATCH * (alone / steps if steps else one)))
        print(f"round {number + 1}: copied in {copied:.2f} s, {steps} steps beside it", flush=True)
    least, most = 100 * min(shares), 100 * max(shares)
    share = f"{100 * statistics.median(shares):.2f} % ({least:.2f} to {most:.2f})"
    return f"| {what} | {statistics.median(seconds):.2f} s | {share} |"


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", default=list(TRAIN), choices=list(TRAIN))
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lines = [measured(what, asked.rounds, asked.photos, Path(scratch) / what) for what in asked.train]
    title = f"| what trains | a checkpoint costs | of an epoch of {asked.photos} photos |"
    print(machine(), "", title, "| --- | --- | --- |", *lines, sep="\n")


if __name__ == "__main__":
    main()
