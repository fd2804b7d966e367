"""Count how often the interval that a fitted head states out of fold covers its accuracy on test photos.

    pip install examples/finetune-squeezenet
    python benchmarks/coverage.py --flowers PHOTOS --weights squeezenet1_1.safetensors [--subsets 20] [--seed 1]

PHOTOS is Oxford 102 Flowers as a folder with train/, valid/ and test/. The features of all photos are computed once.
Each subset has 5 to 59 classes of at most 3 to 24 training photos, all drawn at random; the validation and the test
photos of its classes judge.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from measured import machine

from finetune import Finetuner
from finetune.fitting import folds
from finetune.fitting.data import Data
from finetune.fitting.fit import fit_head
from finetune.fitting.scores import estimate_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Part = tuple[NDArray[np.float32], NDArray[np.int64]]

FOLDS = 5


def main() -> None:
    """Print a line for each subset, and how many intervals cover the accuracy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flowers", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--subsets", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(machine())
    finetuner = Finetuner("squeezenet1_1", weights=str(given.weights), progress=False)
    train = embed(finetuner, given.flowers, "train")
    parts = [embed(finetuner, given.flowers, split) for split in ("valid", "test")]
    test = np.concatenate([each[0] for each in parts]), np.concatenate([each[1] for each in parts])
    rng = np.random.default_rng(given.seed)
    covered = sum(cover(train, test, rng) for _ in range(given.subsets))
    print(f"{covered} of {given.subsets} intervals cover the accuracy on test photos")


def embed(finetuner: Finetuner, flowers: Path, split: str) -> Part:
    """Return the features and the labels of a split."""
    photos = sorted((flowers / split).glob("*/*.jpg"))
    return finetuner.embed([str(photo) for photo in photos]), np.array([int(photo.parent.name) for photo in photos])


def cover(train: Part, test: Part, rng: np.random.Generator) -> bool:
    """Tell whether the interval of one subset covers the accuracy on the test photos of its classes."""
    classes = np.sort(rng.permutation(np.unique(train[1]))[: int(rng.integers(5, 60))])
    most = int(rng.integers(3, 25))
    chosen = np.concatenate([rng.permutation(np.flatnonzero(train[1] == label))[:most] for label in classes])
    features, labels = train[0][chosen], np.searchsorted(classes, train[1][chosen])
    groups = folds.group_images([None] * len(chosen), features)
    assigned = folds.assign_folds(labels, groups, FOLDS, 0)
    data = Data(features=features, labels=labels, folds=assigned, plain=np.ones(len(labels), bool))
    fitted = fit_head(data, len(classes))
    hits = int((fitted.logits.argmax(axis=1) == labels).sum())
    low, high = estimate_interval(hits, len(labels))
    judged = np.isin(test[1], classes)
    answers = classes[(test[0][judged] @ fitted.weight.T + fitted.bias).argmax(axis=1)]
    accuracy = float(np.mean(answers == test[1][judged]))
    estimate = f"out of fold {hits / len(labels):.3f} ({low:.3f} to {high:.3f})"
    print(
        f"{len(classes)} classes, {len(labels)} photos: {estimate}, {judged.sum()} test photos {accuracy:.3f}",
        flush=True,
    )
    return low <= accuracy <= high


if __name__ == "__main__":
    main()
