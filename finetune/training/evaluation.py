"""The network as it predicts: every stage in evaluation mode, batches of one shape, probabilities on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from finetune.model.network import Features, Network
from finetune.training.metrics import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from finetune.data.loader import Loader


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What an evaluation found: metrics, ``confusion[true, predicted]``, and for every image of the part, in its
    order, the predicted class and its probability."""

    metrics: dict[str, float]
    confusion: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]


class Probabilities(nn.Cell):
    """Softmax of a network's logits."""

    def __init__(self, network: Network) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Map (N, 3, H, W) and a mask of ones to (N, classes)."""
        return ops.softmax(self.network(images, mask).astype(ms.float32), -1)


class Predictor:
    """Runs a network in evaluation mode."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._probabilities = Probabilities(network)
        self._features = Features(network)
        self._ones = Tensor(np.ones((1, 1), np.float32))

    def probabilities(self, loader: Loader) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield indices (n,) and probabilities (n, classes) of each batch, padding left out."""
        for batch in loader.epoch(1):
            real = batch.weights > 0
            yield batch.indices[real], self._run(self._probabilities, batch.images, self._ones)[real]

    def features(self, loader: Loader) -> NDArray[np.float32]:
        """Return pooled features (images, width) in the loader's order."""
        rows = [self.features_of(b.images)[b.weights > 0] for b in loader.epoch(1)]
        return np.concatenate(rows)

    def features_of(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pooled features of ready (N, 3, H, W) float32 images."""
        return self._run(self._features, images)

    def evaluate(self, loader: Loader, classes: int, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Run over a part and count; ``check`` is called after each batch and may raise to stop."""
        tally = Tally(classes=classes)
        predicted = np.zeros(len(loader.part), np.int64)
        confidence = np.zeros(len(loader.part), np.float32)
        for indices, rows in self.probabilities(loader):
            tally.add(rows, loader.part.labels[indices])
            predicted[indices] = rows.argmax(axis=1)
            confidence[indices] = rows.max(axis=1)
            check()
        return Evaluation(
            metrics=tally.metrics(), confusion=tally.confusion, predicted=predicted, confidence=confidence
        )

    def _run(self, cell: nn.Cell, images: NDArray[np.float32], *more: Tensor) -> NDArray[np.float32]:
        cell.set_train(False)
        result: NDArray[np.float32] = cell(Tensor(images), *more).asnumpy()
        return result
