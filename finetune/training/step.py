"""Training step as a compiled graph: forward pass, loss, gradients, clipping, update and moving average."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.network.network import Tail


class Objective(nn.Cell):
    """Cross-entropy between soft targets and logits, summed and divided by the number of images."""

    def __init__(self, tail: Tail, scale: Parameter | None) -> None:
        super().__init__(auto_prefix=False)
        self.tail = tail
        self.scaled = scale is not None
        self.scale = scale

    def construct(self, images: Tensor, targets: Tensor, count: Tensor, mask: Tensor) -> Tensor:
        """Map images or features (N, …), targets (N, classes), their count and the dropout mask to a scalar."""
        logits = self.tail(images, mask).astype(ms.float32)
        loss = -(targets * ops.log_softmax(logits, -1)).sum() / count
        return loss * self.scale if self.scaled else loss


class Gradients(nn.Cell):
    """Loss and gradients of exactly the given parameters, summed over all processes."""

    def __init__(
        self, tail: Tail, parameters: Sequence[Parameter], scale: Parameter | None = None, processes: int = 1
    ) -> None:
        super().__init__(auto_prefix=False)
        self.objective = Objective(tail, scale)
        self.scaled = scale is not None
        self.scale = scale
        self.several = processes > 1
        if self.several:
            self.total = ops.AllReduce("sum")
            self.reduce = nn.DistributedGradReducer(ParameterTuple(parameters), mean=False, degree=processes)
        self.gradient = ops.value_and_grad(self.objective, None, ParameterTuple(parameters))

    def construct(self, images: Tensor, targets: Tensor, count: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        """Return the loss and a tuple of gradients, both unscaled."""
        loss, gradients = self.gradient(images, targets, count, mask)
        if self.scaled:
            loss = loss / self.scale
            gradients = tuple([g / self.scale for g in gradients])
        if self.several:
            loss = self.total(loss.reshape(1)).sum()
            gradients = self.reduce(gradients)
        return loss, gradients


class Averaged(nn.Cell):
    """Averages the statistics of BatchNorm over all processes, since each normalises its own images."""

    def __init__(self, statistics: Sequence[Parameter], processes: int) -> None:
        super().__init__(auto_prefix=False)
        self.statistics = ParameterTuple(statistics)
        self.total = ops.AllReduce("sum")
        self.processes = processes

    def construct(self) -> Tensor:
        """Average all statistics and return the first."""
        for each in self.statistics:
            ops.assign(each, self.total(each) / self.processes)
        return self.statistics[0]


class Update(nn.Cell):
    """Clips gradients by their common norm, and updates the parameters and their moving average."""

    def __init__(
        self, optimizer: nn.Cell, clip_norm: float | None, averaged: Sequence[Parameter], average: Sequence[Parameter]
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.averaging = len(average) > 0
        self.averaged = ParameterTuple(averaged)
        self.average = ParameterTuple(average)

    def construct(
        self, gradients: tuple[Tensor, ...], rate: Tensor, power1: Tensor, power2: Tensor, decay: Tensor
    ) -> Tensor:
        """Update everything and return the learning rate."""
        if self.clip_norm is not None:
            squares = (gradients[0] * gradients[0]).sum()
            for g in gradients[1:]:
                squares = squares + (g * g).sum()
            factor = ops.minimum(self.clip_norm / (ops.sqrt(squares) + 1e-6), Tensor(1.0, ms.float32))
            gradients = tuple([g * factor for g in gradients])
        done = self.optimizer(gradients, rate, power1, power2)
        if self.averaging:
            for i in range(len(self.average)):
                ops.assign(self.average[i], self.average[i] * decay + self.averaged[i] * (1.0 - decay))
        return done


class Guarded(nn.Cell):
    """An update that all processes skip if a gradient overflowed in any of them.

    Gradients are sums over all processes, but some devices report an overflow in a register of their own.
    """

    def __init__(self, update: Update, processes: int = 1) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.processes = processes
        if processes > 1:
            self.total = ops.AllReduce("sum")

    def construct(
        self, gradients: tuple[Tensor, ...], rate: Tensor, power1: Tensor, power2: Tensor, decay: Tensor
    ) -> Tensor:
        """Update if all gradients are finite, and return whether they are."""
        finite = ms.amp.all_finite(gradients)
        if self.processes > 1:
            finite = self.total(finite.astype(ms.float32).reshape(1)).sum() > self.processes - 0.5
        if finite:
            self.update(gradients, rate, power1, power2, decay)
        return finite


class TrainStep(nn.Cell):
    """Gradients and update in one graph."""

    def __init__(self, gradients: Gradients, update: Update | Guarded) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.update = update

    def construct(
        self,
        images: Tensor,
        targets: Tensor,
        count: Tensor,
        mask: Tensor,
        rate: Tensor,
        power1: Tensor,
        power2: Tensor,
        decay: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss before the update, and the output of the update."""
        loss, gradients = self.gradients(images, targets, count, mask)
        return loss, self.update(gradients, rate, power1, power2, decay)


class Accumulate(nn.Cell):
    """Adds the gradients of one batch to buffers."""

    def __init__(self, gradients: Gradients, buffers: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.buffers = buffers

    def construct(self, images: Tensor, targets: Tensor, count: Tensor, mask: Tensor) -> Tensor:
        """Return the batch's share of the loss."""
        loss, gradients = self.gradients(images, targets, count, mask)
        for i in range(len(self.buffers)):
            ops.assign(self.buffers[i], self.buffers[i] + gradients[i])
        return loss


class UpdateFromBuffers(nn.Cell):
    """Updates from the accumulated gradients, and clears the buffers."""

    def __init__(self, update: Update | Guarded, buffers: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.buffers = buffers

    def construct(self, rate: Tensor, power1: Tensor, power2: Tensor, decay: Tensor) -> Tensor:
        """Update everything and return the output of the update."""
        gradients = tuple([1.0 * buffer for buffer in self.buffers])
        done = self.update(gradients, rate, power1, power2, decay)
        for buffer in self.buffers:
            ops.assign(buffer, ops.zeros_like(buffer))
        return done
