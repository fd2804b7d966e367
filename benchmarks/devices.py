"""Measure what two processes on one machine gain, what they pay for telling one another, and what follows for more.

    python benchmarks/devices.py [--rounds 3] [--steps 6]

The script starts itself: one process with all cores, one with half of them, and two with half each, in turn, train a
small ResNeXt on the same random images in batches of 32. Two processes then add up as many numbers as networks have
parameters. From the published speeds of links follows how well more devices would do (see ``predicted``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine

BATCH, SIZE, CLASSES = 32, 64, 20
# Numbers that train, of networks with 102 classes.
NETWORKS = {
    "ResNeXt-50, head": 208_998,
    "ResNeXt-50, layer4 and head": 14_773_350,
    "ResNeXt-50, all": 23_188_902,
}
# Bytes a second in each direction as published for the Ascend 910 (Liao et al., HPCA 2021: an HCCS link between NPUs
# of a machine) and for 100 Gbit/s RoCE of each NPU between machines; later generations are faster.
LINKS = {"8 in one machine": (8, 30e9), "64 in eight machines": (64, 12.5e9)}
# Seconds of a step with 32 images on one device: assumptions, since no NPU was there to measure.
STEPS = (0.025, 0.05, 0.1)


def predicted(numbers: int, devices: int, speed: float, step: float) -> float:
    """Return the efficiency, 1 is perfect: a ring all-reduce sends each device's gradients almost twice.

    seconds = 2 (n - 1) / n × 4 bytes × numbers / speed; efficiency = step / (step + seconds), nothing overlapped.
    """
    seconds = 2 * (devices - 1) / devices * 4 * numbers / speed
    return step / (step + seconds)


def seconds_of_step(processes: int, steps: int) -> float:
    """Return the median seconds of a training step in this process, which may be one of several."""
    from finetune.catalogue import Catalogue
    from finetune.components import Backbone
    from finetune.data.loader import Batch
    from finetune.distributed import world
    from finetune.machine import device
    from finetune.network import heads
    from finetune.network.network import Network
    from finetune.plugins import load_plugins
    from finetune.recipe.models import Recipe
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer

    component: Any = Catalogue(load_plugins()).get(Backbone, "resnext_nano")
    device.set_up(device="cpu")
    us = world.join_processes() if processes > 1 else world.SINGLE_PROCESS
    said = {
        "dataset": {"use": "none"},
        "train": {"batch_size": BATCH},
        "freeze": {"use": "none", "batch_norm": "frozen"},
    }
    recipe = Recipe.model_validate(said, strict=False)
    network = Network(
        component.build(component.options()), heads.build_head(recipe.head, component.features, CLASSES, 0)
    )
    made = Trainer(recipe, network, features=component.features, images=BATCH, amp="off", world=us)
    made.enter(Phase(number=1, first=1, last=99, trainable=network.names))
    own = BATCH // us.size
    images = np.random.default_rng(0).standard_normal((own, 3, SIZE, SIZE), np.float32)
    every, soft = np.arange(own), np.eye(CLASSES, dtype=np.float32)[np.arange(own) % CLASSES]
    batch = Batch(
        images=images, labels=every, weights=np.ones(own, np.float32), indices=every, targets=soft, whole=BATCH
    )
    taken = []
    for number in range(steps + 2):
        began = time.perf_counter()
        made.step([batch], 1, number)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[2:])


def seconds_of_sums(steps: int) -> dict[str, float]:
    """Return the median seconds in which all processes add up as many numbers as networks have."""
    from mindspore import Tensor, ops

    total, found = ops.AllReduce("sum"), {}
    for name, numbers in {"one number": 1, **NETWORKS}.items():
        own, taken = Tensor(np.ones(numbers, np.float32)), []
        for _ in range(steps + 1):
            began = time.perf_counter()
            total(own).asnumpy()
            taken.append(time.perf_counter() - began)
        found[name] = statistics.median(taken[1:])
    return found


def member(task: dict[str, Any]) -> None:
    """Be one process of a measurement, and leave what was measured."""
    rank = int(os.environ.get("MS_NODE_ID", "0"))
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        from mindspore.communication import init

        init()
        return
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // task["shares"])
    os.sched_setaffinity(0, cores[rank * each : (rank + 1) * each])
    found: dict[str, Any] = {"step": seconds_of_step(task["processes"], task["steps"])}
    if task["processes"] > 1:
        found["sums"] = seconds_of_sums(task["steps"])
    Path(task["folder"], f"{rank}.json").write_text(json.dumps(found))
    if task["processes"] > 1:
        from finetune.distributed.world import gather_numbers

        gather_numbers(np.zeros(1, np.int32))  # else the first to end would take the others with it
        os._exit(0)


def measured(processes: int, shares: int, steps: int) -> dict[str, Any]:
    """Return what the slowest of some processes measured, each with its share of the cores."""
    from finetune.distributed.launch import find_free_port

    with tempfile.TemporaryDirectory() as folder:
        task = {"processes": processes, "shares": shares, "steps": steps, "folder": folder}
        env = {**os.environ, "DEVICES_TASK": json.dumps(task)}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        command = [sys.executable, __file__]
        if processes > 1:
            flags = [
                f"--worker_num={processes}",
                f"--local_worker_num={processes}",
                f"--master_port={find_free_port()}",
            ]
            launcher = [sys.executable, "-m", "mindspore.parallel.cluster.run", *flags, f"--log_dir={folder}/logs"]
            command = [*launcher, "--join=True", f"--tail_worker_log={processes}", __file__]
        subprocess.run(command, env=env, check=False, capture_output=True)
        every = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(processes)]
    return max(every, key=lambda found: float(found["step"]))


def report(rounds: int, steps: int) -> None:
    """Measure all in turn, and print the tables."""
    sides = {"one process, all cores": (1, 1), "one process, half of them": (1, 2), "two processes, half each": (2, 2)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (processes, shares) in sides.items():
            found[name].append(measured(processes, shares, steps))
    base = [each["step"] for each in found["one process, half of them"]]
    print(
        machine(),
        "",
        "| 32 images | seconds of a step | times as fast as half the cores |",
        "| --- | --- | --- |",
        sep="\n",
    )
    for name, several in found.items():
        ratios = [one / each["step"] for one, each in zip(base, several, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {statistics.median(each['step'] for each in several):.3f} | {spread} |")
    print("", "| two processes add up | MB | ms |", "| --- | --- | --- |", sep="\n")
    sums = [each["sums"] for each in found["two processes, half each"]]
    for name in sums[0]:
        middle = statistics.median(each[name] for each in sums)
        print(f"| {name} | {4 * NETWORKS.get(name, 1) / 1e6:.1f} | {1e3 * middle:.2f} |")
    print("", f"| predicted efficiency | {' | '.join(f'{1e3 * s:.0f} ms a step' for s in STEPS)} |", sep="\n")
    print(f"| --- |{' --- |' * len(STEPS)}")
    for name, numbers in NETWORKS.items():
        for where, (devices, speed) in LINKS.items():
            shares = " | ".join(f"{100 * predicted(numbers, devices, speed, step):.1f} %" for step in STEPS)
            print(f"| {name}, {where} | {shares} |")


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    asked = parser.parse_args()
    report(asked.rounds, asked.steps)


if __name__ == "__main__":
    if "DEVICES_TASK" in os.environ:
        member(json.loads(os.environ["DEVICES_TASK"]))
    else:
        main()
