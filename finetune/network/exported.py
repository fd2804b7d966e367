"""A cell as it is written to a file."""

from __future__ import annotations

from mindspore import Tensor, nn


class Exported(nn.Cell):
    """Another cell and nothing else; what MindSpore compiles to write it goes with this one."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.set_train(False)

    def construct(self, x: Tensor) -> Tensor:
        """Return what the cell makes of its input."""
        return self.cell(x)
