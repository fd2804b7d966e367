"""SqueezeNet 1.1 (Iandola et al. 2016, https://arxiv.org/abs/1602.07360) without its classifier."""

from mindspore import Tensor, nn, ops


def stages() -> dict[str, nn.Cell]:
    """Return the stages in order; the last maps to (N, 512, H, W)."""
    return {
        "stem": Stem(),
        "fire23": nn.SequentialCell(Fire(64, 16, 64), Fire(128, 16, 64), Pool()),
        "fire45": nn.SequentialCell(Fire(128, 32, 128), Fire(256, 32, 128), Pool()),
        "fire67": nn.SequentialCell(Fire(256, 48, 192), Fire(384, 48, 192)),
        "fire89": nn.SequentialCell(Fire(384, 64, 256), Fire(512, 64, 256)),
    }


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Return a convolution with bias, padded with zeros on all sides."""
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride,
        pad_mode="pad",
        padding=padding,
        has_bias=True,
        weight_init="he_normal",
        bias_init="zeros",
    )


class Stem(nn.Cell):
    """A convolution of stride 2 without padding, followed by a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = convolution(3, 64, 3, stride=2)
        self.pool = Pool()

    def construct(self, images: Tensor) -> Tensor:
        return self.pool(ops.relu(self.conv(images)))


class Fire(nn.Cell):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions to many, side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = convolution(inputs, squeezed, 1)
        self.expand1x1 = convolution(squeezed, expanded, 1)
        self.expand3x3 = convolution(squeezed, expanded, 3, padding=1)

    def construct(self, maps: Tensor) -> Tensor:
        squeezed = ops.relu(self.squeeze(maps))
        return ops.relu(ops.concat((self.expand1x1(squeezed), self.expand3x3(squeezed)), 1))


class Pool(nn.Cell):
    """3x3 max-pool of stride 2 whose last window may extend beyond the end of the (square) maps."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.MaxPool2d(3, 2, pad_mode="valid")
        self.even = nn.MaxPool2d(3, 2, pad_mode="same")  # pads even sides at the end only

    def construct(self, maps: Tensor) -> Tensor:
        return self.odd(maps) if maps.shape[2] % 2 else self.even(maps)
