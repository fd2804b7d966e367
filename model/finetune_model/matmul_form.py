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

if TYPE_CHECKING:
    from collections.abc import Mapping


def build_matmul_form(stages: Mapping[str, nn.Cell]) -> dict[str, nn.Cell]:
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


# im2col for maps (C, H, W, N): everything here copies contiguous memory with `Slice`, `concat` and `reshape`, since
# strided slices, `Pad` and gathers take 5 to 30 times as long in MindSpore on a CPU.


class Halve(nn.Cell):
    """Every second row and column."""

    def construct(self, maps: Tensor) -> Tensor:
        """Map (C, H, W, N) to half the sides, rounded up."""
        c, height, width, n = maps.shape
        h, w = (height + 1) // 2, (width + 1) // 2
        if height % 2:
            maps = ops.concat((maps, ops.zeros((c, 1, width, n), maps.dtype)), 1)
        if width % 2:
            maps = ops.concat((maps, ops.zeros((c, 2 * h, 1, n), maps.dtype)), 2)
        pairs = maps.reshape(c, h, 2, w, 2 * n)
        return ops.Slice()(pairs, (0, 0, 0, 0, 0), (c, h, 1, w, n)).reshape(c, h, w, n)

    def bprop(self, maps: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """Put zeros between the rows and columns of the gradient."""
        c, height, width, n = maps.shape
        h, w = (height + 1) // 2, (width + 1) // 2
        wide = ops.concat((dout, ops.zeros_like(dout)), 3).reshape(c, h, 2 * w * n)
        both = ops.concat((wide, ops.zeros_like(wide)), 2).reshape(c, 2 * h, 2 * w, n)
        return (ops.Slice()(both, (0, 0, 0, 0), (c, height, width, n)),)


class GroupedStride1(nn.Cell):
    """Grouped 3x3 convolution of stride 1; its gradients share one set of shifted output gradients."""

    def __init__(self, groups: int) -> None:
        super().__init__(auto_prefix=False)
        self.groups = groups
        self.product = ops.BatchMatMul()
        self.product_tb = ops.BatchMatMul(transpose_b=True)

    def construct(self, maps: Tensor, weight: Tensor) -> Tensor:
        """Map (I, H, W, N) and a weight (O, I / groups, 3, 3) to (O, H, W, N), sides divided by the stride."""
        c, h, w, n = maps.shape
        g = self.groups
        o = weight.shape[0]
        columns = gather_taps(maps, 3, 1, 0).reshape(g, c // g * 9, h * w * n)
        return self.product(weight.reshape(g, o // g, c // g * 9), columns).reshape(o, h, w, n)

    def bprop(self, maps: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of maps and weight."""
        c, h, w, n = maps.shape
        g = self.groups
        o = weight.shape[0]
        columns = gather_taps(dout, 3, 1, 1).reshape(g, o // g * 9, h * w * n)
        turned = ops.transpose(weight.reshape(g, o // g, c // g, 9), (0, 2, 1, 3)).reshape(g, c // g, o // g * 9)
        dmaps = self.product(turned, columns).reshape(c, h, w, n)
        dweight = self.product_tb(maps.reshape(g, c // g, h * w * n), columns).reshape(g, c // g, o // g, 9)
        return dmaps, ops.transpose(dweight, (0, 2, 1, 3)).reshape(weight.shape)


class GroupedStride2(nn.Cell):
    """Grouped 3x3 convolution of stride 2."""

    def __init__(self, groups: int) -> None:
        super().__init__(auto_prefix=False)
        self.groups = groups
        self.product = ops.BatchMatMul()
        self.product_ta = ops.BatchMatMul(transpose_a=True)
        self.product_tb = ops.BatchMatMul(transpose_b=True)

    def construct(self, maps: Tensor, weight: Tensor) -> Tensor:
        """Map (I, H, W, N) and a weight (O, I / groups, 3, 3) to (O, H, W, N), sides divided by the stride."""
        c, height, width, n = maps.shape
        g = self.groups
        o = weight.shape[0]
        h, w = (height + 1) // 2, (width + 1) // 2
        columns = gather_taps(maps, 3, 2, 0).reshape(g, c // g * 9, h * w * n)
        return self.product(weight.reshape(g, o // g, c // g * 9), columns).reshape(o, h, w, n)

    def bprop(self, maps: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of maps and weight."""
        c, height, width, n = maps.shape
        g = self.groups
        o = weight.shape[0]
        h, w = (height + 1) // 2, (width + 1) // 2
        columns = gather_taps(maps, 3, 2, 0).reshape(g, c // g * 9, h * w * n)
        grads = dout.reshape(g, o // g, h * w * n)
        dweight = self.product_tb(grads, columns).reshape(weight.shape)
        dcolumns = self.product_ta(weight.reshape(g, o // g, c // g * 9), grads).reshape(c, 3, 3, h, w * n)
        rows = spread_taps(dcolumns, c, 3, h, w * n)
        rows = ops.Slice()(rows, (0, 0, 1, 0), (c, 3, height, w * n))
        rows = rows.reshape(c, 3, height * w, n)
        zero = ops.zeros((c, height, 1, n), maps.dtype)
        t0 = ops.Slice()(rows, (0, 0, 0, 0), (c, 1, height * w, n)).reshape(c, height, w, n)
        t1 = ops.Slice()(rows, (0, 1, 0, 0), (c, 1, height * w, n)).reshape(c, height, w, n)
        t2 = ops.Slice()(rows, (0, 2, 0, 0), (c, 1, height * w, n)).reshape(c, height, w, n)
        even = ops.concat((t0, zero), 2) + ops.concat((zero, t2), 2)
        odd = ops.concat((t1, zero), 2)
        both = ops.concat((even, odd), 3).reshape(c, height, 2 * (w + 1), n)
        return ops.Slice()(both, (0, 0, 1, 0), (c, height, width, n)), dweight


def spread_taps(dcolumns: Tensor, c: int, k: int, h: int, run: int) -> Tensor:
    """Add the rows of three taps (C, 3, 3, h, run) to the rows of stride 2 they came from: (C, 3, 2*(h+1), run)."""
    t0 = ops.Slice()(dcolumns, (0, 0, 0, 0, 0), (c, 1, k, h, run)).reshape(c, k, h, run)
    t1 = ops.Slice()(dcolumns, (0, 1, 0, 0, 0), (c, 1, k, h, run)).reshape(c, k, h, run)
    t2 = ops.Slice()(dcolumns, (0, 2, 0, 0, 0), (c, 1, k, h, run)).reshape(c, k, h, run)
    blank = ops.zeros((c, k, 1, run), dcolumns.dtype)
    even = ops.concat((t0, blank), 2) + ops.concat((blank, t2), 2)
    odd = ops.concat((t1, blank), 2)
    return ops.concat((even, odd), 3).reshape(c, k, 2 * (h + 1), run)


def gather_taps(maps: Tensor, kernel: int, stride: int, mirrored: int) -> Tensor:
    """Return the inputs of each tap of a kernel, (C, taps, h*w*N), of maps (C, H, W, N) padded by ``kernel // 2``.

    ``mirrored`` is 1 for the taps in reverse order, else 0. There is no ``if`` here, because it does not compile when
    ``bprop`` calls this function.
    """
    c, height, width, n = maps.shape
    before = kernel // 2
    h, w = (height - 1) // stride + 1, (width - 1) // stride + 1
    down, across = h + (kernel - 1) // stride, w + (kernel - 1) // stride
    tall, wide = stride * down, stride * across
    top = ops.zeros((c, before, width, n), maps.dtype)
    bottom = ops.zeros((c, tall - height - before, width, n), maps.dtype)
    left = ops.zeros((c, tall, before, n), maps.dtype)
    right = ops.zeros((c, tall, wide - width - before, n), maps.dtype)
    maps = ops.concat((left, ops.concat((top, maps, bottom), 1), right), 2)
    maps = maps.reshape(c, down, stride, across, stride * n)
    taps: tuple[Tensor, ...] = ()
    for row in range(kernel):
        for column in range(kernel):
            y, x = row + mirrored * (kernel - 1 - 2 * row), column + mirrored * (kernel - 1 - 2 * column)
            begin = (0, y // stride, y % stride, x // stride, x % stride * n)
            taps += (ops.Slice()(maps, begin, (c, h, 1, w, n)).reshape(c, h, w, n),)
    return ops.concat(taps, 1).reshape(c, kernel * kernel, h * w * n)
