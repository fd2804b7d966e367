"""Synchronised BatchNorm: statistics over the images of all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mindspore import Tensor, nn, ops

if TYPE_CHECKING:
    from finetune.network.network import Network


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that uses mean and variance over all processes in training, and plain BatchNorm in evaluation."""

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        if not self.training:
            return self.bn_infer(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        count = x.shape[0] * x.shape[2] * x.shape[3] * self.processes
        mean = self.total(x.sum((0, 2, 3))) / count
        centred = x - mean.reshape(1, -1, 1, 1)
        variance = self.total((centred * centred).sum((0, 2, 3))) / count
        rate = self.momentum  # MindSpore stores one minus the argument
        ops.assign(self.moving_mean, self.moving_mean * (1.0 - rate) + mean * rate)
        unbiased = variance * (count / (count - 1.0))
        ops.assign(self.moving_variance, self.moving_variance * (1.0 - rate) + unbiased * rate)
        scale = self.gamma * ops.rsqrt(variance + self.eps)
        return centred * scale.reshape(1, -1, 1, 1) + self.beta.reshape(1, -1, 1, 1)


def synchronise_batch_norm(network: Network, processes: int) -> None:
    """Make every 2-D BatchNorm of a network normalise over all processes; parameters and names stay the same."""
    for _, cell in network.cells_and_names():
        if type(cell) is nn.BatchNorm2d:
            cell.__class__ = SyncBatchNorm2d
            cell.total, cell.processes = ops.AllReduce("sum"), processes
