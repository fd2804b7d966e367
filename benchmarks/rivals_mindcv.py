"""MindCV's ResNeXt-50 with MindCV's own data pipeline, as installed, nothing set; `benchmarks/jobs.py` starts it.

    python benchmarks/rivals_mindcv.py train PHOTOS --weights FILE.ckpt --trains classifier --count 16
    python benchmarks/rivals_mindcv.py predict PHOTOS --weights FILE.ckpt --count 16

It takes a few photos, twice: the first time the graph is compiled, the second gives the speed. Printed at last is a
line of JSON with the seconds of each time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mindspore as ms
from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.loss import create_loss
from mindcv.models import create_model
from mindcv.optim import create_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 2


def loader(given: argparse.Namespace, split: str, *, training: bool) -> ms.dataset.Dataset:
    """Return batches of a few photos of a split."""
    dataset = create_dataset(root=str(given.photos), split=split, shuffle=training, num_samples=given.count)
    chosen = {"scale": (0.35, 1.0)} if training else {}
    transforms = create_transforms(image_resize=given.size, is_training=training, **chosen)
    return create_loader(dataset, min(given.batch, given.count), is_training=training, transform=transforms)


def pretrained(given: argparse.Namespace, classes: int) -> ms.nn.Cell:
    """Load the weights but for the head, and freeze all but what trains."""
    network = create_model("resnext50_32x4d", num_classes=classes)
    found = ms.load_checkpoint(str(given.weights))
    backbone = {name: value for name, value in found.items() if not name.startswith("classifier.")}
    missing, _ = ms.load_param_into_net(network, backbone)
    assert all(name.startswith("classifier.") for name in missing), missing
    trains = ("classifier.",) if given.trains == "classifier" else ("classifier.", f"{given.trains}.")
    for parameter in network.get_parameters():
        if not parameter.name.startswith(trains):
            parameter.requires_grad = False
    return network


def train(given: argparse.Namespace) -> dict[str, list[float]]:
    """Train and validate on a few photos."""
    network = pretrained(given, classes=len(list((given.photos / "train").iterdir())))
    optimizer = create_optimizer(network.trainable_params(), opt="momentum", lr=0.01, momentum=0.9)
    model = ms.Model(network, create_loss("CE"), optimizer, metrics={"accuracy"}, amp_level="O0")
    photos = {split: loader(given, split, training=split == "train") for split in ("train", "valid")}
    return {
        "train": timed(lambda: model.train(1, photos["train"], dataset_sink_mode=False)),
        "valid": timed(lambda: model.eval(photos["valid"], dataset_sink_mode=False)),
    }


def predict(given: argparse.Namespace) -> dict[str, list[float]]:
    """Label a few photos."""
    network = pretrained(given, classes=20).set_train(False)
    photos = loader(given, "", training=False)

    def label() -> None:
        for images, _ in photos.create_tuple_iterator():
            network(images).asnumpy().argmax(1)

    return {"predict": timed(label)}


def timed(work: Callable[[], object]) -> list[float]:
    """Return the seconds of each time."""
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Do one job and say how long its parts took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["train", "predict"])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--trains", choices=["classifier", "layer4"], default="classifier")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    ms.set_context(mode=ms.GRAPH_MODE)
    print(json.dumps({"seconds": {"train": train, "predict": predict}[given.job](given)}))


if __name__ == "__main__":
    main()
