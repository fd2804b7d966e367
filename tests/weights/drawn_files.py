"""Weights files as others write them, made from numbers drawn here, with nothing of the code that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune import Backbone

    Arrays = dict[str, NDArray[np.generic]]

TORCH = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
KINDS = {"float32": b"Float32", "float16": b"Float16", "int64": b"Int64"}


def drawn(backbone: Backbone, classes: int = 5, seed: int = 0) -> Arrays:
    """Return float32 numbers for every parameter of a backbone with a linear head, by own names."""
    assert backbone.shapes is not None
    head = {"head.fc.weight": (classes, backbone.features), "head.fc.bias": (classes,)}
    rng = np.random.default_rng(seed)
    shapes = {**backbone.shapes(backbone.options()), **head}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def hub(name: str) -> str:
    """Return the name in MindSpore Hub's files."""
    stage, rest = name.split(".", 1)
    return f"backbone.{rest}" if stage == "stem" else name if stage == "head" else f"backbone.{name}"


def mindcv(name: str) -> str:
    """Return the name in MindCV's files."""
    name = name.replace("stem.conv", "conv1").replace("stem.bn", "bn1").replace("head.fc", "classifier")
    return name.replace("down_sample.conv", "down_sample.0").replace("down_sample.bn", "down_sample.1")


def torchvision(name: str) -> str:
    """Return the name in torchvision's files."""
    before, last = mindcv(name).replace("down_sample", "downsample").replace("classifier", "fc").rsplit(".", 1)
    return f"{before}.{TORCH.get(last, last)}"


def ascend(own: Arrays, groups: int, prefix: str = "", state: bool = False) -> Arrays:
    """Return a file of MindSpore Hub, its grouped convolutions split as on Ascend, with optimizer ``state`` or not."""
    theirs: Arrays = {}
    for name, array in own.items():
        split = name.endswith("conv2.weight")
        for number, piece in enumerate(np.split(array, groups) if split else [array]):
            key = prefix + (hub(name).replace("weight", f"convs.{number}.weight") if split else hub(name))
            theirs[key] = piece
            if state and name.startswith("layer1"):
                theirs[f"moments.{key}"] = np.zeros_like(piece)
    return {**theirs, "global_step": np.array(7, np.int64)} if state else theirs


def checkpoint(path: Path, tensors: Mapping[str, NDArray[np.generic]]) -> Path:
    """Write a MindSpore checkpoint."""
    with path.open("wb") as file:
        for name, array in tensors.items():
            dims = b"".join(b"\x08" + varint(size) for size in array.shape)
            tensor = dims + field(2, KINDS[array.dtype.name]) + field(3, array.tobytes())
            file.write(field(1, field(1, name.encode()) + field(2, tensor)))
    return path


def field(number: int, value: bytes) -> bytes:
    """Return a field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
