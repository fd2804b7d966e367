"""Compare the forms in which ResNeXt-50's last stages train, and PyTorch, in processor time per image.

    python benchmarks/forms.py [--train layer4] [--batch 16] [--rounds 5] [--steps 2] [--sides convolutions chosen ...]

`--train` names the first stage that trains, on stored outputs of those before it. `chosen` is the form that a run takes
by its table on a processor with AVX2, `matmul` all stages in matmul form, both capped at AVX2; `avx512` is `matmul`
with all that the processor has. PyTorch uses what the processor has, unless ONEDNN_MAX_CPU_ISA=AVX2 is set for all.
Every side is a process of its own, and the sides step in turn. Other work on the machine makes wall clock useless, so
that processor time counts: median (least to most) of the rounds, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import step

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
CHOSEN = ("layer3", "layer4")
MAPS = {"stem": (3, 1), "layer3": (512, 8), "layer4": (1024, 16)}  # channels, and what divides the side
TORCH = {"torch NCHW": False, "torch channels-last": True}
SIDES = ("convolutions", "chosen", "matmul", "avx512", *TORCH)


def ours(form: str, first: int, batch: int, size: int) -> Callable[[], object]:
    """Return a step of our trainer from stage number ``first`` on."""
    from finetune.machine import device
    from finetune.machine.forms import Forms
    from finetune.machine.kind import Settings

    device.set_up(device="cpu", said=Settings(forms=Forms(uncapped=form == "avx512")))
    import numpy as np

    from finetune.data.loader import Batch
    from finetune.network.network import build_matmul_form
    from finetune.recipe.models import Recipe
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer

    network = step.our_network()
    optimizer = {"use": "sgd", "lr": 0.01, "momentum": 0.9}
    said = {"dataset": {"use": "folder"}, "optimizer": optimizer, "train": {"batch_size": batch, "epochs": 1000}}
    trainer = Trainer(Recipe.model_validate_json(json.dumps(said)), network, features=2048, images=batch, amp="off")
    in_form = {"convolutions": (), "chosen": CHOSEN}.get(form, STAGES)
    phase = Phase(number=1, first=1, last=1000, trainable=network.names[first:])
    trainer.enter(phase, first, build_matmul_form(step.our_backbone(), network, Forms(matmul=in_form)))
    labels = np.random.default_rng(1).integers(0, step.CLASSES, batch)
    soft = np.eye(step.CLASSES, dtype=np.float32)[labels]
    every, weights = np.arange(batch), np.ones(batch, np.float32)
    one = Batch(images=maps(first, batch, size), labels=labels, weights=weights, indices=every, targets=soft)
    return lambda: trainer.step([one], 1, 0)


def torch(form: str, first: int, batch: int, size: int) -> Callable[[], object]:
    """Return the same step in PyTorch."""
    import rivals_torch as rival
    import torch

    network = rival.ResNeXt50(step.CLASSES).train()
    tail = [getattr(network, name) for name in STAGES[1:] if STAGES.index(name) >= first]
    stem = [network.conv1, network.bn1, network.relu, network.maxpool] if first == 0 else []
    pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), network.fc]
    machine = rival.Machine(torch.nn.Sequential(*stem, *tail, *pool), bf16=False, channels_last=TORCH[form])
    optimizer, given = machine.optimizer(), torch.from_numpy(maps(first, batch, size))
    labels = torch.arange(batch)

    def one() -> float:
        loss = torch.nn.functional.cross_entropy(machine.logits(given), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return one


def maps(first: int, batch: int, size: int) -> NDArray[np.float32]:
    """Return random images, or outputs of the stages before number ``first``."""
    import numpy as np

    channels, divisor = MAPS[STAGES[first]]
    shape = (batch, channels, size // divisor, size // divisor)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def serve(side: str, first: int, batch: int, size: int) -> None:
    """Build a side, warm it up, then make as many steps as each line says; answer with ms per image and peak MB."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    one = (torch if side in TORCH else ours)(side, first, batch, size)
    one()
    one()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        count, processor, wall = int(line), time.process_time(), time.perf_counter()
        for _ in range(count):
            one()
        spent = [1000 * (now() - began) / count / batch for now, began in clocks(processor, wall)]
        print(json.dumps([*spent, peak_mb()]), file=out, flush=True)


def clocks(processor: float, wall: float) -> list[tuple[Callable[[], float], float]]:
    """Return both clocks with the times at which they were started."""
    return [(time.process_time, processor), (time.perf_counter, wall)]


def peak_mb() -> float:
    """Return the most memory that this process has held."""
    from finetune.machine.environment import read_peak_memory_mb

    return read_peak_memory_mb() or 0.0


def main() -> None:
    """Step the sides in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", choices=sorted(MAPS), default="layer4", help="the first stage that trains")
    for name, default in (("batch", 16), ("size", 224), ("rounds", 5), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, STAGES.index(given.train), given.batch, given.size)
        return
    found = measure(given)
    print(f"from {given.train} on, batches of {given.batch}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print("| side | processor ms per image | wall ms per image | peak MB |\n| --- | --- | --- | --- |")
    for side, rounds in found.items():
        processor, wall, peak = zip(*rounds, strict=True)
        print(f"| {side} | {spread(processor)} | {spread(wall)} | {max(peak):,.0f} |")


def measure(given: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Return what each side answers in each round."""
    sizes = ["--train", given.train, "--batch", str(given.batch), "--size", str(given.size)]
    pipe, sides = subprocess.PIPE, {}
    for name in given.sides:
        command = [sys.executable, __file__, "--serve", name, *sizes]
        sides[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        if sides[name].stdout.readline().strip() != "ready":
            raise SystemExit(f"{name} did not start; run: {' '.join(command)}")
    found: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            print(given.steps, file=side.stdin, flush=True)
            found[name].append(json.loads(side.stdout.readline()))
    for side in sides.values():
        side.communicate()  # the end of its input ends it
    return found


def spread(values: tuple[float, ...]) -> str:
    """Return median (least to most)."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
