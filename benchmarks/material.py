"""What all sides of `benchmarks/jobs.py` are given: the same photos, in folders of links, and the same weights."""

from __future__ import annotations

from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Named = tuple[str, NDArray[np.generic]]

KINDS = 20
DEPTHS, GROUPS, WIDTH, CLASSES = (3, 4, 6, 3), 32, 4, 1000


def subset(flowers: Path, target: Path, counts: Mapping[str, int], kinds: int = KINDS) -> Path:
    """Link photos of the kinds that have most of them, as many of each kind as of any other, and return the folder."""
    found = {kind.name: len(list(flowers.glob(f"*/{kind.name}/*.jpg"))) for kind in (flowers / "train").iterdir()}
    chosen_kinds = sorted(found, key=lambda kind: (-found[kind], int(kind)))[:kinds]
    for split, count in counts.items():
        columns = [sorted((flowers / split / kind).glob("*.jpg")) for kind in chosen_kinds]
        chosen = list(islice((p for p in chain.from_iterable(zip_longest(*columns)) if p), count))
        if len(chosen) < count:
            raise SystemExit(f"{flowers / split} has {len(chosen)} photos of the {kinds} largest kinds, not {count}")
        for photo in chosen:
            link(photo, target / split / photo.parent.name)
    return target


def unlabelled(flowers: Path, target: Path, count: int) -> Path:
    """Link photos of the test split, then of the others, into one folder inside ``target``, which is returned."""
    chosen = [photo for split in ("test", "valid", "train") for photo in sorted(flowers.glob(f"{split}/*/*.jpg"))]
    for photo in chosen[:count]:
        link(photo, target / "all")
    return target


def link(photo: Path, folder: Path) -> None:
    """Link a photo into a folder, and read it once, so that no side waits for the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / photo.name).symlink_to(photo.resolve())
    photo.read_bytes()


def weights(path: Path) -> Path:
    """Write a ResNeXt-50 (32x4d) of random numbers with the names of torchvision, whose activations stay of order 1."""
    save_file(dict(tensors(np.random.default_rng(0))), path)
    return path


def tensors(rng: np.random.Generator) -> Iterator[Named]:
    """Yield every tensor with its name."""
    yield "conv1.weight", convolution(rng, 64, 3, 7)
    yield from norm(rng, "bn1", 64)
    inputs = 64
    for number, depth in enumerate(DEPTHS):
        width = GROUPS * WIDTH * 2**number
        for position in range(depth):
            block = f"layer{number + 1}.{position}"
            yield f"{block}.conv1.weight", convolution(rng, width, inputs, 1)
            yield f"{block}.conv2.weight", convolution(rng, width, width // GROUPS, 3)
            yield f"{block}.conv3.weight", convolution(rng, 2 * width, width, 1)
            yield from chain(norm(rng, f"{block}.bn1", width), norm(rng, f"{block}.bn2", width))
            yield from norm(rng, f"{block}.bn3", 2 * width, gain=0.25)  # 16 branches add up
            if position == 0:
                yield f"{block}.downsample.0.weight", convolution(rng, 2 * width, inputs, 1)
                yield from norm(rng, f"{block}.downsample.1", 2 * width)
            inputs = 2 * width
    yield "fc.weight", (rng.standard_normal((CLASSES, inputs)) * 0.01).astype(np.float32)
    yield "fc.bias", np.zeros(CLASSES, np.float32)


def convolution(rng: np.random.Generator, outputs: int, inputs: int, side: int) -> NDArray[np.float32]:
    """Return weights that keep the variance through a ReLU (He et al. 2015, arXiv:1502.01852)."""
    scale = np.float32((2 / (inputs * side * side)) ** 0.5)
    return rng.standard_normal((outputs, inputs, side, side), np.float32) * scale


def norm(rng: np.random.Generator, name: str, width: int, gain: float = 1.0) -> Iterator[Named]:
    """Yield the five tensors of a BatchNorm."""
    found = {
        "weight": rng.uniform(0.5, 1.5, width) * gain,
        "bias": rng.normal(0, 0.2, width),
        "running_mean": rng.normal(0, 0.3, width),
        "running_var": rng.uniform(0.5, 2, width),
    }
    yield from ((f"{name}.{part}", array.astype(np.float32)) for part, array in found.items())
    yield f"{name}.num_batches_tracked", np.array(1, np.int64)
