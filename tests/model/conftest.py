"""MindSpore on the CPU with fast convolutions, and the chain of a backbone's stages as one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from mindspore import nn

Build = Callable[..., "nn.Cell"]


@pytest.fixture(autouse=True)
def graph_mode() -> Iterator[None]:
    """Set the device up, and leave MindSpore in graph mode whatever a test did."""
    from finetune.machine import device

    device.set_up(device="cpu")
    yield
    device.set_up(device="cpu")


@pytest.fixture
def chain() -> Build:
    """Return what builds a backbone's stages, named as in a network, as one cell in evaluation mode."""

    def build(backbone: Any, seed: int = 1, **options: Any) -> nn.Cell:
        import mindspore as ms
        from mindspore import nn

        class Chain(nn.Cell):  # type: ignore[misc]
            def __init__(self, stages: dict[str, nn.Cell]) -> None:
                super().__init__(auto_prefix=False)
                self.stages = nn.CellList(list(stages.values()), auto_prefix=False)

            def construct(self, x: Any) -> Any:
                for stage in self.stages:
                    x = stage(x)
                return x

        ms.set_seed(seed)
        stages = backbone.build(backbone.options(**options))
        for name, cell in stages.items():
            cell.update_parameters_name(f"{name}.")
        return Chain(stages).set_train(False)

    return build


@pytest.fixture
def images() -> Callable[[int, int], Any]:
    """Return what draws a batch of (n, 3, size, size) float32 images."""

    def draw(count: int, size: int) -> Any:
        from mindspore import Tensor

        return Tensor(np.random.default_rng(5).standard_normal((count, 3, size, size), np.float32))

    return draw
