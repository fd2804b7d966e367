"""ResNeXt (Xie et al. 2017, https://arxiv.org/abs/1611.05431) as ordered stages, from 0.6 to 23 million parameters."""

from __future__ import annotations

from math import prod, sqrt
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

if TYPE_CHECKING:
    from finetune_model.design import Design


def build(design: Design, stem_pool: str) -> dict[str, nn.Cell]:
    """Return the stages ``stem, layer1, layer2, …`` in order, the same for the same ``mindspore.set_seed``.

    ``stem_pool`` is ``same`` or ``symmetric``. Each stage from ``layer2`` on halves the sides of its input.
    """
    rng = np.random.default_rng(ms.get_seed())
    stages: dict[str, nn.Cell] = {"stem": Stem(rng, design, stem_pool)}
    inputs = design.stem[0]
    for number, (depth, outputs) in enumerate(zip(design.depths, design.widths, strict=True), 1):
        blocks = []
        for position in range(depth):
            stride = 2 if position == 0 and number > 1 else 1
            blocks.append(Block(rng, inputs, outputs // design.narrow, outputs, stride, design.groups))
            inputs = outputs
        stages[f"layer{number}"] = nn.SequentialCell(blocks)
    return stages


def make_convolution(
    rng: np.random.Generator, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias, padded by ``kernel // 2``, He normal (https://arxiv.org/abs/1502.01852)."""
    shape = (outputs, inputs // groups, kernel, kernel)
    weight = rng.standard_normal(shape, dtype=np.float32) * np.float32(sqrt(2 / prod(shape[1:])))
    cell = nn.Conv2d(
        inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, group=groups, weight_init="zeros"
    )
    cell.weight.set_data(Tensor(weight))  # as ``weight_init`` it would stay in memory in addition to the parameter
    return cell


class Stem(nn.Cell):
    """Convolution of stride 2, then a 3x3 max-pool of stride 2 if the design has one."""

    def __init__(self, rng: np.random.Generator, design: Design, stem_pool: str) -> None:
        super().__init__()
        channels, kernel = design.stem
        self.conv = make_convolution(rng, 3, channels, kernel, stride=2)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.pool = POOLS[stem_pool]() if design.stem_pool else nn.Identity()

    def construct(self, images: Tensor) -> Tensor:
        return self.pool(self.relu(self.bn(self.conv(images))))


class SamePool(nn.Cell):
    """3x3 max-pool of stride 2 as in MindSpore's own models: even sides are padded only at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, pad_mode="same")

    def construct(self, maps: Tensor) -> Tensor:
        return self.pool(maps)


class SymmetricPool(nn.Cell):
    """3x3 max-pool of stride 2, padded by 1 on all sides; its input is never negative, so that zeros can pad it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, pad_mode="valid")

    def construct(self, maps: Tensor) -> Tensor:
        # MaxPool2d(padding=1) has no ONNX export, and ops.Pad takes 30 times as long as joining zeros.
        n, c, h, w = maps.shape
        row = ops.zeros((n, c, 1, w), maps.dtype)
        column = ops.zeros((n, c, h + 2, 1), maps.dtype)
        return self.pool(ops.concat((column, ops.concat((row, maps, row), 2), column), 3))


POOLS: dict[str, type[nn.Cell]] = {"same": SamePool, "symmetric": SymmetricPool}


class Block(nn.Cell):
    """Bottleneck: 1x1, grouped 3x3 (which has the stride), 1x1, and the input added before the last ReLU."""

    def __init__(
        self, rng: np.random.Generator, inputs: int, width: int, outputs: int, stride: int, groups: int
    ) -> None:
        super().__init__()
        self.conv1 = make_convolution(rng, inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = make_convolution(rng, width, width, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = make_convolution(rng, width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        same = stride == 1 and inputs == outputs
        self.down_sample = nn.Identity() if same else Projection(rng, inputs, outputs, stride)

    def construct(self, maps: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(maps)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return self.relu(branch + self.down_sample(maps))


class Projection(nn.Cell):
    """1x1 convolution that brings a block's input to the size of its output."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = make_convolution(rng, inputs, outputs, 1, stride)
        self.bn = nn.BatchNorm2d(outputs)

    def construct(self, maps: Tensor) -> Tensor:
        return self.bn(self.conv(maps))
