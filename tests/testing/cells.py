"""Cells that do one thing wrong each, and a few that do not."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

# Without a source file, as in a terminal.
SPACE: dict[str, Any] = {"nn": nn}
exec("class Typed(nn.Cell):\n    def construct(self, x):\n        return x\n", SPACE)
Typed = SPACE["Typed"]


def convolution(inputs: int = 3, outputs: int = 8) -> nn.Cell:
    """Return a convolution of stride 4, its weights a function of MindSpore's seed."""
    return nn.Conv2d(inputs, outputs, 4, 4)


def sound() -> dict[str, nn.Cell]:
    """Return two stages in order."""
    return {"stem": convolution(), "body": nn.SequentialCell(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())}


def after(*cells: nn.Cell) -> dict[str, nn.Cell]:
    """Return two stages, the second ending in these cells."""
    return {"stem": convolution(), "body": nn.SequentialCell(nn.Conv2d(8, 8, 3), *cells)}


class This(nn.Cell):
    """Calls itself otherwise."""

    def construct(this, x: Tensor) -> Tensor:
        return x


class Scaled(nn.Cell):
    """Multiplies by a parameter of another cell."""

    def __init__(self, weight: Parameter) -> None:
        super().__init__()
        self.weight = weight

    def construct(self, x: Tensor) -> Tensor:
        return x * self.weight.mean()


class Counting(nn.Cell):
    """Counts its calls in a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Parameter(Tensor(np.zeros(1, np.float32)), name="calls", requires_grad=False)

    def construct(self, x: Tensor) -> Tensor:
        ops.assign_add(self.calls, Tensor(np.ones(1, np.float32)))
        return x


class OfBatch(nn.Cell):
    """Subtracts the mean over the batch."""

    def construct(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keep_dims=True)


class Stopped(nn.Cell):
    """Lets no gradient through."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.stop_gradient(x)


class Hosted(nn.Cell):
    """Computes in numpy, which no graph can."""

    def construct(self, x: Tensor) -> Tensor:
        return Tensor(np.sort(x.asnumpy(), -1)) + x


class OnlyPyNative(nn.Cell):
    """Answers otherwise where it is compiled."""

    def construct(self, x: Tensor) -> Tensor:
        if ms.get_context("mode") == ms.PYNATIVE_MODE:
            return x * 2
        return x


class Unexported(nn.Cell):
    """Uses an operator that ONNX does not get."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.erfinv(ops.tanh(x) * 0.5)


class Halves(nn.Cell):
    """Returns float16."""

    def construct(self, x: Tensor) -> Tensor:
        return x.astype(ms.float16)


class Infinite(nn.Cell):
    """Divides by nothing."""

    def construct(self, x: Tensor) -> Tensor:
        return x / 0.0


class Blind(nn.Cell):
    """Looks at nothing."""

    def construct(self, x: Tensor) -> Tensor:
        return x * 0.0 + 1.0


class Rows(nn.Cell):
    """A convolution of side 4 and stride 4 as a product, on maps (C, H, W, N)."""

    def __init__(self, of: nn.Conv2d, factor: float) -> None:
        super().__init__(auto_prefix=False)
        self.of, self.factor = of, factor

    def construct(self, x: Tensor) -> Tensor:
        y = self.of(ops.transpose(x, (3, 0, 1, 2)))
        return ops.transpose(y, (1, 2, 3, 0)) * self.factor
