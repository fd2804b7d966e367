"""Network checks for backbones: computes in both modes of MindSpore, trains for a step, and exports."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from finetune.data.loader import Batch
from finetune.machine import device
from finetune.network import heads
from finetune.network.network import HEAD, Network, Trunk, build_stages
from finetune.recipe.models import LinearHead, Recipe
from finetune.testing.contract import StopCheck
from finetune.training.phases import Phase
from finetune.training.trainer import Trainer, hash_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from finetune.components import Backbone
    from finetune.testing.contract import Inspection

    Array = NDArray[np.float32]

IMAGES, CLASSES = 4, 2
TOLERANCE = 1e-3  # relative to the largest feature: other engines add in a different order


@contextmanager
def prepare_mindspore() -> Iterator[None]:
    """Set up MindSpore on the CPU, and restore its mode afterwards."""
    mode = ms.get_context("mode")
    device.set_up(device="cpu")
    try:
        yield
    finally:
        ms.set_context(mode=mode)


class NetworkCheck:
    """The network of a backbone's stages, with the results of PyNative mode as reference."""

    def __init__(self, inspection: Inspection[Backbone], stages: Mapping[str, nn.Cell], size: int) -> None:
        self.inspection, self.backbone = inspection, inspection.component
        self.stages = stages
        self.images = np.random.default_rng(0).standard_normal((IMAGES, 3, size, size), np.float32)
        self.expected = np.zeros((IMAGES, self.backbone.features), np.float32)

    def parameters(self) -> None:
        """Check that stages share no parameters, and compare names and shapes with the declared ones."""
        owner: dict[int, str] = {}
        for name, cell in self.stages.items():
            for parameter in cell.get_parameters():
                if owner.setdefault(id(parameter), name) != name:
                    text = f"stages '{owner[id(parameter)]}' and '{name}' share {parameter.name}"
                    self.inspection.breaks("parameters", f"{text}; do not share it, or merge the stages")
                    raise StopCheck
        head = heads.build_head(LinearHead(), self.backbone.features, CLASSES, 0)
        self.network = Network(self.stages, head)
        self.network.set_train(False)
        own = {p.name: tuple(p.shape) for p in self.network.get_parameters_of(self.stages)}
        if self.backbone.shapes is not None:
            with self.inspection.rule(
                "shapes", "shapes(options)", "return the names and shapes of the built network", draws=True
            ):
                said = {name: tuple(shape) for name, shape in self.backbone.shapes(self.inspection.options).items()}
                for name in sorted(own.keys() | said.keys()):
                    if own.get(name) != said.get(name):
                        text = (
                            f"shapes returns {said.get(name)} for '{name}', but the built network has {own.get(name)}"
                        )
                        self.inspection.breaks("shapes", f"{text}; make them equal (None means missing)")
        with self.inspection.rule("seed", "another build", "return the same again", draws=True):
            self.same_again()

    def same_again(self) -> None:
        """Build twice with one seed, and compare the weights."""
        found = []
        for _ in range(2):
            ms.set_seed(1)
            cells = build_stages(self.backbone, self.inspection.options)
            found.append(
                {f"{s}: {p.name}": hash_array(p.asnumpy()) for s, c in cells.items() for p in c.get_parameters()}
            )
        if found[0] != found[1]:
            names = [name for name, value in found[0].items() if found[1].get(name) != value]
            what = f"'{names[0]}'" if names else "the names of parameters"
            remedy = "use MindSpore's initialisers, or numpy with mindspore.get_seed()"
            self.inspection.breaks("seed", f"built twice with one seed, {what} differs; {remedy}")

    def features(self) -> None:
        """Compute features in PyNative mode, and check them."""
        ms.set_context(mode=ms.PYNATIVE_MODE)
        what = f"the stages, given {describe_array(self.images)},"
        with self.inspection.rule(
            "features", what, "each stage must accept the output of the previous one", vital=True, draws=True
        ):
            before = hash_parameters(self.network)
            found = self.network.compute_features(Tensor(self.images)).asnumpy()
            if found.shape != (IMAGES, self.backbone.features) or found.dtype != np.float32:
                text = f"the mean over positions is {describe_array(found)}, but features is {self.backbone.features}"
                self.inspection.breaks("features", f"{text}; make the last stage return (N, features, H, W) float32")
            elif not np.isfinite(found).all():
                self.inspection.breaks("features", "features are not finite numbers; check initialisers and divisions")
            elif np.allclose(found[0], found[1]):
                self.inspection.breaks("features", "two images have the same features; compute them from the input")
            self.expected = found
            self.unmoved(before, "in evaluation mode")
        with self.inspection.rule("batch", "one image alone", "take any number of images", draws=True):
            alone = self.network.compute_features(Tensor(self.images[:1])).asnumpy()
            if not self.agrees(alone, self.expected[:1]):
                text = "the features of an image depend on the batch"
                remedy = "in evaluation use stored statistics, as nn.BatchNorm2d does, not those of the batch"
                self.inspection.breaks("batch", f"{text}; {remedy}")

    def unmoved(self, before: Mapping[str, str], when: str, names: frozenset[str] | None = None) -> None:
        """Check that parameters are unchanged."""
        for name, value in hash_parameters(self.network).items():
            if (names is None or name.partition(".")[0] in names) and before[name] != value:
                remedy = "do not change parameters in construct, nor any state if `self.training` is False"
                self.inspection.breaks("freeze", f"'{name}' changes {when}; {remedy}")

    def agrees(self, found: Array, expected: Array) -> bool:
        """Return whether features agree within the tolerance."""
        scale = max(float(np.abs(expected).max()), 1e-6)
        return found.shape == expected.shape and float(np.abs(found - expected).max()) <= TOLERANCE * scale

    def training(self) -> None:
        """Train the last stage for a step with all others frozen, then all stages."""
        names = (*self.stages, HEAD)
        optimizer = {"use": "sgd", "lr": 0.1, "weight_decay": 0.0}
        said = {"dataset": {"use": "-"}, "optimizer": optimizer, "train": {"epochs": 2, "batch_size": IMAGES}}
        recipe = Recipe.model_validate(said)
        trainer = Trainer(recipe, self.network, features=self.backbone.features, images=IMAGES, amp="off")
        remedy = "use operators that have a gradient"
        with self.inspection.rule("gradient", "a step of training", remedy, vital=True, draws=True):
            before = hash_parameters(self.network)
            self.step(trainer, 1, names[-2:])
            self.unmoved(before, f"while only '{names[-2]}' and the head train", frozenset(names[:-2]))
            before = hash_parameters(self.network)
            self.step(trainer, 2, names)
            after = hash_parameters(self.network)
        for stage in self.stages:
            own = [name for name, learns in trainer.learnt.items() if learns and name.partition(".")[0] == stage]
            if own and all(before[name] == after[name] for name in own):
                text = f"stage '{stage}' does not train: a step changes none of its {len(own)} parameters"
                self.inspection.breaks("gradient", f"{text}; look for stop_gradient, rounding, or unused parameters")

    def step(self, trainer: Trainer, epoch: int, trainable: tuple[str, ...]) -> None:
        """Train some stages for a step with the engine's trainer."""
        trainer.enter(Phase(number=epoch, first=epoch, last=epoch, trainable=trainable))
        classes = np.arange(IMAGES) % CLASSES
        batch = Batch(
            images=self.images,
            labels=classes.astype(np.int64),
            weights=np.ones(IMAGES, np.float32),
            indices=np.arange(IMAGES, dtype=np.int64),
            targets=np.eye(CLASSES, dtype=np.float32)[classes],
        )
        trainer.step([batch], epoch, 0)
        self.network.set_train(False)

    def compiled(self) -> None:
        """Compile in graph mode, export to ONNX and compute in matmul form, and compare the features."""
        self.expected = self.network.compute_features(Tensor(self.images)).asnumpy()  # training has changed the weights
        ms.set_context(mode=ms.GRAPH_MODE)
        trunk = Trunk(self.network, len(self.stages)).set_train(False)
        if self.inspection.wants("graph"):
            remedy = "use only what MindSpore compiles: no try, x += y or numpy in construct"
            with self.inspection.rule("graph", "compiling", remedy, draws=True):
                self.compare("graph", "compiled", trunk(Tensor(self.images)).asnumpy())
        if self.inspection.wants("onnx") and self.inspection.wants("graph"):
            remedy = "use operators that mindspore.export supports, and x = x + y instead of x += y"
            with self.inspection.rule("onnx", "the export", remedy, draws=True):
                for found in export_features(trunk, self.images):
                    self.compare("onnx", "exported", found)
        if self.backbone.matmul_form is not None and self.inspection.wants("matmul_form"):
            with self.inspection.rule(
                "matmul_form", "matmul_form(stages)", "return the same stages, over (C, H, W, N)", draws=True
            ):
                self.matmul_form(self.backbone.matmul_form)

    def matmul_form(self, make: Any) -> None:
        """Check the parameters and features of the matmul form."""
        given = {name: self.network.get_stage(name) for name in self.stages}
        made = make(given)
        own = {id(p) for cell in given.values() for p in cell.get_parameters()}
        if tuple(made) != tuple(given) or own != {id(p) for cell in made.values() for p in cell.get_parameters()}:
            text = "matmul_form(stages) returns different stages or parameters; use the given ones"
            self.inspection.breaks("matmul_form", text)
            return
        if unknown := {*self.backbone.matmul_form_avx2} - {*self.stages}:
            text = f"matmul_form_avx2 names {', '.join(sorted(unknown))}, which are not stages; use names of stages"
            self.inspection.breaks("matmul_form", text)
            return
        self.compare("matmul_form", "as matrix products", self.features_of(made))
        some = {name: made[name] for name in self.stages if name in self.backbone.matmul_form_avx2}
        if some and len(some) < len(made):
            self.compare("matmul_form", f"with {', '.join(some)} as matrix products", self.features_of(some))

    def features_of(self, form: Any) -> Array:
        """Return the features with some stages in matmul form."""
        cell = Trunk(self.network, len(self.stages), form).set_train(False)
        found: Array = cell(Tensor(self.images)).asnumpy()
        return found

    def compare(self, rule: str, how: str, found: Array) -> None:
        """Record a broken rule if features differ from PyNative mode."""
        if not self.agrees(found, self.expected):
            far = np.abs(found - self.expected).max() if found.shape == self.expected.shape else "their shape"
            text = f"{how}, features differ from PyNative mode by {far}"
            self.inspection.breaks(rule, f"{text}; keep branches on values and Python objects out of construct")


def export_features(trunk: nn.Cell, images: Array) -> Iterator[Array]:
    """Yield the features that OpenVINO computes from the ONNX export; without OpenVINO, only export."""
    if find_spec("openvino") is not None:
        from finetune.network.openvino_graph import Graph

        yield from Graph(trunk, images, "fp32").outputs([images])
        return
    import tempfile
    from pathlib import Path

    from finetune.network.openvino_graph import ExportedCell

    with tempfile.TemporaryDirectory() as scratch:
        ms.export(ExportedCell(trunk), Tensor(images), file_name=str(Path(scratch) / "net.onnx"), file_format="ONNX")


def hash_parameters(network: Network) -> dict[str, str]:
    """Return the hash of each parameter by name."""
    return {p.name: hash_array(p.asnumpy()) for p in network.get_parameters()}


def describe_array(array: Array) -> str:
    """Describe the type and shape of an array."""
    return f"{array.dtype} of shape {'x'.join(map(str, array.shape))}"
