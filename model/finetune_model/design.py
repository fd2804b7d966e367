"""Designs of the ResNeXt networks, with the names and shapes of their parameters, without MindSpore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    Shape = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The numbers that define a ResNeXt.

    ``depths`` are blocks per layer, ``widths`` the channels that each layer returns; the 3x3 convolution of a block
    has ``widths / narrow`` channels in ``groups`` groups. ``stem`` is (channels, kernel); its stride is 2.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    narrow: int
    groups: int
    stem: tuple[int, int]
    stem_pool: bool


# 32 groups of width 4, the network of table 1 in the paper.
RESNEXT50 = Design(
    depths=(3, 4, 6, 3), widths=(256, 512, 1024, 2048), narrow=2, groups=32, stem=(64, 7), stem_pool=True
)
# For 64 to 96 pixels on a CPU. A training step on 64 pixels, measured on 2 cores in ms an image with one block a layer:
# 3.4 with 8 to 32 groups, 4.1 with 4, 5.4 with 1; 7.2 without the pool. From a random start on 20 kinds of flowers
# (2,445 photos, 12 epochs) depths (1, 1, 1, 1) reached 78 %, these 80 %, and (2, 2, 2, 2) of half the width 71 %.
NANO = Design(depths=(1, 1, 2, 1), widths=(64, 128, 256, 512), narrow=2, groups=8, stem=(32, 3), stem_pool=True)


def list_shapes(design: Design) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all parameters, in the order of the network."""
    inputs, kernel = design.stem
    found = dict(_list_unit("stem.conv", "stem.bn", inputs, 3, kernel))
    for number, (depth, outputs) in enumerate(zip(design.depths, design.widths, strict=True), 1):
        width = outputs // design.narrow
        for position in range(depth):
            block = f"layer{number}.{position}"
            found |= _list_unit(f"{block}.conv1", f"{block}.bn1", width, inputs, 1)
            found |= _list_unit(f"{block}.conv2", f"{block}.bn2", width, width // design.groups, 3)
            found |= _list_unit(f"{block}.conv3", f"{block}.bn3", outputs, width, 1)
            if inputs != outputs or (position == 0 and number > 1):  # the width or the side changes
                found |= _list_unit(f"{block}.down_sample.conv", f"{block}.down_sample.bn", outputs, inputs, 1)
            inputs = outputs
    return found


def _list_unit(convolution: str, norm: str, outputs: int, inputs: int, kernel: int) -> Iterator[Shape]:
    """Yield the parameters of a convolution without bias and its BatchNorm; ``inputs`` are per group."""
    yield f"{convolution}.weight", (outputs, inputs, kernel, kernel)
    for name in ("moving_mean", "moving_variance", "gamma", "beta"):
        yield f"{norm}.{name}", (outputs,)


def count_activations(design: Design, side: int) -> dict[str, int]:
    """Return how many numbers the cells of each stage return in a forward pass, for one image of ``side`` pixels."""
    channels, _ = design.stem
    half = _halve(side)
    inputs, side = channels, _halve(half) if design.stem_pool else half
    found = {"stem": 3 * channels * half**2 + channels * side**2 * design.stem_pool}
    for number, (depth, outputs) in enumerate(zip(design.depths, design.widths, strict=True), 1):
        width, count = outputs // design.narrow, 0
        for position in range(depth):
            first = position == 0
            after = _halve(side) if first and number > 1 else side
            projected = first and (inputs != outputs or number > 1)
            count += 3 * width * (side**2 + after**2)  # a convolution, BatchNorm and ReLU, twice
            count += (3 + (2 if projected else 1)) * outputs * after**2
            inputs, side = outputs, after
        found[f"layer{number}"] = count
    return found


def _halve(side: int) -> int:
    return (side + 1) // 2
