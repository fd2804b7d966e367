"""Training targets: soft targets, class weights, mixup and cutmix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from finetune.errors import DataError, UsageError
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]


def make_soft_targets(
    labels: Rows,
    weights: Floats,
    classes: int,
    smoothing: float,
    class_weights: Floats | None,
) -> Floats:
    """Return float32 (B, classes): each row is the smoothed label, times the weights of the sample and of its class.

    Smoothing spreads its share evenly over all classes (Szegedy et al. 2016); rows of padding are zero. Raises
    ``DataError`` for labels outside 0..classes-1, which the loss kernels would accept.
    """
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        wrong = f"labels from {labels.min()} to {labels.max()} do not fit {classes} classes"
        raise DataError(f"{wrong}; labels must be 0 to {classes - 1}")
    rows = weights if class_weights is None else weights * class_weights[labels]
    targets = np.full((len(labels), classes), smoothing / classes, np.float32)
    targets[np.arange(len(labels)), labels] += np.float32(1.0 - smoothing)
    return targets * rows[:, None].astype(np.float32)


def compute_class_weights(
    choice: Literal["measured", "none", "sqrt", "auto"] | Mapping[str, float], labels: Rows, classes: Sequence[str]
) -> Floats | None:
    """Return the weight of each class for a recipe's ``loss.class_weights``; None for no weights.

    Also returns None for ``measured``, which is decided later. Classes that a mapping leaves out weigh 1. Raises
    ``UsageError`` for a class that does not exist.
    """
    if choice in ("none", "measured"):
        return None
    if choice in ("auto", "sqrt"):
        return balance_weights(labels, len(classes), power=0.5 if choice == "sqrt" else 1.0)
    assert not isinstance(choice, str)
    known = frozenset(classes)
    unknown = [f"no class named '{name}'{did_you_mean(name, classes)}" for name in choice if name not in known]
    if unknown:
        raise UsageError("\n".join(f"loss.class_weights: {text}" for text in unknown))
    return np.array([choice.get(name, 1.0) for name in classes], np.float32)


def balance_weights(labels: Rows, classes: int, *, power: float = 1.0) -> Floats:
    """Return weights inverse to a power of each class's share, float32 (classes,), with mean 1 over the samples."""
    counts = np.bincount(labels, minlength=classes)
    there = counts > 0
    weights = np.zeros(classes, np.float64)
    weights[there] = counts[there] ** -power
    weights *= len(labels) / max((weights * counts).sum(), np.finfo(np.float64).tiny)
    return weights.astype(np.float32)


def mix(
    images: Floats,
    targets: Floats,
    *,
    mixup: float,
    cutmix: float,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return images (B, 3, H, W) and targets (B, C), blended in pairs; the arguments are not modified.

    ``mixup`` is the alpha of Zhang et al. 2018, ``cutmix`` that of Yun et al. 2019; 0 disables them, and if both are
    enabled, one is drawn for each batch. Every real row (not all zero) is the partner of one other row, so that the sum
    of the targets stays the same. Padding is not changed.
    """
    real = np.flatnonzero(targets.any(axis=1))
    if len(real) < 2 or not (mixup or cutmix):
        return images, targets
    cut = bool(cutmix) and (not mixup or rng.random() < 0.5)
    share = float(rng.beta(cutmix, cutmix) if cut else rng.beta(mixup, mixup))
    partners = real[rng.permutation(len(real))]
    images, targets = images.copy(), targets.copy()
    if cut:
        share = _paste(images, real, partners, share, rng)
    else:
        images[real] = images[real] * np.float32(share) + images[partners] * np.float32(1.0 - share)
    targets[real] = targets[real] * np.float32(share) + targets[partners] * np.float32(1.0 - share)
    return images, targets


def _paste(images: Floats, real: Rows, partners: Rows, share: float, rng: np.random.Generator) -> float:
    """Paste one rectangle of the partners into the real rows, in place; return the share of unchanged pixels."""
    height, width = images.shape[2:]
    side = np.sqrt(1.0 - share)
    y, x = rng.integers(height), rng.integers(width)
    top, bottom = _clip_span(int(y), height * side, height)
    left, right = _clip_span(int(x), width * side, width)
    box = (slice(None), slice(None), slice(top, bottom), slice(left, right))
    images[box][real] = images[box][partners]
    return 1.0 - (bottom - top) * (right - left) / (height * width)


def _clip_span(middle: int, length: float, limit: int) -> tuple[int, int]:
    """Return start and end of a range around ``middle``, clipped to 0..limit."""
    start = middle - int(length) // 2
    return max(start, 0), min(start + int(length), limit)
