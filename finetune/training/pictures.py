"""Images for callbacks: augmented training images, and validation images with their predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.images import decode, denormalise, fit, read_image
from finetune.explain.explain import explain_images
from finetune.run import Predicted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.components import ImageSpec, Pixels
    from finetune.data.loading import Data
    from finetune.model.evaluation import Evaluation
    from finetune.model.model import Model
    from finetune.training.phase_data import PhaseData


def show_augmented(phase_data: PhaseData, epoch: int, spec: ImageSpec, count: int) -> list[Pixels]:
    """Return the first training images of an epoch, as the network sees them."""
    batches = phase_data.get_loader("train", train=True).epoch(epoch, view=phase_data.choose_view(epoch))
    images = next(batches).images[:count]
    batches.close()
    return [denormalise(image, spec) for image in images]


def show_predictions(data: Data, found: Evaluation | None, spec: ImageSpec, count: int) -> list[Predicted]:
    """Return validation images with predictions: the most confident errors first, then the least confident hits."""
    part = data.valid or data.train
    pixels = [fit(read_image(part.images[row], spec), spec) for row in choose_images(data, found, count)]
    return describe_predictions(data, found, pixels)


def show_heat_maps(model: Model, data: Data, found: Evaluation | None, count: int) -> list[Predicted]:
    """Return the same images as ``show_predictions``, each with the heat map of its most likely class."""
    part = data.valid or data.train
    images = [part.images[row] for row in choose_images(data, found, count)]
    given = [image if isinstance(image, Path) else decode(image) for image in images]
    return describe_predictions(data, found, [each.overlay() for each in explain_images(model, given)])


def choose_images(data: Data, found: Evaluation | None, count: int) -> list[int]:
    """Return the validation images to show: the most confident errors first, then the least confident hits."""
    part = data.valid or data.train
    if found is None or len(found.predicted) != len(part):  # estimated on only one fold of many images
        return []
    wrong = found.predicted != part.labels
    order = np.lexsort((np.where(wrong, -found.confidence, found.confidence), ~wrong))[:count]
    return [int(row) for row in order]


def describe_predictions(data: Data, found: Evaluation | None, pixels: Sequence[Pixels]) -> list[Predicted]:
    """Return the chosen images, given their pixels, with their predictions."""
    part, classes = data.valid or data.train, data.classes
    rows = choose_images(data, found, len(pixels))
    return [
        Predicted(
            pixels=each,
            label=classes[part.labels[row]],
            predicted=classes[found.predicted[row]],
            probability=float(found.confidence[row]),
            path=part.name_of(row),
        )
        for row, each in zip(rows, pixels, strict=True)
        if found is not None
    ]
