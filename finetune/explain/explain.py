"""Explain predictions: load images, choose the classes, compute maps."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor

from finetune.data.images import denormalise
from finetune.errors import UsageError
from finetune.explain.explanation import Explanation
from finetune.explain.maps import compute_maps, run_eagerly
from finetune.model.evaluation import softmax
from finetune.model.model import convert_to_list, find_path, wrap_images
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from finetune.data.imagefile import BadImage
    from finetune.model.model import Images, Model
    from finetune.network.network import Network

    Floats = NDArray[np.float32]

BATCH = 8  # images per call, so that memory stays small


def find_class(classes: Sequence[str], name: str) -> int:
    """Return the index of a class; raises ``UsageError`` with a near match for an unknown one."""
    if name not in classes:
        raise UsageError(f"the model has no class '{name}'{did_you_mean(name, classes)}")
    return classes.index(name)


def explain_images(
    model: Model,
    images: Images,
    *,
    label: str | None = None,
    workers: int | None = None,
    refused: dict[int, BadImage] | None = None,
) -> list[Explanation]:
    """Return the heat map of each image: where the network sees ``label``, by default the most likely class.

    Raises ``DataError`` for an image that cannot be used, unless ``refused`` is given to collect such images by index,
    and ``UsageError`` for an unknown class.
    """
    images = convert_to_list(images)
    part = wrap_images(images, model.image.color)
    wanted = None if label is None else find_class(model.classes, label)
    found: list[Explanation] = []
    if not len(part):
        return found
    with closing(model.make_loader(part, BATCH, workers, refused)) as loader:
        for batch in loader.epoch(1):
            kept = [row for row in np.flatnonzero(batch.weights > 0) if batch.indices[row] not in (refused or ())]
            if kept:
                paths = [find_path(images, part, int(batch.indices[row])) for row in kept]
                found += explain_batch(model, paths, batch.images[kept], wanted)
    return found


def explain_batch(model: Model, paths: Sequence[Any], images: Floats, wanted: int | None = None) -> list[Explanation]:
    """Return the explanation of each preprocessed image (N, 3, H, W), for a class or for the most likely one."""
    rows = softmax(compute_logits(model.network, images) / np.float32(model.temperature))
    chosen = rows.argmax(axis=1) if wanted is None else np.full(len(rows), wanted)
    maps, method = compute_maps(model.network, images, chosen)
    return [
        Explanation(
            path=path,
            label=model.classes[index],
            probability=float(row[index]),
            map=each.astype(np.float32),
            pixels=denormalise(image, model.image),
            method=method,
        )
        for path, row, index, each, image in zip(paths, rows, chosen.tolist(), maps, images, strict=True)
    ]


def compute_logits(network: Network, images: Floats) -> Floats:
    """Return the logits (N, K) of preprocessed images."""
    with run_eagerly():
        network.set_train(False)
        found: Floats = network(Tensor(images), Tensor(np.ones((1, 1), np.float32))).asnumpy()
    return found
