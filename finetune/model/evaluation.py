"""Prediction and evaluation: every stage in evaluation mode, logits by the fastest engine, softmax on the host."""

from __future__ import annotations

import csv
import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from mindspore import Tensor, nn

from finetune.data import splitfile
from finetune.distributed.world import SINGLE_PROCESS
from finetune.errors import UsageError
from finetune.model import metrics
from finetune.network import engines
from finetune.network.network import Network, Tail, Trunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from finetune.data.labelled import Part
    from finetune.data.loader import Batch
    from finetune.distributed.world import World
    from finetune.network.network import Stages
    from finetune.recipe.models import InferenceSection

    Array = NDArray[np.float32]
    from collections.abc import Sequence
    from pathlib import Path

    from finetune.data.loading import Data

    Scored = NDArray[np.void]


class Batches(Protocol):
    """A part of the data in batches of images or features; with several processes, each has its share."""

    @property
    def part(self) -> Part:
        """The part that the batches come from."""
        ...

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches in the part's order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics, ``confusion[true, predicted]``, and the ``SCORE`` of each image in order."""

    metrics: dict[str, float]
    confusion: NDArray[np.int64]
    scored: Scored

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most likely class of each image."""
        found: NDArray[np.int64] = self.scored["predicted"]
        return found

    @property
    def confidence(self) -> Array:
        """The probability of the most likely class of each image."""
        found: Array = self.scored["confidence"]
        return found


class Logits(nn.Cell):
    """The tail of a network without dropout."""

    def __init__(self, network: Network, first: int = 0, matmul_form: Stages | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.tail = Tail(network, first, matmul_form)
        self.ones = Tensor(np.ones((1, 1), np.float32))

    def construct(self, x: Tensor) -> Tensor:
        """Map the input of stage number ``first`` to logits (N, classes)."""
        return self.tail(x, self.ones)


class Predictor:
    """Runs a network in evaluation mode, on images or on the input features of stage ``first``.

    Logits are divided by ``temperature`` before they become probabilities.
    """

    def __init__(
        self,
        network: Network,
        section: InferenceSection,
        *,
        first: int = 0,
        matmul_form: Stages | None = None,
        device: str = "cpu",
        say: Callable[[str], None] = print,
        temperature: float = 1.0,
    ) -> None:
        self.network, self.section, self.first, self.matmul_form = network, section, first, matmul_form
        self.temperature = temperature
        self.device, self.say = device, say
        self._engines: dict[tuple[str, tuple[int, ...]], engines.Engine] = {}

    def refresh(self) -> None:
        """Use the current weights of the network."""
        for engine in self._engines.values():
            engine.backend.refresh()

    def rest(self) -> None:
        """Free as much memory as possible until the next prediction."""
        for engine in self._engines.values():
            engine.backend.rest()

    def predict_probabilities(self, batches: Batches) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Yield indices (n,) and probabilities (n, classes) of each batch, without padding."""
        for batch, logits in self._compute("logits", batches):
            real = batch.weights > 0
            yield batch.indices[real], self.convert_logits(logits)[real]

    def predict_with_features(self, batches: Batches) -> Iterator[tuple[NDArray[np.int64], Array, Array]]:
        """Yield indices (n,), probabilities (n, classes) and pooled features (n, width) of each batch.

        The probabilities have the bits of ``predict_probabilities``, which another graph for both would not have.
        """
        for batch in batches.epoch(1):
            real = batch.weights > 0
            logits = self._get_engine("logits", batch.images)(batch.images)
            yield (
                batch.indices[real],
                self.convert_logits(logits)[real],
                self.compute_batch_features(batch.images)[real],
            )

    def convert_logits(self, logits: Array) -> Array:
        """Return the probabilities of logits (n, classes)."""
        return softmax(logits / np.float32(self.temperature))

    def compute_features(self, batches: Batches) -> Array:
        """Return pooled features (images, width) in the order of the part."""
        return np.concatenate([rows[batch.weights > 0] for batch, rows in self._compute("features", batches)])

    def compute_batch_features(self, images: Array) -> Array:
        """Return pooled features of preprocessed images (N, 3, H, W), float32."""
        return self._get_engine("features", images)(images)

    def evaluate(
        self, batches: Batches, classes: int, check: Callable[[], None] = lambda: None, world: World = SINGLE_PROCESS
    ) -> Evaluation:
        """Evaluate a part, each process its share; ``check`` is called after each batch and may raise."""
        part = batches.part
        found = [np.empty(0, metrics.SCORE)]
        with world.collective():
            for indices, rows in self.predict_probabilities(batches):
                found.append(metrics.score_images(indices, rows, part.labels[indices]))
                check()
        scored = np.concatenate(world.gather_rows(np.concatenate(found)))
        scored = scored[np.argsort(scored["index"])]
        confusion = metrics.count_pairs(scored, part.labels, classes)
        return Evaluation(
            metrics=metrics.compute_metrics(scored, confusion),
            confusion=confusion,
            scored=scored,
        )

    def _compute(self, what: str, batches: Batches) -> Iterator[tuple[Batch, Array]]:
        """Yield each batch and its output; the engine works ahead."""
        pending: deque[Batch] = deque()
        source = batches.epoch(1)

        def images() -> Iterator[Array]:
            for batch in source:
                pending.append(batch)
                yield batch.images

        given = images()
        first = next(given, None)
        if first is None:  # with few batches, a process may have none
            return
        for output in self._get_engine(what, first).run(chain_first(first, given)):
            yield pending.popleft(), output

    def _get_engine(self, what: str, sample: Array) -> engines.Engine:
        key = (what, sample.shape)
        if key not in self._engines:
            self._engines[key] = self._build_engine(what, sample)
        return self._engines[key]

    def _build_engine(self, what: str, sample: Array) -> engines.Engine:
        stages = len(self.network.stages)
        if what == "logits" and self.first == stages:  # exporting the head would take longer than computing it
            return engines.Engine(engines.MindSpore(Logits(self.network, self.first)), len(sample))
        cell, own = self._make_cell(what, None), self.matmul_form and self._make_cell(what, self.matmul_form)
        # For a few small logits the cosine means little.
        least = engines.COSINE if what == "features" else -1.0
        return engines.build_engine(cell, sample, self.section, self.say, own=own, device=self.device, cosine=least)

    def _make_cell(self, what: str, matmul_form: Stages | None) -> nn.Cell:
        if what == "features":
            return Trunk(self.network, len(self.network.stages), matmul_form)
        return Logits(self.network, self.first, matmul_form)


