"""Heads: map pooled features to logits. Dropout masks are inputs, so that runs are reproducible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from finetune.data.loader import Stream, make_generator
from finetune.recipe.models import LinearHead, MlpHead

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Dense(nn.Cell):
    """A fully connected layer, initialised uniformly within 1/sqrt(inputs) (the default of most frameworks)."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        weight = rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
        self.weight = Parameter(Tensor(weight), name="weight")
        self.bias = Parameter(Tensor(np.zeros(outputs, np.float32)), name="bias")
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, inputs) to (N, outputs)."""
        return self.matmul(x, self.weight) + self.bias


class Linear(nn.Cell):
    """Dropout, then one fully connected layer."""

    def __init__(self, features: int, classes: int, rng: np.random.Generator, *, drops: bool) -> None:
        super().__init__()
        self.drops = drops
        self.fc = Dense(features, classes, rng)

    def construct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (N, features) and a mask that broadcasts to it to (N, classes)."""
        return self.fc(x * mask if self.drops else x)


class Mlp(nn.Cell):
    """A hidden layer with ReLU and dropout, then one fully connected layer."""

    def __init__(self, features: int, hidden: int, classes: int, rng: np.random.Generator, *, drops: bool) -> None:
        super().__init__()
        self.drops = drops
        self.hidden = Dense(features, hidden, rng)
        self.fc = Dense(hidden, classes, rng)
        self.relu = nn.ReLU()

    def construct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (N, features) and a mask that broadcasts to (N, hidden) to (N, classes)."""
        x = self.relu(self.hidden(x))
        return self.fc(x * mask if self.drops else x)


def build_head(section: LinearHead | MlpHead, features: int, classes: int, seed: int) -> nn.Cell:
    """Build the head of a recipe; the same seed gives the same weights."""
    rng, drops = make_generator(Stream.HEAD, seed), section.dropout > 0.0
    if isinstance(section, MlpHead):
        return Mlp(features, section.hidden, classes, rng, drops=drops)
    return Linear(features, classes, rng, drops=drops)


def draw_dropout_mask(
    section: LinearHead | MlpHead, features: int, batch: int, seed: int, step: int
) -> NDArray[np.float32]:
    """Return the dropout mask of a step, scaled to keep the mean: (batch, width) float32, or (1, 1) of ones if off.

    MindSpore's own dropout on a CPU is not reproducible with a seed; this mask depends only on (seed, step).
    """
    if section.dropout == 0.0:
        return np.ones((1, 1), np.float32)
    width = section.hidden if isinstance(section, MlpHead) else features
    rng = make_generator(Stream.DROPOUT, seed, step)
    keep = rng.random((batch, width), dtype=np.float32) >= section.dropout
    return (keep / (1.0 - section.dropout)).astype(np.float32)
