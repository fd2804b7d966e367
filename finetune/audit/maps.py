"""Heat maps of an audit: where an image looks like the class that the audit suggests.

The class's direction comes from a ridge regression on the features of all images, so no head has to be trained. With
the mean over positions as the last step of the network, the map is exact for that direction (class activation map).
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from finetune.audit.labels import RIDGE, SMALLEST, standardise
from finetune.data.images import decode, fit, normalise, read_image
from finetune.explain.explanation import render_overlay
from finetune.explain.maps import compute_activations
from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from finetune.audit.audit import Audit
    from finetune.training.prepare import Prepared

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

MOST = 100  # images, the ones whose label is most surely wrong
BATCH = 8
FOLDER, PICTURES = "maps", "images"
SIDE = 600  # pixels of a picture of an image without a file


def write_maps(prepared: Prepared, audit: Audit, folder: Path, check: Callable[[], None]) -> None:
    """Write a JPEG for each of the most certain wrong labels, named by the number of its row in ``images.csv``.

    Writes nothing for a network whose last stage returns no maps.
    """
    rows = np.flatnonzero(audit.scores.is_wrong)
    rows = rows[np.argsort(audit.scores.score[rows], kind="stable")][:MOST]
    if not len(rows):
        return
    with atomic.translate_disk_errors(folder / FOLDER):
        for row, overlay in draw_maps(prepared, audit, rows):
            check()
            (folder / FOLDER).mkdir(exist_ok=True)
            data = BytesIO()
            Image.fromarray(overlay).save(data, "JPEG", quality=85)
            (folder / FOLDER / f"{row}.jpg").write_bytes(data.getvalue())


def write_pictures(audit: Audit, folder: Path) -> None:
    """Write the images without files that a review shows: those with findings, and the neighbours of wrong labels."""
    images, scores = audit.images, audit.scores
    wrong = np.flatnonzero(scores.is_wrong)
    poor = [row for row, problems in enumerate(audit.quality) if problems]
    checked = [each.image for several in audit.checked.values() for each in several]
    grouped = [row for group in audit.groups for row in group.rows]
    shown = {*wrong.tolist(), *scores.neighbours.indices[wrong].ravel().tolist(), *poor, *checked, *grouped}
    shown |= set(np.flatnonzero(audit.outliers).tolist())
    rows = [row for row in sorted(shown) if not isinstance(images.sources[row], Path)]
    with atomic.translate_disk_errors(folder / PICTURES):
        for row in rows:
            (folder / PICTURES).mkdir(exist_ok=True)
            picture = Image.fromarray(decode(images.sources[row]))
            picture.thumbnail((SIDE, SIDE))
            picture.save(folder / PICTURES / f"{row}.jpg", quality=85)


def draw_maps(prepared: Prepared, audit: Audit, rows: Rows) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the overlay of each image that has one, for its suggested class."""
    images, spec = audit.images, prepared.image
    directions = fit_directions(images.features, images.labels, len(images.classes))
    for start in range(0, len(rows), BATCH):
        block = rows[start : start + BATCH].tolist()
        pixels = [fit(read_image(images.sources[row], spec), spec) for row in block]
        batch = np.empty((len(block), 3, spec.size, spec.size), np.float32)
        for place, each in enumerate(pixels):
            normalise(each, spec, batch[place])
        maps = compute_activations(prepared.network, batch)
        if maps is None:
            return
        heat = np.einsum("nc,nchw->nhw", directions[audit.scores.suggested[block]], maps).astype(np.float32)
        yield from ((row, render_overlay(*pair)) for row, *pair in zip(block, pixels, heat, strict=True))


def fit_directions(features: Floats, labels: Rows, classes: int) -> Floats:
    """Return the weights (K, D) of a ridge regression on class indicators, for features as they are."""
    rows = standardise(features).astype(np.float64)
    targets = np.eye(classes)[labels] - np.bincount(labels, minlength=classes) / len(labels)
    weights = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ targets)
    deviation = features.std(axis=0, dtype=np.float64)
    found: Floats = (weights.T / np.where(deviation > SMALLEST, deviation, 1)).astype(np.float32)
    return found
