"""Class activation maps of a network.

With a linear head on the mean over positions, the map of a class is the sum of the last stage's channels, weighted by
the head (Zhou et al. 2016, https://arxiv.org/abs/1512.04150). It is exact: its mean plus the bias is the logit. For any
other network, the weights are the mean gradients of the logit, as in Grad-CAM (Selvaraju et al. 2017,
https://arxiv.org/abs/1610.02391), at the last stage that returns a map.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import mindspore as ms
import numpy as np
from mindspore import Tensor

from finetune.errors import UsageError
from finetune.network.heads import Linear

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from finetune.network.network import Network

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

Method = Literal["cam", "grad-cam"]


def compute_maps(network: Network, images: Floats, classes: Rows) -> tuple[Floats, Method]:
    """Return the map (N, h, w) of each image for its class, and the method.

    ``images`` are preprocessed (N, 3, H, W) float32, ``classes`` (N,) are indices. Positive values speak for the class,
    negative ones against it. Raises ``UsageError`` if no stage of the network returns maps.
    """
    with run_eagerly():
        network.set_train(False)
        outputs: list[Any] = [Tensor(images)]
        for stage in network.stages:
            outputs.append(stage(outputs[-1]))
        last = max((at for at, x in enumerate(outputs[1:], 1) if x.ndim == 4), default=0)
        if not last:
            raise UsageError("explain: no stage of this network returns maps with positions; use another backbone")
        maps = outputs[last].asnumpy()
        if last == len(network.stages) and isinstance(network.head, Linear):
            weights = network.head.fc.weight.asnumpy()[classes]
            return np.einsum("nc,nchw->nhw", weights, maps), "cam"
        slopes = _differentiate(network, last, outputs[last], classes).mean(axis=(2, 3))
        return np.einsum("nc,nchw->nhw", slopes * maps[0, 0].size, maps), "grad-cam"


def compute_activations(network: Network, images: Floats) -> Floats | None:
    """Return the output (N, C, h, w) of the last stage for preprocessed images; None if it returns no maps."""
    with run_eagerly():
        network.set_train(False)
        x: Any = Tensor(images)
        for stage in network.stages:
            x = stage(x)
        return x.asnumpy() if x.ndim == 4 else None


def _differentiate(network: Network, first: int, maps: Any, classes: Rows) -> Floats:
    """Return the gradient (N, C, h, w) of each image's logit for its class by the input of stage number ``first``."""
    ones = Tensor(np.ones((1, 1), np.float32))
    count = int(network.head.fc.bias.shape[0])
    chosen = Tensor(np.eye(count, dtype=np.float32)[classes])

    def compute_logit(x: Any) -> Any:
        for stage in list(network.stages)[first:]:
            x = stage(x)
        if x.ndim == 4:
            x = x.mean((2, 3))
        return (network.head(x, ones) * chosen).sum()

    found: Floats = ms.grad(compute_logit)(maps).asnumpy()
    return found


@contextmanager
def run_eagerly() -> Iterator[None]:
    """Compute without compiling inside a block, since a few images do not repay it."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)
