"""Weights files in every layout from the state of a PyTorch network, and checkpoints written wrong on purpose.

Nothing here is of the code that reads them: names are made from torchvision's by the facts of each layout, messages
by hand.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from tests.weights.drawn_files import checkpoint, field, varint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    State = Mapping[str, NDArray[np.generic]]
    Arrays = dict[str, NDArray[np.generic]]

NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
SPLIT = "layer1"  # whose optimizer state is written too; that of all would double the file


def mindspore(name: str, state: State) -> str | None:
    """Return a name with MindSpore's words for BatchNorm, None for what MindSpore does not count."""
    before, last = name.rsplit(".", 1)
    if last == "num_batches_tracked":
        return None
    norm = f"{before}.running_mean" in state
    return f"{before.replace('downsample', 'down_sample')}.{NORM[last] if norm else last}"


def renamed(state: State, *rules: tuple[str, str]) -> Arrays:
    """Return the tensors that MindSpore has, with the first rule that matches the start of a name applied."""
    found: Arrays = {}
    for theirs, array in state.items():
        name = mindspore(theirs, state)
        if name is None:
            continue
        rule = next((r for r in rules if re.match(r[0], name)), ("", ""))
        found[re.sub(rule[0], rule[1], name, count=1)] = array
    assert len(found) == sum(not name.endswith("num_batches_tracked") for name in state)
    return found


def hub(state: State) -> Arrays:
    """Return tensors as MindSpore Hub names them on GPU, where a grouped convolution is one tensor."""
    return renamed(
        state,
        (r"conv1\.", "backbone.conv."),
        (r"bn1\.", "backbone.bn."),
        (r"(layer.*down_sample)\.0", r"backbone.\1.conv"),
        (r"(layer.*down_sample)\.1", r"backbone.\1.bn"),
        (r"layer", "backbone.layer"),
        (r"fc\.", "head.fc."),
    )


def ascend(state: State, prefix: str = "", groups: int = 32) -> Arrays:
    """Return a whole training checkpoint of Ascend: a tensor per group of a convolution, and the optimizer's state."""
    found: Arrays = {}
    for name, array in hub(state).items():
        if not name.endswith("conv2.weight"):
            found[prefix + name] = array
            continue
        for group, piece in enumerate(np.split(array, groups)):
            found[prefix + name.replace("conv2.weight", f"conv2.convs.{group}.weight")] = piece
    moments = {f"moments.{name}": array * 0 for name, array in found.items() if SPLIT in name and "moving" not in name}
    one = np.ones((), np.float32)
    counters: Arrays = {"global_step": np.array([7], np.int64), "learning_rate": one, "momentum": one}
    counters |= {"epoch_num": np.array([120], np.int64), "weight_decay": one, "loss_scale": one}
    return {**found, **moments, **counters}


def mindcv(state: State) -> Arrays:
    """Return tensors as MindCV names them."""
    return renamed(state, (r"fc\.", "classifier."))


def own(state: State) -> Arrays:
    """Return tensors as this project names them."""
    return renamed(
        state,
        (r"conv1\.", "stem.conv."),
        (r"bn1\.", "stem.bn."),
        (r"(layer.*down_sample)\.0", r"\1.conv"),
        (r"(layer.*down_sample)\.1", r"\1.bn"),
        (r"fc\.", "head.fc."),
    )


def write_own(path: Path, state: State, padding: str, backbone: str = "resnext50") -> Path:
    """Write what this project saves: own names, and the texts that say what the network needs."""
    about = {"use": backbone, "options": {"stem_pool": padding}}
    classes = [f"class {number}" for number in range(len(state["fc.bias"]))]
    save_file(own(state), path, {"backbone": json.dumps(about), "classes": json.dumps(classes)})
    return path


def write_all(folder: Path, state: State) -> dict[str, Path]:
    """Write a file for every layout and variant of it but ``.pth``, by name."""
    save_file(dict(state), folder / "torchvision.safetensors")
    return {
        "ascend": checkpoint(folder / "ascend.ckpt", ascend(state)),
        "ascend-network": checkpoint(folder / "ascend-network.ckpt", ascend(state, "network.")),
        "gpu": checkpoint(folder / "gpu.ckpt", hub(state)),
        "mindcv": checkpoint(folder / "mindcv.ckpt", mindcv(state)),
        "torchvision": folder / "torchvision.safetensors",
        "own-same": write_own(folder / "own-same.safetensors", state, "same"),
        "own-symmetric": write_own(folder / "own-symmetric.safetensors", state, "symmetric"),
    }


# Messages that may be wrong. A number or the bytes of a field; lengths may lie.


def item(number: int, value: int | bytes, length: int | None = None) -> bytes:
    """Return a field of a message: a varint or bytes, whose stated ``length`` may be another than theirs."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if length is None:
        return field(number, value)
    return varint(number << 3 | 2) + varint(length) + value


def entry(tag: bytes, dims: tuple[int, ...], content: bytes, kind: bytes = b"Float32") -> bytes:
    """Return a Value of a checkpoint, dimensions as 64-bit two's complement."""
    shape = b"".join(item(1, dim % 2**64) for dim in dims)
    return item(1, item(1, tag) + item(2, shape + item(2, kind) + item(3, content)))


def boundaries(data: bytes, level: int = 1, start: int = 0) -> list[int]:
    """Return every offset in a checkpoint at which a field of the file, of a Value or of a tensor begins or ends."""
    found, at = [start], 0
    while at < len(data):
        key, at = number(data, at)
        value, at = number(data, at)
        if key & 7:
            nested = key >> 3 == level < 3  # the file's field 1 is a Value, whose field 2 is a tensor
            found += boundaries(data[at : at + value], level + 1, start + at) if nested else [start + at]
            at += value
        found.append(start + at)
    return sorted({*found})


def number(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at a position, and the position after it."""
    value, shift = 0, 0
    while data[at] & 0x80:
        value, shift, at = value | (data[at] & 0x7F) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1
