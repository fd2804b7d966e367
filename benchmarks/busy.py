"""Compare steps with the time slice of the kernel and the short one that `finetune` sets, quiet and on a busy machine.

    python benchmarks/busy.py [--load 8] [--rounds 6] [--steps 10]

The small ResNeXt trains its last stages, whose operators are short, so that MindSpore's threads wait often. Both sides
are processes of their own that step in turn, first with the cores as they are, then beside `--load` processes that do
nothing but count, for a minute and a half at most. Printed are milliseconds of wall clock and of processor time a step,
median (least to most) of the rounds, the ratio of both sides' wall clock in each round, and whether both sides computed
the same loss to the last bit.
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

SIDES = {"the kernel's slice": "0", "a short slice": "100"}  # FINETUNE_TIME_SLICE_US
FIRST, BATCH, MAPS = 3, 32, (128, 8, 8)  # the stage that trains first, and what it takes for 64 pixels
BOUND = 90  # seconds that the load lasts at most
COUNT = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


def training() -> Callable[[], float]:
    """Return a step of the small ResNeXt's last stages."""
    from finetune.machine import device

    device.set_up(device="cpu")
    import mindspore as ms
    import numpy as np

    from finetune import Backbone, plugins
    from finetune.catalogue import Catalogue
    from finetune.data.loader import Batch
    from finetune.network import heads
    from finetune.network.network import Network, build_stages
    from finetune.recipe.models import LinearHead, Recipe
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer

    backbone = Catalogue(plugins.load_plugins()).get(Backbone, "resnext_nano")
    ms.set_seed(0)
    head = heads.build_head(LinearHead(), backbone.features, step.CLASSES, 0)
    network = Network(build_stages(backbone, backbone.options()), head)
    said = {"dataset": {"use": "folder"}, "optimizer": {"use": "sgd", "lr": 0.01}, "train": {"batch_size": BATCH}}
    recipe = Recipe.model_validate_json(json.dumps(said))
    trainer = Trainer(recipe, network, features=backbone.features, images=BATCH, amp="off")
    trainer.enter(Phase(number=1, first=1, last=1000, trainable=network.names[FIRST:]), FIRST)
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((BATCH, *MAPS), np.float32), rng.integers(0, step.CLASSES, BATCH)
    soft, weights = np.eye(step.CLASSES, dtype=np.float32)[labels], np.ones(BATCH, np.float32)
    one = Batch(images=images, labels=labels, weights=weights, indices=np.arange(BATCH), targets=soft)
    return lambda: trainer.step([one], 1, 0)


def serve() -> None:
    """Warm up, then make as many steps as each line says; answer with ms of wall clock and processor, and the loss."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    one = training()
    one()
    one()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        count, wall, processor = int(line), time.perf_counter(), time.process_time()
        losses = [one() for _ in range(count)]
        spent = [time.perf_counter() - wall, time.process_time() - processor]
        print(json.dumps([*(1000 * each / count for each in spent), losses[-1]]), file=out, flush=True)


def main() -> None:
    """Step both sides in turn, quiet and busy, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("load", 8), ("rounds", 6), ("steps", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    sides = {name: start(microseconds) for name, microseconds in SIDES.items()}
    for load in (0, given.load):
        others = [subprocess.Popen([sys.executable, "-c", COUNT.format(BOUND)]) for _ in range(load)]
        try:
            report(load, {n: [] for n in sides}, sides, given)
        finally:
            for other in others:
                other.kill()
                other.wait()
    for side in sides.values():
        side.communicate()  # the end of its input ends it


def start(microseconds: str) -> subprocess.Popen[str]:
    """Start a side and wait until it is warm."""
    pipe, environment = subprocess.PIPE, os.environ | {"FINETUNE_TIME_SLICE_US": microseconds}
    command = [sys.executable, __file__, "--serve"]
    side = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert side.stdout is not None
    if side.stdout.readline().strip() != "ready":
        raise SystemExit(f"a side did not start; run: {' '.join(command)}")
    return side


def report(
    load: int, found: dict[str, list[list[float]]], sides: dict[str, subprocess.Popen[str]], given: argparse.Namespace
) -> None:
    """Step the sides in turn beside a load, and print what was found."""
    began = time.monotonic()
    for number in range(given.rounds):
        if number and load and time.monotonic() - began > BOUND * number / (number + 1):
            break  # the next round would outlast the load
        for name, side in sides.items():
            assert side.stdin is not None
            assert side.stdout is not None
            print(given.steps, file=side.stdin, flush=True)
            found[name].append(json.loads(side.stdout.readline()))
    print(f"\n{load} other processes, load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for name, rounds in found.items():
        wall, processor, _ = zip(*rounds, strict=True)
        print(f"{name:20} {spread(wall)} ms a step, {spread(processor)} ms of processor")
    first, second = ([each[0] for each in found[name]] for name in SIDES)
    print(f"times as long without: {spread([a / b for a, b in zip(first, second, strict=True)])}")
    same = [[each[2] for each in rounds] for rounds in found.values()]
    print(f"same losses: {'yes' if same[0] == same[1] else 'no'}", flush=True)


def spread(values: list[float] | tuple[float, ...]) -> str:
    """Return median (least to most)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
