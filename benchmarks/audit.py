"""Compare the label scores of `finetune audit` with cleanlab's on the same features, with planted errors.

    pip install examples/finetune-squeezenet cleanlab==2.9.0 "pandas<3"
    python benchmarks/audit.py --flowers PHOTOS --weights squeezenet1_1.safetensors [--seeds 1 2 3]

PHOTOS is Oxford 102 Flowers as a folder with train/, valid/ and test/; the photos of train and valid are used. In each
draw, 5, 10 or 20 % of the labels are replaced by any other class (sym) or by the class with the nearest mean (conf).
cleanlab gets out-of-fold probabilities of a five-fold logistic regression on the standardised features and calls
`find_label_issues`. Printed are average precision of the ranking, and precision, recall and F1 of the flagged images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from finetune import Finetuner
from finetune.audit.labels import score_labels

SHARES = (0.05, 0.1, 0.2)


def plant(labels: Any, near: Any, kind: str, share: float, seed: int) -> tuple[Any, Any]:
    """Return labels with errors, and which are wrong."""
    rng, classes = np.random.default_rng(seed), len(near)
    bad = rng.random(len(labels)) < share
    wrong = near[labels] if kind == "conf" else (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(bad, wrong, labels), bad


def find_nearest_classes(features: Any, labels: Any) -> Any:
    """Return for each class the one whose mean is nearest by cosine."""
    means = np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return (means @ means.T - 2 * np.eye(len(means))).argmax(axis=1)


def ours(features: Any, labels: Any, classes: int) -> tuple[Any, Any]:
    """Return our score of how wrong each label is, and the flagged images."""
    found = score_labels(features, labels, classes)
    return 1 - found.score, found.is_wrong


def theirs(features: Any, labels: Any, classes: int) -> tuple[Any, Any]:
    """Return cleanlab's score of how wrong each label is, and the flagged images."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    probabilities = cross_val_predict(model, features, labels, cv=5, method="predict_proba")
    return 1 - get_label_quality_scores(labels, probabilities), find_label_issues(labels, probabilities)


def judge(score: Any, flagged: Any, bad: Any) -> list[float]:
    """Return average precision of a ranking, and precision, recall and F1 of the flagged images."""
    hits = int((flagged & bad).sum())
    precision, recall = hits / max(1, int(flagged.sum())), hits / int(bad.sum())
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return [float(average_precision_score(bad, score)), precision, recall, f1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", default="squeezenet1_1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    paths = [path for split in ("train", "valid") for path in sorted((asked.flowers / split).glob("*/*.jpg"))]
    names = sorted({path.parent.name for path in paths})
    labels = np.array([names.index(path.parent.name) for path in paths])
    features = Finetuner(asked.backbone, weights=asked.weights, progress=False).embed(paths)
    near = find_nearest_classes(features, labels)
    print(machine(), "", f"{len(paths):,} images, {features.shape[1]} features of {asked.backbone}", "", sep="\n")
    print("| planted | seed | | AP | precision | recall | F1 | s |", "| --- " * 8 + "|", sep="\n")
    for kind in ("sym", "conf"):
        for share in SHARES:
            for seed in asked.seeds:
                given, bad = plant(labels, near, kind, share, seed)
                for name, method in (("cleanlab", theirs), ("finetune", ours)):
                    began = time.perf_counter()
                    found = judge(*method(features, given, len(names)), bad)
                    seconds = time.perf_counter() - began
                    row = " | ".join(f"{value:.3f}" for value in found)
                    print(f"| {kind} {100 * share:.0f} % | {seed} | {name} | {row} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
