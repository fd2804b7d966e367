"""Matmul form: the stages of a ResNeXt with convolutions as matrix products, for CPUs with AVX-512.

MindSpore's oneDNN runs most convolutions on plain NCHW maps in reference kernels once AVX-512 is allowed, while its
matrix products are twice as fast with AVX-512 as with AVX2. Here maps have channels first and images last, so that

* a 1x1 convolution is ``weight (O, I) @ maps (I, H*W*N)``, and so are both its gradients, without a transpose;
* shifting, padding and halving the sides copies complete rows of N floats (``Slice`` and ``concat``);
* BatchNorm takes the maps as one image (1, C, H*W*N, 1), with the same counts, statistics and momentum.

Rows of channels (N*H*W, C) were measured too, and are slower: BatchNorm takes 18 times as long on them. ``ops.Pad``
(25 times as long as joining zeros) and strided slices are slower as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mindspore import Tensor, nn, ops

from finetune_model.resnext import SamePool
from finetune_model.taps import GroupedStride1, GroupedStride2, Halve, gather_taps

if TYPE_CHECKING:
    from collections.abc import Mapping


def products(stages: Mapping[str, nn.Cell]) -> dict[str, nn.Cell]:
    """Return stages that take and return maps (C, H, W, N), with the parameters and BatchNorm cells of ``stages``."""
    found: dict[str, nn.Cell] = {}
    for name, stage in stages.items():
        found[name] = Stem(stage) if name == "stem" else Layer(stage)
    return found


class Layer(nn.Cell):
    """The blocks of a layer, one after the other."""

    def __init__(self, layer: nn.SequentialCell) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList([Block(block) for block in layer], auto_prefix=False)

    def construct(self, maps: Tensor) -> Tensor:
        """Map (C, H, W, N) to maps of the layer's width."""
        for block in self.blocks:
            maps = block(maps)
        return maps


