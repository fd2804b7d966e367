"""Network: the stages of a backbone in order, the mean over positions, and a head."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from finetune.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from finetune.components import Backbone
    from finetune.machine.forms import Forms

    Stages = Mapping[str, nn.Cell]
    from collections.abc import Sequence


def find_trunk(stages: Sequence[str], trainable: Iterable[str]) -> tuple[str, ...]:
    """Return the frozen stages before the first stage that trains; ``stages`` ends with the head."""
    training = set(trainable)
    return tuple(takewhile(lambda stage: stage not in training, stages))


HEAD = "head"


class Network(nn.Cell):
    """Stages and head as one cell; the name of every parameter starts with its stage or ``head``."""

    def __init__(self, stages: Stages, head: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.names = (*stages, HEAD)
        for name, cell in stages.items():
            cell.update_parameters_name(f"{name}.")
        head.update_parameters_name(f"{HEAD}.")
        self.stages = nn.CellList(list(stages.values()), auto_prefix=False)
        self.head = head

    def construct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 and the head's dropout mask to (N, classes) logits."""
        return self.head(self.compute_features(images), mask)

    def compute_features(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 to (N, features): the last stage's mean over positions."""
        x = images
        for stage in self.stages:
            x = stage(x)
        if x.ndim == 4:
            x = x.mean((2, 3))
        return x

    def check_features(self, backbone: Backbone, size: int) -> None:
        """Raise ``PluginError`` unless an image of ``size`` pixels has as many features as the backbone declares."""
        mode = ms.get_context("mode")
        ms.set_context(mode=ms.PYNATIVE_MODE)  # nothing is compiled
        try:
            self.set_train(False)
            found = self.compute_features(Tensor(np.zeros((1, 3, size, size), np.float32))).shape
        finally:
            ms.set_context(mode=mode)
        if found != (1, backbone.features):
            shape = "x".join(map(str, found))
            text = f"backbone '{backbone.name}' returns features of shape {shape} but declares {backbone.features}"
            raise PluginError(f"{text}; make them equal")

    def get_stage(self, stage: str) -> nn.Cell:
        """Return the cell of a stage or of the head."""
        return self.head if stage == HEAD else self.stages[self.names.index(stage)]

    def get_parameters_of(self, stages: Iterable[str]) -> list[Parameter]:
        """Return the parameters of ``stages``, including BatchNorm statistics, in network order."""
        wanted = set(stages)
        return [p for p in self.get_parameters() if p.name.split(".", 1)[0] in wanted]

    def set_modes(self, trainable: Iterable[str], *, frozen_batch_norm: bool) -> None:
        """Put the stages that train into training mode and all others into evaluation mode.

        In evaluation mode BatchNorm uses its stored statistics and does not change them.
        """
        training = set(trainable)
        self.set_train(False)
        for name in self.names:
            self.get_stage(name).set_train(name in training)
            if frozen_batch_norm:
                for _, cell in self.get_stage(name).cells_and_names():
                    if isinstance(cell, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                        cell.set_train(False)


class Chain(nn.Cell):
    """Consecutive stages of a network; the last stage of the network is followed by the mean over positions.

    ``matmul_form`` has the stages that compute in matmul form, on maps (C, H, W, N). The layout changes only where
    the form changes.
    """

    def __init__(self, network: Network, stages: slice, matmul_form: Stages | None) -> None:
        super().__init__(auto_prefix=False)
        names, form = network.names[:-1][stages], matmul_form or {}
        cells: list[nn.Cell] = []
        in_form = False
        for name in names:
            if (name in form) != in_form:
                cells.append(ImagesFirst() if in_form else ImagesLast())
                in_form = not in_form
            cells.append(form[name] if in_form else network.get_stage(name))
        self.pools = names[-1:] == network.names[-2:-1]
        self.averages = self.pools and in_form
        if in_form and not self.pools:
            cells.append(ImagesFirst())
        self.stages = nn.CellList(cells, auto_prefix=False)

    def construct(self, x: Tensor) -> Tensor:
        """Map the input of the first stage (N, …) to the output of the last one (N, …)."""
        for stage in self.stages:
            x = stage(x)
        if self.averages:
            return ops.transpose(x.mean((1, 2)), (1, 0))
        if self.pools and x.ndim == 4:
            return x.mean((2, 3))
        return x


class ImagesLast(nn.Cell):
    """Convert maps from (N, C, H, W) to (C, H, W, N), the layout of the matmul form."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.product = ops.MatMul(transpose_a=True)

    def construct(self, x: Tensor) -> Tensor:
        """Multiply by the identity matrix, which is exact and takes a third of the time of a transpose."""
        n, c, h, w = x.shape
        return self.product(x.reshape(n, c * h * w), ops.eye(n, n, x.dtype)).reshape(c, h, w, n)


class ImagesFirst(nn.Cell):
    """Convert maps from (C, H, W, N) to (N, C, H, W), the layout of convolutions."""

    def construct(self, maps: Tensor) -> Tensor:
        return ops.transpose(maps, (3, 0, 1, 2))


class Trunk(nn.Cell):
    """The first ``count`` stages of a network, which return pooled features if these are all stages."""

    def __init__(self, network: Network, count: int, matmul_form: Stages | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.chain = Chain(network, slice(0, count), matmul_form)

    def construct(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 to the input of the next stage, or to (N, features)."""
        return self.chain(images)


class Tail(nn.Cell):
    """The stages of a network starting with number ``first``, and its head."""

    def __init__(self, network: Network, first: int, matmul_form: Stages | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.chain = Chain(network, slice(first, None), matmul_form)
        self.head = network.head

    def construct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map the output of the trunk and the head's dropout mask to (N, classes) logits."""
        return self.head(self.chain(x), mask)


def build_matmul_form(backbone: Backbone, network: Network, forms: Forms) -> Stages | None:
    """Return the stages that compute in matmul form; None if there are none."""
    names = backbone.stages if forms.uncapped else forms.matmul
    if backbone.matmul_form is None or not names:
        return None
    made = backbone.matmul_form({name: network.get_stage(name) for name in backbone.stages})
    return {name: made[name] for name in names}


def is_statistic(parameter: Parameter) -> bool:
    """Return whether a parameter is a running statistic of BatchNorm, which no optimizer updates."""
    return str(parameter.name).endswith((".moving_mean", ".moving_variance"))


def build_stages(backbone: Backbone, options: object) -> dict[str, nn.Cell]:
    """Build a backbone's stages and check that they match its declared stages."""
    stages = dict(backbone.build(options))
    if tuple(stages) != backbone.stages:
        raise PluginError(
            f"backbone '{backbone.name}' built stages {', '.join(stages)} but declares "
            f"{', '.join(backbone.stages)}; make them equal, in the same order"
        )
    for name, cell in stages.items():
        if not isinstance(cell, nn.Cell):
            built = f"stage '{name}' as {type(cell).__name__}"
            raise PluginError(f"backbone '{backbone.name}' built {built}; return a mindspore.nn.Cell for each stage")
    return stages


def read_values(parameters: Iterable[Parameter]) -> dict[str, NDArray[np.float32]]:
    """Return parameters as arrays by name; the arrays share memory with them if the device allows it."""
    return {p.name: p.asnumpy() for p in parameters}


def assign_values(parameters: Iterable[Parameter], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set parameters from arrays of the same names and shapes."""
    for parameter in parameters:
        parameter.set_data(Tensor(np.ascontiguousarray(arrays[parameter.name])))
