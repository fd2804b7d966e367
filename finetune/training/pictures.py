"""Pictures of a run for those who watch it: augmented training images and labelled validation images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.data.images import fit, read
from finetune.run import Predicted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.components import ImageSpec, Pixels
    from finetune.training.session import Session


def augmented(session: Session, count: int) -> list[Pixels]:
    """Return the first training images of the epoch as the network sees them."""
    epoch = max(1, session.run.epoch)
    batches = session.feed.loader("train", train=True).epoch(epoch, view=session.feed.view(epoch))
    images = next(batches).images[:count]
    batches.close()
    return [visible(image, session.prepared.image) for image in images]


def visible(image: NDArray[np.float32], spec: ImageSpec) -> Pixels:
    """Undo the normalisation of a (3, H, W) float32 image, for the eye."""
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (spec.mean, spec.std))
    pixels = np.clip((image * std + mean) * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def predictions(session: Session, count: int) -> list[Predicted]:
    """Return validation images with their predictions: surely wrong ones first, then the least sure right ones."""
    if session.evaluation is None:
        return []
    part, found = session.data.valid or session.data.train, session.evaluation
    if len(found.predicted) != len(part):  # judged by one fold of many images
        return []
    wrong = found.predicted != part.labels
    order = np.lexsort((np.where(wrong, -found.confidence, found.confidence), ~wrong))[:count]
    spec, classes = session.prepared.image, session.data.classes
    return [
        Predicted(
            pixels=fit(read(part.images[i], spec), spec),
            label=classes[part.labels[i]],
            predicted=classes[found.predicted[i]],
            probability=float(found.confidence[i]),
        )
        for i in map(int, order)
    ]
