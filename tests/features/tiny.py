"""A network of three small stages and an augmentation, as a plugin, and whole runs with them in this process."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import Augmentation, Backbone, Options, hookimpl, plugins
from finetune.catalogue import Catalogue
from finetune.plugins import Origin
from finetune.recipe import plan as plans
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.components import ImageSpec, Pixels
    from finetune.run import Run

STAGES = ("stem", "body", "neck")
NAMES = (*STAGES, "head")
WIDTHS = (4, 8, 12)
SIZE = 16  # pixels


class TinyOptions(Options):
    """How large the numbers are that the network computes."""

    scale: float = 1.0


def stages(options: TinyOptions) -> dict[str, Any]:
    """Return the stages, each a convolution of stride 2, BatchNorm and ReLU."""
    import mindspore as ms
    from mindspore import Tensor, nn

    rng = np.random.default_rng(ms.get_seed())
    found, inputs = {}, 3
    for name, outputs in zip(STAGES, WIDTHS, strict=True):
        weight = rng.standard_normal((outputs, inputs, 3, 3), np.float32) * np.float32(options.scale / 3)
        cells = [
            nn.Conv2d(inputs, outputs, 3, 2, pad_mode="pad", padding=1, weight_init=Tensor(weight)),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        found[name], inputs = nn.SequentialCell(cells), outputs
    return found


class JitterOptions(Options):
    """How much brighter or darker."""

    most: int = 30


@dataclass
class Jitter:
    """Mirrors by chance and changes the brightness."""

    most: int

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        mirrored = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        brighter = mirrored.astype(np.int64) + rng.integers(-self.most, self.most + 1)
        return np.clip(brighter, 0, 255).astype(np.uint8)


def jitter(options: JitterOptions, image: ImageSpec) -> Jitter:
    """Return the augmentation."""
    return Jitter(options.most)


class Tiny:
    """The plugin."""

    @hookimpl
    def finetune_backbones(self) -> Iterator[Backbone]:
        yield Backbone(name="tiny", options=TinyOptions, build=stages, stages=STAGES, features=WIDTHS[-1])

    @hookimpl
    def finetune_augmentations(self) -> Iterator[Augmentation]:
        yield Augmentation(name="jitter", options=JitterOptions, build=jitter)


def catalogue() -> Catalogue:
    """Return what is installed, and the plugin."""
    loaded = plugins.load_plugins()
    loaded.register(Tiny(), Origin(name="tiny", distribution="tests", version="-"))
    return Catalogue(loaded)


def network(seed: int = 1, classes: int = 3, *, scale: float = 1.0) -> Any:
    """Return the network, its BatchNorm statistics and parameters none of which is 0 or 1."""
    import mindspore as ms

    from finetune.network import heads
    from finetune.network.network import Network
    from finetune.recipe.models import LinearHead

    ms.set_seed(seed)
    made = Network(stages(TinyOptions(scale=scale)), heads.build_head(LinearHead(), WIDTHS[-1], classes, seed))
    stir(made, seed)
    return made


def stir(cell: Any, seed: int) -> None:
    """Give every parameter of BatchNorm other values."""
    from mindspore import Tensor

    rng = np.random.default_rng(seed)
    for parameter in cell.get_parameters():
        if parameter.name.endswith(("gamma", "beta", "moving_mean", "moving_variance")):
            parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))


def images(count: int, seed: int = 0, size: int = SIZE) -> NDArray[np.float32]:
    """Return ready images (count, 3, size, size)."""
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), np.float32)


def recipe(photos: Path | str, output: Path | str, **sections: Any) -> dict[str, Any]:
    """Return a recipe of a few seconds; dictionaries are joined with its own sections."""
    said: dict[str, Any] = {
        "name": "small",
        "output": str(output),
        "backbone": {"use": "tiny", "weights": "none"},
        "dataset": {"use": "folder", "root": str(photos)},
        "image": {"size": SIZE, "resize": SIZE + 4},
        "augment": [{"use": "jitter"}],
        "freeze": {"use": "head"},
        "optimizer": {"use": "adamw", "lr": 3e-3},
        "train": {"epochs": 2, "batch_size": 8},
        "cache": {"views": 2},
        "callbacks": [],
    }
    for name, section in sections.items():
        joined = isinstance(section, dict) and name in ("train", "cache", "optimizer", "backbone", "image")
        said[name] = {**said.get(name, {}), **section} if joined else section
    return said


@dataclass
class Made:
    """A finished run and what it said."""

    run: Run
    said: list[str] = field(default_factory=list)

    @property
    def weights(self) -> str:
        """Return a hash of the final weights."""
        return weights(self.run.folder)

    @property
    def features(self) -> dict[str, float]:
        """Return what was computed and reused."""
        assert self.run.result is not None
        found: dict[str, float] = self.run.result["features"]
        return found

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl`` without times."""
        return [{k: v for k, v in line.items() if k not in TIMES} for line in self.run.history]

    def told(self, text: str) -> list[str]:
        """Return the messages with a text."""
        return [message for message in self.said if text in message]


TIMES = ("seconds", "images_per_second")


def weights(folder: Path) -> str:
    """Return a hash of a run's final weights."""
    tensors = tensorfile.read_tensors(folder / "model" / "weights.safetensors").tensors
    return hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()


def run(said: dict[str, Any], *overrides: str, say: Callable[[str], None] | None = None, **more: Any) -> Made:
    """Run a recipe in this process."""
    from finetune.training import engine

    heard: list[str] = []

    def both(message: str) -> None:
        heard.append(message)
        if say:
            say(message)

    chosen = catalogue()
    return Made(engine.fine_tune(plans.load_plan(said, overrides, chosen), chosen, say=both, **more), heard)


class At:
    """Does something at the end of a step or of an epoch."""

    def __init__(self, act: Callable[[], Any], *, step: int = 0, epoch: int = 0) -> None:
        self.act, self.step, self.epoch = act, step, epoch

    @hookimpl
    def finetune_step_end(self, run: Run, step: int, loss: float) -> None:
        if step == self.step:
            self.act()

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        if epoch == self.epoch:
            self.act()


def terminate() -> None:
    """Ask this process to save and stop."""
    os.kill(os.getpid(), signal.SIGTERM)


def shards(home: Path) -> list[Path]:
    """Return the files of features in a cache."""
    return sorted((home / "features").glob("*/*.f16"))


def about(home: Path) -> list[Path]:
    """Return the descriptions of the entries in a cache."""
    return sorted((home / "features").glob("*/entry.json"))


def prepared(said: dict[str, Any], *overrides: str) -> Any:
    """Return what a recipe needs before its first step."""
    from finetune.training.prepare import prepare

    chosen = catalogue()
    return prepare(plans.load_plan(said, overrides, chosen), chosen, say=lambda message: None)


def phase_data(
    ready: Any, first: int = 3, *, last: bool = True, say: Callable[[str], None] = lambda message: None
) -> Any:
    """Return what feeds a phase whose ``first`` stages are frozen."""
    from finetune.training.phase_data import PhaseData

    made = PhaseData(ready, None, say)
    made.enter(first, epochs=range(1, ready.plan.recipe.train.epochs + 1), last=last)
    return made
