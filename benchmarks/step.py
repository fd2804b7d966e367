"""Compare one full training step of ResNeXt-50: bare MindSpore, this project, and MindCV as installed.

    python benchmarks/step.py [--batch 16] [--size 224] [--rounds 3] [--steps 2] [--without mindcv]

Each side is a process of its own that builds, compiles and warms up, then waits; the sides then step in turn, so that
a machine whose speed drifts treats all alike. Printed are images/s and ratios: median (minimum to maximum) of rounds.
MindCV comes with `pip install mindspore-finetune[bench]` and runs as its documentation says, with nothing set.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.components import Backbone

CLASSES = 102


def bare(batch: int, size: int) -> Callable[[], float]:
    """Return a step of MindSpore's own TrainOneStepCell over our network, with the same oneDNN cap."""
    from finetune.machine import device

    device.set_up(device="cpu")
    import numpy as np
    from mindspore import Tensor, nn

    network = our_network()
    network.set_train(True)
    images, labels = arrays(batch, size)

    class Plain(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(auto_prefix=False)
            self.network = network
            self.loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
            self.ones = Tensor(np.ones((1, 1), np.float32))

        def construct(self, x: Tensor, y: Tensor) -> Tensor:
            return self.loss(self.network(x, self.ones), y)

    optimizer = nn.Momentum(network.trainable_params(), learning_rate=0.01, momentum=0.9, weight_decay=1e-4)
    cell = nn.TrainOneStepCell(Plain(), optimizer)
    cell.set_train(True)
    return lambda: float(cell(Tensor(images), Tensor(labels.astype(np.int32))).asnumpy())


def ours(batch: int, size: int) -> Callable[[], float]:
    """Return a step as `finetune run` makes it, from a loader's batch to the loss on the host."""
    from finetune.machine import device
    from finetune.machine.forms import Forms
    from finetune.machine.kind import Settings

    device.set_up(device="cpu", said=Settings(forms=Forms(uncapped=True)))
    import numpy as np

    from finetune.data.loader import Batch
    from finetune.network.network import build_matmul_form
    from finetune.recipe.models import Recipe
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer

    network = our_network()
    recipe = Recipe.model_validate_json(
        json.dumps(
            {
                "dataset": {"use": "folder"},
                "optimizer": {"use": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
                "train": {"batch_size": batch, "epochs": 1000},
            }
        )
    )
    trainer = Trainer(recipe, network, features=2048, images=batch * 1000, amp="off")
    phase = Phase(number=1, first=1, last=1000, trainable=network.names)
    trainer.enter(phase, 0, build_matmul_form(our_backbone(), network, Forms(uncapped=True)))
    images, labels = arrays(batch, size)
    every, weights = np.arange(batch), np.ones(batch, np.float32)
    soft = np.eye(CLASSES, dtype=np.float32)[labels]
    one = Batch(images=images, labels=labels, weights=weights, indices=every, targets=soft)
    return lambda: trainer.step([one], 1, 0)


def our_backbone() -> Backbone:
    """Return the component."""
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.components import Backbone

    return Catalogue(plugins.load_plugins()).get(Backbone, "resnext50")


def our_network() -> Any:
    """Return our ResNeXt-50 with a head of 102 classes."""
    import mindspore as ms

    from finetune.network import heads
    from finetune.network.network import Network, build_stages
    from finetune.recipe.models import LinearHead

    backbone = our_backbone()
    ms.set_seed(0)
    return Network(build_stages(backbone, backbone.options()), heads.build_head(LinearHead(), 2048, CLASSES, 0))


def mindcv(batch: int, size: int) -> Callable[[], float]:
    """Return a step of MindCV's ResNeXt-50 as its training script builds it, nothing set."""
    import mindspore as ms
    from mindcv.loss import create_loss
    from mindcv.models import create_model
    from mindcv.optim import create_optimizer

    ms.set_context(mode=ms.GRAPH_MODE)
    network = create_model("resnext50_32x4d", num_classes=CLASSES, pretrained=False)
    optimizer = create_optimizer(network.trainable_params(), opt="momentum", lr=0.01, momentum=0.9, weight_decay=1e-4)
    model = ms.Model(network, loss_fn=create_loss("CE"), optimizer=optimizer, amp_level="O0")
    cell = model._train_network
    cell.set_train(True)
    images, labels = arrays(batch, size)
    return lambda: float(cell(ms.Tensor(images), ms.Tensor(labels.astype("int32"))).asnumpy())


def arrays(batch: int, size: int) -> tuple[object, object]:
    """Return random images and labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, 3, size, size), np.float32), rng.integers(0, CLASSES, batch)


SIDES: dict[str, Callable[[int, int], Callable[[], float]]] = {"bare": bare, "ours": ours, "mindcv": mindcv}


def serve(side: str, batch: int, size: int) -> None:
    """Build a side, warm it up, then make as many steps as each line of standard input says."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    step = SIDES[side](batch, size)
    step()
    step()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - started, file=out, flush=True)


class Side:
    """A side in a process of its own."""

    def __init__(self, name: str, batch: int, size: int) -> None:
        command = [sys.executable, __file__, "--serve", name, "--batch", str(batch), "--size", str(size)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{name} did not start; run: {' '.join(command)}")

    def seconds(self, steps: int) -> float:
        """Return how long some steps take."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(steps, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main() -> None:
    """Run the sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps of each side in a round (MindCV: one)")
    parser.add_argument("--without", action="append", default=[], choices=["mindcv"])
    parser.add_argument("--serve", choices=sorted(SIDES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.batch, given.size)
        return
    sides = {name: Side(name, given.batch, given.size) for name in SIDES if name not in given.without}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            steps = 1 if name == "mindcv" else given.steps
            rates[name].append(steps * given.batch / side.seconds(steps))
    print(f"ResNeXt-50, {given.size} px, batch {given.batch}, {os.cpu_count()} cores, {given.rounds} rounds")
    for name, each in rates.items():
        print(f"{name:8} {spread(each)} images/s")
    for rival in rates:
        if rival != "ours":
            print(f"ours / {rival:8} {spread([a / b for a, b in zip(rates['ours'], rates[rival], strict=True)])}")


def spread(values: list[float]) -> str:
    """Return median, minimum and maximum."""
    return f"{statistics.median(values):8.3f}  ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