class Block(nn.Cell):
    """Bottleneck: 1x1, grouped 3x3 (which has the stride), 1x1, and the input added before the last ReLU."""

    def __init__(self, block: Any) -> None:
        super().__init__(auto_prefix=False)
        self.conv1, self.bn1 = Pointwise(block.conv1), Norm(block.bn1)
        self.conv2, self.bn2 = Grouped(block.conv2), Norm(block.bn2)
        self.conv3, self.bn3 = Pointwise(block.conv3), Norm(block.bn3)
        self.relu = nn.ReLU()
        same = isinstance(block.down_sample, nn.Identity)
        self.down_sample = nn.Identity() if same else Projection(block.down_sample)

    def construct(self, maps: Tensor) -> Tensor:
        """Map (C, H, W, N) to maps of the block's width."""
        branch = self.relu(self.bn1(self.conv1(maps)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return self.relu(branch + self.down_sample(maps))


class Projection(nn.Cell):
    """1x1 convolution that brings a block's input to the size of its output."""

    def __init__(self, projection: Any) -> None:
        super().__init__(auto_prefix=False)
        self.conv, self.bn = Pointwise(projection.conv), Norm(projection.bn)

    def construct(self, maps: Tensor) -> Tensor:
        """Map (C, H, W, N) to maps of another width."""
        return self.bn(self.conv(maps))


class Norm(nn.Cell):
    """A BatchNorm2d of (C, H, W, N)."""

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        super().__init__(auto_prefix=False)
        self.bn = bn

    def construct(self, maps: Tensor) -> Tensor:
        """Normalise each channel."""
        c, h, w, n = maps.shape
        return self.bn(maps.reshape(1, c, h * w * n, 1)).reshape(c, h, w, n)


class Pointwise(nn.Cell):
    """1x1 convolution."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(auto_prefix=False)
        self.weight = convolution.weight
        self.halve = Halve() if convolution.stride[-1] == 2 else nn.Identity()
        self.product = ops.MatMul()

    def construct(self, maps: Tensor) -> Tensor:
        """Map (I, H, W, N) to (O, H, W, N), or to half the sides."""
        maps = self.halve(maps)
        c, h, w, n = maps.shape
        o = self.weight.shape[0]
        return self.product(self.weight.reshape(o, c), maps.reshape(c, h * w * n)).reshape(o, h, w, n)


class Grouped(nn.Cell):
    """Grouped 3x3 convolution, padded by 1."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(auto_prefix=False)
        self.weight = convolution.weight
        kind = GroupedStride2 if convolution.stride[-1] == 2 else GroupedStride1
        self.convolve = kind(convolution.group)

    def construct(self, maps: Tensor) -> Tensor:
        """Map (I, H, W, N) to (O, H, W, N), or to half the sides."""
        return self.convolve(maps, self.weight)


class Stem(nn.Cell):
    """Convolution of stride 2, then a 3x3 max-pool of stride 2 where the stem has one."""

    def __init__(self, stem: Any) -> None:
        super().__init__(auto_prefix=False)
        self.conv, self.bn, self.relu = StemConvolution(stem.conv), Norm(stem.bn), nn.ReLU()
        pooled = not isinstance(stem.pool, nn.Identity)
        self.pool = MaxPool(same=isinstance(stem.pool, SamePool)) if pooled else nn.Identity()

    def construct(self, images: Tensor) -> Tensor:
        """Map images (3, H, W, N) to maps."""
        return self.pool(self.relu(self.bn(self.conv(images))))


class StemConvolution(nn.Cell):
    """Dense convolution of stride 2 over images, for which no gradient is computed."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(auto_prefix=False)
        self.weight = convolution.weight
        self.product = ops.MatMul()

    def construct(self, images: Tensor) -> Tensor:
        """Map (3, H, W, N) to (O, H/2, W/2, N), sides rounded up."""
        c, height, width, n = images.shape
        o, _, k, _ = self.weight.shape
        columns = ops.stop_gradient(gather_taps(images, k, 2, 0)).reshape(c * k * k, -1)
        found = self.product(self.weight.reshape(o, c * k * k), columns)
        return found.reshape(o, (height + 1) // 2, (width + 1) // 2, n)


class MaxPool(nn.Cell):
    """3x3 max-pool of stride 2 of maps that are never negative, so that zeros can pad them.

    ``same`` pads as MindSpore's own models do, even sides at the end only; otherwise all sides are padded by 1.
    """

    def __init__(self, *, same: bool) -> None:
        super().__init__(auto_prefix=False)
        self.same = same

    def construct(self, maps: Tensor) -> Tensor:
        """Map (C, H, W, N) to half the sides, rounded up."""
        c, height, width, n = maps.shape
        h, w = (height + 1) // 2, (width + 1) // 2
        above = 0 if self.same and height % 2 == 0 else 1
        left = 0 if self.same and width % 2 == 0 else 1
        rows = self.strip(maps, above, h, c, height, width * n).reshape(c * h, width, n)
        return self.strip(rows, left, w, c * h, width, n).reshape(c, h, w, n)

    def strip(self, maps: Tensor, before: int, h: int, c: int, height: int, run: int) -> Tensor:
        """Return the maxima of three rows of ``run`` numbers, at every second row of ``height``, ``before`` padded."""
        maps = maps.reshape(c, height, run)
        parts: tuple[Tensor, ...] = (maps, ops.zeros((c, 2 * (h + 1) - height - before, run), maps.dtype))
        if before:
            parts = (ops.zeros((c, before, run), maps.dtype), *parts)
        pairs = ops.concat(parts, 1).reshape(c, h + 1, 2 * run)
        first = ops.Slice()(pairs, (0, 0, 0), (c, h, run))
        second = ops.Slice()(pairs, (0, 0, run), (c, h, run))
        third = ops.Slice()(pairs, (0, 1, 0), (c, h, run))
        return ops.maximum(ops.maximum(first, second), third)
