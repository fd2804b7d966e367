"""Images for callbacks: augmented training images, and validation images with their predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.data.images import denormalise, fit, read_image
from finetune.run import Predicted

if TYPE_CHECKING:
    from finetune.components import ImageSpec, Pixels
    from finetune.data.loading import Data
    from finetune.model.evaluation import Evaluation
    from finetune.training.phase_data import PhaseData


def show_augmented(phase_data: PhaseData, epoch: int, spec: ImageSpec, count: int) -> list[Pixels]:
    """Return the first training images of an epoch, as the network sees them."""
    batches = phase_data.get_loader("train", train=True).epoch(epoch, view=phase_data.choose_view(epoch))
    images = next(batches).images[:count]
    batches.close()
    return [denormalise(image, spec) for image in images]


def show_predictions(data: Data, found: Evaluation | None, spec: ImageSpec, count: int) -> list[Predicted]:
    """Return validation images with predictions: the most confident errors first, then the least confident hits."""
    part, classes = data.valid or data.train, data.classes
    if found is None or len(found.predicted) != len(part):  # estimated on only one fold of many images
        return []
    wrong = found.predicted != part.labels
    order = np.lexsort((np.where(wrong, -found.confidence, found.confidence), ~wrong))[:count]
    return [
        Predicted(
            pixels=fit(read_image(part.images[i], spec), spec),
            label=classes[part.labels[i]],
            predicted=classes[found.predicted[i]],
            probability=float(found.confidence[i]),
        )
        for i in map(int, order)
    ]
