"""Features of made-up classes."""

from __future__ import annotations

import numpy as np

from finetune.fitting.data import Data
from finetune.fitting.folds import assign_folds


def draw_features(
    rows: int, columns: int, classes: int, *, apart: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return features (rows, columns) of classes around random centres, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    spread = 3.0 * np.arange(1, columns + 1) ** -0.5
    features = (apart * rng.normal(size=(classes, columns))[labels] + rng.normal(size=(rows, columns))) * spread + 2.0
    return features.astype(np.float32), labels


def make_data(features: np.ndarray, labels: np.ndarray, folds: int = 5) -> Data:
    """Return data whose rows are all plain, each in a group of its own."""
    labels = labels.astype(np.int64)
    dealt = assign_folds(labels, np.arange(len(labels)), folds, 0)
    return Data(features=features, labels=labels, folds=dealt, plain=np.ones(len(labels), bool))
