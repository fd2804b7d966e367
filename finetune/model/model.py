"""Fine-tuned model: predict, evaluate, embed, export."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetune.data import heldback, sources
from finetune.data.loader import Loader
from finetune.data.loading import Part
from finetune.data.splitfile import list_image_names
from finetune.errors import UsageError
from finetune.machine.environment import count_usable_cores
from finetune.model import exporting
from finetune.model.decisions import Decisions, make_decisions, read_reference
from finetune.model.evaluation import Predictor, find_scores, read_scores
from finetune.model.inputs import Prediction
from finetune.model.scoring import describe_scores, list_errors
from finetune.recipe.models import InferenceSection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.catalogue import Catalogue
    from finetune.components import Color, ImageSpec, Pixels
    from finetune.confidence.reference import Reference
    from finetune.data.imagefile import BadImage
    from finetune.network.network import Network, Stages

Images = Sequence["str | Path | Pixels"]
SINGLE = (str, bytes, Path, np.ndarray)


@dataclass(kw_only=True)
class Model:
    """A network with its classes and preprocessing, as saved in a model folder."""

    network: Network = field(repr=False)
    about: dict[str, Any] = field(repr=False)
    image: ImageSpec
    catalogue: Catalogue = field(repr=False)
    folder: Path | None = None
    inference: InferenceSection = field(default_factory=InferenceSection)
    matmul_form: Stages | None = field(default=None, repr=False)
    device: str = "cpu"
    say: Callable[[str], None] = field(default=print, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the logits."""
        return tuple(self.about["classes"])

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor of the network; it keeps compiled graphs between calls."""
        return Predictor(
            self.network,
            self.inference,
            matmul_form=self.matmul_form,
            device=self.device,
            say=self.say,
            temperature=self.temperature,
        )

    @property
    def temperature(self) -> float:
        """The divisor of the logits that calibrates the probabilities; 1 if it is unknown."""
        return float(self.about.get("calibration", {}).get("temperature", 1.0))

    @property
    def is_calibrated(self) -> bool:
        """Whether the probabilities were calibrated on images that the model was not trained on."""
        return bool(self.about.get("calibration", {}).get("method", "none") != "none")

    @cached_property
    def reference(self) -> Reference:
        """Scores of images that the model was not trained on; raises ``UsageError`` if the model has none."""
        return read_reference(self.folder)

    def predict(
        self,
        images: Images,
        *,
        top: int = 5,
        batch_size: int = 32,
        workers: int | None = None,
        refused: dict[int, BadImage] | None = None,
        unknown: float | None = None,
        coverage: float | None = None,
    ) -> list[Prediction]:
        """Predict the class of each image (paths or HWC uint8 RGB); return the predictions in order.

        ``unknown`` marks images of no known class, with this share of false alarms. ``coverage`` adds the smallest set
        of labels that has the true one with this probability.

        Raises ``DataError`` for an image that cannot be used, unless ``refused`` is given to collect such images by
        index.
        """
        if top < 1:
            raise UsageError(f"top={top} must be at least 1")
        images = convert_to_list(images)
        part = wrap_images(images, self.image.color)
        decisions = Decisions()
        if unknown is not None or coverage is not None:
            decisions = make_decisions(self.reference, unknown, coverage)
        if not len(part):
            return []
        found: list[Prediction | None] = [None] * len(part)
        with closing(self.make_loader(part, batch_size, workers, refused)) as loader:
            for indices, rows, features in self._compute(loader, features=unknown is not None):
                more = decisions.decide(rows, features, self.classes)
                for index, row, fields in zip(indices.tolist(), rows, more, strict=True):
                    found[index] = self._make_prediction(find_path(images, part, index), row, top, fields)
        return [each for index, each in enumerate(found) if each is not None and index not in (refused or ())]

    def _compute(
        self, loader: Loader, *, features: bool
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]]:
        """Yield indices, probabilities and, if they are needed, features of each batch."""
        if features:
            yield from self.predictor.predict_with_features(loader)
        else:
            yield from ((indices, rows, None) for indices, rows in self.predictor.predict_probabilities(loader))

    def _make_prediction(
        self, path: str | Path, row: NDArray[np.float32], top: int, more: dict[str, Any]
    ) -> Prediction:
        best = np.argsort(-row, kind="stable")[:top]
        pairs = tuple((self.classes[i], float(row[i])) for i in best)
        return Prediction(path=path, label=pairs[0][0], probability=pairs[0][1], top=pairs, **more)

    def evaluate(self, data: object = None, *, batch_size: int = 32, workers: int | None = None) -> dict[str, Any]:
        """Return the metrics on labelled data (folder, CSV file, recipe file, or ``(images, labels)``).

        They come with 95 % intervals, metrics of each class, confusion matrix, calibration and the list of errors.

        Without ``data``, or with the data of the model's run, the images that the run held back are evaluated. If it
        held none back, the run's out-of-fold estimate is returned. ``trained_on`` counts the images that the run was
        trained on, and is None if that is unknown. Raises ``DataError`` for a class that the model does not know.
        """
        if data is None and (path := find_scores(self.folder)) is not None:
            return self._estimate(path)
        selection = self.select(data)
        if selection.is_own and (path := find_scores(self.folder)) is not None:
            return self._estimate(path)
        part, scored = selection.part, self.score(selection.part, batch_size=batch_size, workers=workers)
        for warning in heldback.collect_warnings(selection):
            self.say(f"warning: {warning}")
        return {
            **selection.describe(),
            **describe_scores(scored, part.labels, self.classes),
            "temperature": self.temperature,
            "errors": list_errors(list_image_names(part), scored, part.labels, self.classes),
        }

    def select(self, data: object = None) -> heldback.Selection:
        """Select the labelled images of data to evaluate, as ``evaluate`` does."""
        return heldback.select_images(data, self.about, self.catalogue, self.folder, count_usable_cores())

    def score(self, part: Part, *, batch_size: int = 32, workers: int | None = None) -> NDArray[np.void]:
        """Return the ``SCORE`` of each image of a part with labels."""
        with closing(self.make_loader(part, batch_size, workers)) as loader:
            return self.predictor.evaluate(loader, len(self.classes)).scored

    def _estimate(self, path: Path) -> dict[str, Any]:
        """Return the run's out-of-fold estimate, in the form of ``evaluate``."""
        scored, labels, names = read_scores(path, self.classes)
        return {
            "part": "out of fold",
            "images": len(scored),
            "held_back": True,
            "trained_on": 0,  # by the head of each image's fold
            **describe_scores(scored, labels, self.classes, out_of_fold=True),
            "temperature": self.temperature,
            "errors": list_errors(names, scored, labels, self.classes),
        }

    def embed(
        self, images: Images | NDArray[np.float32], *, batch_size: int = 32, workers: int | None = None
    ) -> NDArray[np.float32]:
        """Return pooled features (N, width) float32 of paths, HWC uint8 RGB, or preprocessed (N, 3, H, W) float32."""
        if isinstance(images, np.ndarray) and images.dtype.kind == "f":
            batches = split_batches(images, batch_size)
            return self._stack_features(
                [self.predictor.compute_batch_features(batch)[:real] for batch, real in batches]
            )
        part = wrap_images(images, self.image.color)
        if not len(part):
            return self._stack_features([])
        with closing(self.make_loader(part, batch_size, workers)) as loader:
            return self.predictor.compute_features(loader)

    def _stack_features(self, rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([np.zeros((0, int(self.about["features"])), np.float32), *rows])

    def export(self, path: Path, format: Literal["onnx", "mindir"] = "onnx", *, force: bool = False) -> dict[str, Any]:
        """Write the network in a format for other runtimes, with labels and preprocessing; return a report."""
        return exporting.export_model(self, path, format, force=force)

    def make_loader(
        self, part: Part, batch_size: int, workers: int | None, refused: dict[int, BadImage] | None = None
    ) -> Loader:
        """Return the loader of a part, prepared as the network wants it."""
        threads = count_usable_cores() if workers is None else workers
        size = choose_batch_size(len(part), batch_size)
        return Loader(part, self.image, batch_size=size, workers=threads, seed=0, train=False, refused=refused)


def choose_batch_size(images: int, most: int) -> int:
    """Return a batch size of at most ``most``: a power of two, since every new size compiles another graph."""
    return min(most, 1 << max(0, images - 1).bit_length())


def convert_to_list(images: Images) -> Images:
    """Convert images to a list; a value that is not a list of images is returned unchanged, to be refused later."""
    return list(images) if isinstance(images, Iterable) and not isinstance(images, SINGLE) else images


def find_path(images: Images, part: Part, index: int) -> str | Path:
    """Return an image's path exactly as it was given, or the name of an image without a path."""
    given = images[index]
    return given if isinstance(given, str | Path) else part.name_of(index)


def wrap_images(images: Images | NDArray[Any], color: Color = "convert") -> Part:
    """Wrap images into a part with dummy labels."""
    listed = sources.list_images(images, color)
    return Part(name="images", images=listed, labels=np.zeros(len(listed), np.int64))


def split_batches(images: NDArray[Any], size: int) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield equally sized batches of preprocessed images, and the number of rows of each that are not padding."""
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.float32:
        raise UsageError(
            f"an array of shape {images.shape} and type {images.dtype} cannot be embedded; "
            "pass preprocessed (N, 3, H, W) float32, or a list of paths or HWC uint8 images"
        )
    size = choose_batch_size(len(images), size)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padding = np.zeros((size - len(batch), *images.shape[1:]), np.float32)
        yield np.concatenate([batch, padding]), len(batch)
