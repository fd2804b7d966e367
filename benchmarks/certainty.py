"""Measure calibration, label sets, unknown classes and the effect of corrections on Oxford 102 Flowers.

    pip install examples/finetune-squeezenet
    python benchmarks/certainty.py --flowers PHOTOS --weights squeezenet1_1.safetensors [--seeds 1 2 3]

PHOTOS is a folder with train/, valid/ and test/. The head is fitted to the features of train and valid as in a run, and
everything is judged on the test images, which nothing else sees. Calibration is measured before and after the factor
that the fit derives from out-of-fold logits. For unknown classes, 22 of the 102 classes are left out of the fit in each
draw, and their test images are to be distinguished from the others by the maximum softmax probability and by the score
of `finetune predict --unknown`. For corrections, 10 % of the labels are replaced by any other class (sym) or the
nearest class (conf), the proposals of the audit are accepted, and the head is fitted to noisy, corrected and true
labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from audit import find_nearest_classes, plant
from measured import machine
from sklearn.metrics import roc_auc_score

from finetune import Finetuner
from finetune.audit.labels import score_labels
from finetune.confidence.calibration import measure_calibration_error
from finetune.confidence.reference import Reference, build_reference
from finetune.confidence.unknown import measure_out_of_fold, sum_moments
from finetune.fitting import folds
from finetune.fitting.data import Data, Fitted
from finetune.fitting.fit import fit_head
from finetune.model.evaluation import softmax

UNSEEN, NOISE = 22, 0.1
COVERAGES = (0.8, 0.9, 0.95)


def fit(features: Any, labels: Any, *, calibrated: bool = True) -> tuple[Fitted, Any]:
    """Return the head that a run fits, and the folds."""
    groups = folds.group_images([None] * len(labels), features)
    assigned = folds.assign_folds(labels, groups, 5, 0)
    data = Data(features=features, labels=labels, folds=assigned, plain=np.ones(len(labels), bool))
    return fit_head(data, int(labels.max()) + 1, calibrated=calibrated), assigned


def predict(head: Fitted, features: Any) -> Any:
    """Return probabilities."""
    return softmax(features @ head.weight.T + head.bias)


def make_reference(head: Fitted, assigned: Any, features: Any, labels: Any) -> Reference:
    """Return the reference that a run stores with its model."""
    rows, classes = softmax(head.logits), int(labels.max()) + 1
    distance = measure_out_of_fold(features, labels, assigned, classes)
    statistics = sum_moments(features, labels, classes).compute_statistics()
    found = build_reference(rows.max(axis=1), rows[np.arange(len(labels)), labels], distance, statistics)
    assert found is not None
    return found


def report_calibration(train: Any, labels: Any, test: Any, truth: Any) -> None:
    """Print the calibration errors and the coverage of label sets."""
    print("| | accuracy | ECE |", "| --- " * 3 + "|", sep="\n")
    for name, calibrated in (("before", False), ("after", True)):
        head, assigned = fit(train, labels, calibrated=calibrated)
        rows = predict(head, test)
        correct = rows.argmax(axis=1) == truth
        error = measure_calibration_error(rows.max(axis=1), correct)
        print(f"| {name} calibration | {correct.mean():.4f} | {error:.4f} |")
    reference = make_reference(head, assigned, train, labels)
    print("", "| coverage asked | measured | labels per image | images without a label |", "| --- " * 4 + "|", sep="\n")
    for coverage in COVERAGES:
        sets = rows >= reference.find_least_probability(coverage)
        covered, empty = sets[np.arange(len(truth)), truth].mean(), (sets.sum(axis=1) == 0).mean()
        print(f"| {coverage:.0%} | {covered:.1%} | {sets.sum(axis=1).mean():.2f} | {empty:.1%} |")


def report_unknown(train: Any, labels: Any, test: Any, truth: Any, seed: int) -> None:
    """Print how well images of unseen classes are recognised."""
    unseen = np.random.default_rng(seed).choice(labels.max() + 1, UNSEEN, replace=False)
    known, kept = ~np.isin(labels, unseen), ~np.isin(truth, unseen)
    renumbered = np.unique(labels[known], return_inverse=True)[1]
    head, assigned = fit(train[known], renumbered)
    reference = make_reference(head, assigned, train[known], renumbered)
    rows = predict(head, test)
    score = reference.score_known(rows.max(axis=1), test)
    for name, value in (("maximum probability", rows.max(axis=1)), ("finetune", score)):
        least = np.quantile(value[kept], 0.05)
        found = (value[~kept] < least).mean()
        print(f"| {seed} | {name} | {roc_auc_score(kept, value):.3f} | {found:.3f} | |")
    least = reference.find_threshold(0.05)
    alarms, found = (score[kept] < least).mean(), (score[~kept] < least).mean()
    print(f"| {seed} | --unknown 0.05 | | {found:.3f} | {alarms:.3f} |")


def report_corrections(train: Any, labels: Any, test: Any, truth: Any, seed: int) -> None:
    """Print the accuracy with noisy, corrected and true labels."""
    near = find_nearest_classes(train, labels)
    for kind in ("sym", "conf"):
        noisy, bad = plant(labels, near, kind, NOISE, seed)
        found = score_labels(train, noisy, int(labels.max()) + 1)
        corrected = np.where(found.is_wrong, found.suggested, noisy)
        accuracies = [
            (predict(fit(train, given)[0], test).argmax(axis=1) == truth).mean() for given in (noisy, corrected, labels)
        ]
        cells = " | ".join(f"{accuracy:.4f}" for accuracy in accuracies)
        print(f"| {kind} | {seed} | {bad.mean():.3f} | {(corrected != labels).mean():.3f} | {cells} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", default="squeezenet1_1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    parts = {name: sorted((asked.flowers / name).glob("*/*.jpg")) for name in ("train", "valid", "test")}
    paths = [*parts["train"], *parts["valid"], *parts["test"]]
    names = sorted({path.parent.name for path in paths})
    labels = np.array([names.index(path.parent.name) for path in paths])
    features = Finetuner(asked.backbone, weights=asked.weights, progress=False).embed(paths)
    count = len(parts["train"]) + len(parts["valid"])
    split = (features[:count], labels[:count], features[count:], labels[count:])
    print(machine(), "", f"{count:,} images, {len(paths) - count:,} test images, {asked.backbone}", "", sep="\n")
    report_calibration(*split)
    print("", "| draw | score | AUROC | found at 5 % false alarms | false alarms |", "| --- " * 5 + "|", sep="\n")
    for seed in asked.seeds:
        report_unknown(*split, seed)
    print("", "| planted | seed | wrong before | wrong after | noisy | corrected | true labels |", sep="\n")
    print("| --- " * 7 + "|")
    for seed in asked.seeds:
        report_corrections(*split, seed)


if __name__ == "__main__":
    main()
