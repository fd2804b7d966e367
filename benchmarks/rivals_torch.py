"""ResNeXt-50 in PyTorch, trained as PyTorch's transfer-learning tutorial does; `benchmarks/jobs.py` starts it.

    python benchmarks/rivals_torch.py train PHOTOS --weights FILE --trains fc --epochs 2 --save FILE [--bf16]
    python benchmarks/rivals_torch.py predict PHOTOS --state FILE --csv FILE [--bf16]

``--channels-last`` stands for float32 with channels last, in place of ``--bf16``.

The wheels of torchvision on PyPI cannot be imported beside the CPU build of torch, so its network and its transforms on
PIL images are written out here, step for step. Printed at last is a line of JSON with the seconds of each epoch.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import step
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
DEPTHS, GROUPS, WIDTH = (3, 4, 6, 3), 32, 4
WORKERS = 2
TRAINED = {"layer3": ("layer3.", "layer4.")}


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 with the stride, 1x1 of twice the width."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != 2 * width:
            norm = nn.BatchNorm2d(2 * width)
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 2 * width, 1, stride, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNeXt50(nn.Module):
    """ResNeXt-50 (32x4d) with the names of torchvision."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)
        inputs = 64
        for number, depth in enumerate(DEPTHS):
            width, blocks = GROUPS * WIDTH * 2**number, []
            for position in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if number and not position else 1))
                inputs = 2 * width
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def for_training(image: Image.Image, size: int) -> Tensor:
    """Crop at random as RandomResizedCrop does (0.35 to 1 of the area), flip every other, normalise."""
    width, height = image.size
    box = (0, 0, width, height)
    for _ in range(10):
        area = width * height * random.uniform(0.35, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            box = (left, top, left + w, top + h)
            break
    image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalised(image)


def for_evaluation(image: Image.Image, size: int) -> Tensor:
    """Scale the shorter side to 256 for 224 pixels, crop the centre, normalise."""
    scale = round(size * 256 / 224) / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return normalised(image.crop((left, top, left + size, top + size)))


def normalised(image: Image.Image) -> Tensor:
    """Return what ToTensor and Normalize make of an image."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div(255).sub_(MEAN).div_(STD)


class Photos(Dataset[tuple[Tensor, int]]):
    """Photos in a folder for each class, as ImageFolder reads them."""

    def __init__(self, folder: Path, size: int, transform: Callable[[Image.Image, int], Tensor]) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        self.paths = [(p, n) for n, kind in enumerate(self.classes) for p in sorted((folder / kind).iterdir())]
        self.size, self.transform = size, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.paths[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB"), self.size), label


class Machine:
    """A network in float32 as it comes, with channels last, or with autocast to bfloat16 as well."""

    def __init__(self, network: nn.Module, *, bf16: bool, channels_last: bool = False) -> None:
        self.bf16 = bf16
        self.format = torch.channels_last if bf16 or channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.format)

    def logits(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.network(images.to(memory_format=self.format))

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.network.parameters() if p.requires_grad], lr=0.01, momentum=0.9)


def pretrained(weights: Path, classes: int, trains: str) -> ResNeXt50:
    """Load the weights, freeze all but what trains, and begin the head anew."""
    network = ResNeXt50(1000)
    network.load_state_dict(load_file(weights))
    for name, parameter in network.named_parameters():
        parameter.requires_grad = trains == "all" or name.startswith(TRAINED.get(trains, (f"{trains}.",)))
    network.fc = nn.Linear(network.fc.in_features, classes)
    return network


def train(given: argparse.Namespace) -> dict[str, object]:
    """Train and validate every epoch, and save the best weights."""
    parts = {"train": for_training, "valid": for_evaluation}
    photos = {name: Photos(given.photos / name, given.size, transform) for name, transform in parts.items()}
    loaders = {n: DataLoader(p, given.batch, shuffle=n == "train", num_workers=WORKERS) for n, p in photos.items()}
    classes = photos["train"].classes
    network = pretrained(given.weights, len(classes), given.trains)
    machine = Machine(network, bf16=given.bf16, channels_last=given.channels_last)
    optimizer, best, state, seconds = machine.optimizer(), -1.0, {}, []
    for _ in range(given.epochs):
        began = time.perf_counter()
        epoch(machine, loaders["train"], optimizer)
        accuracy = epoch(machine, loaders["valid"], None)
        if accuracy > best:
            best, state = accuracy, copy.deepcopy(machine.network.state_dict())
        seconds.append(time.perf_counter() - began)
    torch.save({"classes": classes, "state": state}, given.save)
    return {"seconds": {"epoch": seconds}, "accuracy": best}


def epoch(machine: Machine, loader: DataLoader[tuple[Tensor, int]], optimizer: torch.optim.Optimizer | None) -> float:
    """Go through all photos once, with an optimizer to train; return the accuracy."""
    machine.network.train(optimizer is not None)
    loss_sum, right, count = 0.0, 0, 0
    for images, labels in loader:
        with torch.set_grad_enabled(optimizer is not None):
            logits = machine.logits(images)
            loss = nn.functional.cross_entropy(logits.float(), labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss_sum += loss.item() * len(labels)
        right, count = right + int((logits.argmax(1) == labels).sum()), count + len(labels)
    return right / count


def predict(given: argparse.Namespace) -> dict[str, object]:
    """Label photos and write a table."""
    saved = torch.load(given.state, weights_only=True)
    network = ResNeXt50(len(saved["classes"]))
    network.load_state_dict(saved["state"])
    machine = Machine(network.eval(), bf16=given.bf16, channels_last=given.channels_last)
    photos = Photos(given.photos, given.size, for_evaluation)
    loader = DataLoader(photos, given.batch, num_workers=WORKERS)
    with torch.inference_mode():
        batches = [machine.logits(images).float().softmax(1) for images, _ in loader]
    probabilities, labels = torch.cat(batches).max(1)
    with given.csv.open("w", newline="") as file:
        for (path, _), label, probability in zip(photos.paths, labels, probabilities, strict=True):
            csv.writer(file).writerow([path, saved["classes"][label], f"{probability:.6f}"])
    return {"seconds": {}}


def stepping(*, bf16: bool, channels_last: bool) -> Callable[[int, int], Callable[[], float]]:
    """Return what builds a full training step on random images, for ``step.serve``."""

    def build(batch: int, size: int) -> Callable[[], float]:
        torch.manual_seed(0)
        machine = Machine(ResNeXt50(step.CLASSES).train(), bf16=bf16, channels_last=channels_last)
        optimizer, (images, labels) = machine.optimizer(), map(torch.from_numpy, step.arrays(batch, size))

        def one() -> float:
            loss = nn.functional.cross_entropy(machine.logits(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return one

    return build


def main() -> None:
    """Do one job and say how long its parts took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["train", "predict", "step"])
    parser.add_argument("photos", type=Path, nargs="?")
    for name in ("weights", "save", "state", "csv"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--trains", choices=["fc", "layer4", "layer3", "all"], default="fc")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    given = parser.parse_args()
    if given.job == "step":
        step.SIDES["torch"] = stepping(bf16=given.bf16, channels_last=given.channels_last)
        step.serve("torch", given.batch, given.size)
    else:
        print(json.dumps({"train": train, "predict": predict}[given.job](given)))


if __name__ == "__main__":
    main()
