"""A fine-tuned model: predict, evaluate, embed, export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetune.data import sources
from finetune.data.loader import Loader
from finetune.data.loading import Part
from finetune.errors import UsageError
from finetune.machine import device
from finetune.model import exporting
from finetune.model.prediction import Prediction
from finetune.training.evaluation import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.catalogue import Catalogue
    from finetune.components import ImageSpec, Pixels
    from finetune.model.network import Network

Images = Sequence["str | Path | Pixels"]


@dataclass(kw_only=True)
class Model:
    """A network with its classes and preprocessing, as a model folder holds them."""

    network: Network
    about: dict[str, Any]
    image: ImageSpec
    catalogue: Catalogue
    folder: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in the order of the logits."""
        return tuple(self.about["classes"])

    def predict(
        self, images: Images, *, top: int = 5, batch_size: int = 32, workers: int | None = None
    ) -> list[Prediction]:
        """Return a prediction for each image (paths or HWC uint8 RGB), in their order."""
        if not len(images):
            return []
        found: list[Prediction | None] = [None] * len(images)
        loader = self._loader(self._unlabelled(images), batch_size, workers)
        for indices, rows in Predictor(self.network).probabilities(loader):
            for index, row in zip(indices, rows, strict=True):
                found[int(index)] = self._prediction(loader.part.describe(int(index)), row, top)
        loader.close()
        return [each for each in found if each is not None]

    def _prediction(self, path: str, row: NDArray[np.float32], top: int) -> Prediction:
        best = np.argsort(-row, kind="stable")[:top]
        pairs = tuple((self.classes[i], float(row[i])) for i in best)
        return Prediction(path=path, label=pairs[0][0], probability=pairs[0][1], top=pairs)

    def evaluate(self, data: object, *, batch_size: int = 32, workers: int | None = None) -> dict[str, Any]:
        """Return metrics on labelled data (folder, CSV file, recipe file, or ``(images, labels)``), and each class's.

        Raises ``DataError`` for a class that the model does not know.
        """
        part = sources.labelled(data, self.about, self.catalogue, device.usable_cores())
        loader = self._loader(part, batch_size, workers)
        evaluation = Predictor(self.network).evaluate(loader, len(self.classes))
        loader.close()
        return {
            "part": part.name,
            "images": len(part),
            **evaluation.metrics,
            "per_class": per_class(evaluation.confusion, self.classes),
        }

    def embed(
        self, images: Images | NDArray[np.float32], *, batch_size: int = 32, workers: int | None = None
    ) -> NDArray[np.float32]:
        """Return pooled features (N, width) float32 of paths, HWC uint8 RGB arrays, or ready (N, 3, H, W) float32."""
        predictor = Predictor(self.network)
        if isinstance(images, np.ndarray) and images.dtype != np.uint8:
            return np.concatenate([predictor.features_of(b) for b in ready_batches(images, batch_size)])
        if not len(images):
            return np.zeros((0, int(self.about["features"])), np.float32)
        loader = self._loader(self._unlabelled(list(images)), batch_size, workers)
        features = predictor.features(loader)
        loader.close()
        return features

    def export(self, path: Path, format: Literal["onnx", "mindir"] = "onnx") -> dict[str, Any]:
        """Write the network for another runtime, with labels and preprocessing beside it; return what was checked."""
        return exporting.export(self, path, format)

    def _unlabelled(self, images: Images) -> Part:
        listed = [Path(i) if isinstance(i, str | Path) else np.asarray(i) for i in images]
        return Part(name="images", images=listed, labels=np.zeros(len(listed), np.int64))

    def _loader(self, part: Part, batch_size: int, workers: int | None) -> Loader:
        threads = device.usable_cores() if workers is None else workers
        size = min(batch_size, len(part))
        return Loader(part, self.image, batch_size=size, workers=threads, seed=0, train=False)


def ready_batches(images: NDArray[Any], size: int) -> Iterable[NDArray[np.float32]]:
    """Yield (n, 3, H, W) float32 batches of an array that is ready for the network."""
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.float32:
        raise UsageError(
            f"an array of shape {images.shape} and type {images.dtype} cannot be embedded; "
            "pass ready (N, 3, H, W) float32, or a list of paths or HWC uint8 images"
        )
    for start in range(0, len(images), size):
        yield np.ascontiguousarray(images[start : start + size])


def per_class(confusion: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return images, recall and precision of each class; None where there is nothing to divide by."""
    rows, columns, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    return [
        {
            "class": name,
            "images": int(rows[i]),
            "recall": float(hits[i] / rows[i]) if rows[i] else None,
            "precision": float(hits[i] / columns[i]) if columns[i] else None,
        }
        for i, name in enumerate(classes)
    ]
