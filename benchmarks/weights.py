"""Measure reading ResNeXt-50's weights: the first time, when a checkpoint is converted, and from the cache.

    python benchmarks/weights.py [--rounds 3]

A checkpoint in the layout of MindSpore Hub, its grouped convolutions in 32 pieces, and the same as safetensors are
written with random numbers. Each reading is a process of its own, from the word in a recipe to arrays in memory.
Printed are seconds and peak memory on top of the imports as a multiple of the file: median (minimum to maximum).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import finetune_model
from finetune.weights import fetching, layouts, loading
from finetune.weights.formats import mindspore_ckpt, tensorfile

RESNEXT50 = next(each for each in finetune_model.finetune_backbones() if each.name == "resnext50")
HEAD = {"head.fc.weight": (1000, 2048), "head.fc.bias": (1000,)}
PIECES = 32


def main() -> None:
    """Write the files, read each several times, and print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read is not None:
        print(json.dumps(reading(given.read)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for path in written(Path(scratch)):
            rounds = [[measured(path, f"{scratch}/{path.suffix}{n}") for _ in range(2)] for n in range(given.rounds)]
            for number, when in enumerate(("first", "again")):
                each = [times[number] for times in rounds]
                print(f"{path.suffix[1:]:<12} {when}  {spread(each, 'seconds')} s  {spread(each, 'memory')} x the file")


def written(folder: Path) -> list[Path]:
    """Write both files and return them."""
    shapes = {**shape_of_stages(), **HEAD}
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    hub = next(layout for layout in RESNEXT50.layouts if layout.name == "mindspore-hub")
    names = layouts.name_for_file(arrays, hub)
    with (folder / "hub.ckpt").open("wb") as file:
        for own, array in arrays.items():
            grouped = own.endswith("conv2.weight")
            for number, piece in enumerate(np.split(array, PIECES) if grouped else [array]):
                name = names[own].replace("weight", f"convs.{number}.weight") if grouped else names[own]
                file.writelines(mindspore_ckpt.encode_value(name, "float32", piece.shape, piece.tobytes()))
    tensorfile.write_tensors(folder / "own.safetensors", arrays, {})
    return [folder / "hub.ckpt", folder / "own.safetensors"]


def shape_of_stages() -> dict[str, tuple[int, ...]]:
    """Return the parameters of the network without its head."""
    assert RESNEXT50.shapes is not None
    return dict(RESNEXT50.shapes(RESNEXT50.options()))


def measured(path: Path, home: str) -> dict[str, float]:
    """Return seconds and memory of one reading, in a process of its own with this cache."""
    command = [sys.executable, __file__, "--read", str(path)]
    environment = {**os.environ, "FINETUNE_HOME": home}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def reading(path: Path) -> dict[str, float]:
    """Read a file as a run does, and return how long it took and what memory it needed."""
    import time

    before, began = peak(), time.perf_counter()
    source = fetching.resolve(str(path), RESNEXT50)
    assert source is not None
    loading.read_options(source, RESNEXT50)
    loading.read_image_defaults(source)
    loaded = loading.load(source, RESNEXT50, {**shape_of_stages(), **HEAD}, frozenset(HEAD), True)
    seconds = time.perf_counter() - began
    assert len(loaded.tensors) == len(shape_of_stages()) + len(HEAD)
    return {"seconds": seconds, "memory": (peak() - before) / path.stat().st_size}


def peak() -> int:
    """Return the most memory that this process has had, in bytes; what others report is inherited from the parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def spread(rounds: list[dict[str, float]], key: str) -> str:
    """Return median (minimum to maximum)."""
    values = [each[key] for each in rounds]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
