"""ResNeXt-50 (32x4d) in PyTorch, written from table 1 of its paper (Xie et al. 2017, arXiv:1611.05431).

``python torch_resnext.py FOLDER`` draws a network and images and writes what it computes; a process of its own, so
that torch and MindSpore never share one. Nothing of this project is used.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS, GROUPS, WIDTH, CLASSES = (3, 4, 6, 3), 32, 4, 1000
PADDINGS, SIZES, IMAGES = ("same", "symmetric"), (224, 227), 8


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 with the stride, 1x1 of twice the width; the input is added before the last ReLU."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 2 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        else:
            self.downsample = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNeXt50(nn.Module):
    """The network up to its logits, with names as torchvision has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for number, depth in enumerate(DEPTHS):
            width, blocks = GROUPS * WIDTH * 2**number, []
            for position in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if number and not position else 1))
                inputs = 2 * width
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, CLASSES)

    def features(self, images: Tensor, padding: str) -> Tensor:
        """Map (N, 3, H, W) to (N, 2048); ``padding`` is that of the 3x3 max-pool of stride 2."""
        x = pool(F.relu(self.bn1(self.conv1(images))), padding)
        for number in range(len(DEPTHS)):
            x = getattr(self, f"layer{number + 1}")(x)
        return x.mean((2, 3))


def pool(maps: Tensor, padding: str) -> Tensor:
    """Pad by 1 on all sides, or just as much as gives half the side, the odd pixel at the right and bottom."""
    if padding == "symmetric":
        return F.max_pool2d(maps, 3, 2, padding=1)
    height, width = (max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in maps.shape[2:])
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.max_pool2d(F.pad(maps, sides, value=-torch.inf), 3, 2)


def drawn(seed: int = 0) -> ResNeXt50:
    """Return a network of random numbers, BatchNorm's included, whose activations stay of order 1."""
    torch.manual_seed(seed)
    network = ResNeXt50().eval()
    for name, each in network.named_modules():
        if isinstance(each, nn.Conv2d):
            nn.init.kaiming_normal_(each.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(each, nn.BatchNorm2d):
            gain = 0.25 if name.endswith("bn3") else 1.0  # 16 branches add up
            nn.init.uniform_(each.weight, 0.5 * gain, 1.5 * gain)
            nn.init.normal_(each.bias, 0, 0.2)
            nn.init.normal_(each.running_mean, 0, 0.3)
            nn.init.uniform_(each.running_var, 0.5, 2)
            each.num_batches_tracked.fill_(7)
    return network


def main(folder: Path) -> None:
    """Write ``state.pth``, the same as ``state.npz``, and images with features and logits as ``expected.npz``."""
    network, found = drawn(), {}
    for size in SIZES:
        coarse = F.interpolate(torch.randn(IMAGES, 3, 9, 9), size, mode="bilinear")  # pure noise makes all alike
        images = 2 * coarse + 0.3 * torch.randn(IMAGES, 3, size, size)
        found[f"images-{size}"] = images
        for padding in PADDINGS:
            with torch.inference_mode():
                features = network.features(images, padding)
                found |= {f"features-{padding}-{size}": features, f"logits-{padding}-{size}": network.fc(features)}
    torch.save(network.state_dict(), folder / "state.pth")
    np.savez(folder / "state.npz", **{name: tensor.numpy() for name, tensor in network.state_dict().items()})
    np.savez(folder / "expected.npz", **{name: tensor.numpy() for name, tensor in found.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