def chain_first(first: Array, rest: Iterator[Array]) -> Iterator[Array]:
    """Yield ``first``, then the rest."""
    yield first
    yield from rest


def softmax(logits: Array) -> Array:
    """Return the softmax of each row; NaN if a logit is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


NAME = "out_of_fold.csv"
HEADER = ["path", "label", "predicted", "probability", "own_probability", "top5", "fold"]


def write_scores(folder: Path, data: Data, scored: Scored, folds: NDArray[np.int64]) -> None:
    """Write ``out_of_fold.csv``: a row with ``SCORE`` and fold for each training image that was scored."""
    names, labels = list(splitfile.list_image_names(data.train)), data.train.labels
    rows = (
        (
            splitfile.escape_surrogates(names[index]),
            data.classes[labels[index]],
            data.classes[predicted],
            f"{confidence:.6g}",
            f"{own:.6g}",
            str(int(top5)),
            str(folds[index]),
        )
        for index, predicted, confidence, own, top5, _ in scored.tolist()
    )
    splitfile.write_table(folder / NAME, HEADER, rows)


def find_scores(model: Path | None) -> Path | None:
    """Return the ``out_of_fold.csv`` of a model folder's run, if the run held no images back and only fitted the head.

    If the run trained further epochs, the file describes a different head than the model's.
    """
    record = None if model is None else splitfile.find_split_record(model)
    if record is None or record.of_split("valid") or record.of_split("test"):
        return None
    path = record.folder / NAME
    try:
        epochs = json.loads((record.folder / "result.json").read_text(encoding="utf-8"))["epochs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if path.exists() and epochs == 0 else None


def read_scores(path: Path, classes: Sequence[str]) -> tuple[Scored, NDArray[np.int64], list[str]]:
    """Read ``SCORE``, label and name of each image; raises ``UsageError`` for a file that is damaged or empty."""
    places = {name: index for index, name in enumerate(classes)}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = list(csv.reader(file, strict=True))
        if lines[:1] != [HEADER]:
            raise ValueError("unexpected header")
        scored = np.empty(len(lines) - 1, metrics.SCORE)
        labels = np.empty(len(scored), np.int64)
        for number, (_, label, guess, confidence, own, top5, _) in enumerate(lines[1:]):
            scored[number] = (number, places[guess], float(confidence), float(own), top5 == "1", -1)
            labels[number] = places[label]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}; pass the data to evaluate on") from error
    if not len(scored):
        raise UsageError(f"{path}: the run had too few images to estimate its accuracy; pass the data to evaluate on")
    return scored, labels, [line[0] for line in lines[1:]]


def read_folds(folder: Path, data: Data) -> tuple[Scored, NDArray[np.int64]] | None:
    """Return the ``SCORE`` of the training images in a run's ``out_of_fold.csv``, with their indices, and all folds.

    The fold of an image that was not scored is -1. None if the file is missing, or describes different images.
    """
    path = folder / NAME
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = list(csv.reader(file, strict=True))[1:]
        scored, _, _ = read_scores(path, data.classes)
        names = [splitfile.escape_surrogates(name) for name in splitfile.list_image_names(data.train)]
        rest = iter(range(len(names)))
        scored["index"] = [next(at for at in rest if names[at] == name) for name, *_ in lines]
        folds = np.full(len(names), -1, np.int64)
        folds[scored["index"]] = [int(line[-1]) for line in lines]
    except (OSError, UsageError, StopIteration, RuntimeError, ValueError, csv.Error):
        return None
    return scored, folds
