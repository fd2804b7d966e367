"""im2col for maps (C, H, W, N): data movement for convolutions as matrix products, and their gradients.

Everything here copies contiguous memory: ``Slice``, ``concat`` and ``reshape``. Strided slices, ``Pad`` and gathers
take 5 to 30 times as long in MindSpore on a CPU.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops


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
