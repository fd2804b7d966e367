"""Time the fitted head on random features, next to scikit-learn's logistic regression at the strength that was chosen.

    python benchmarks/fitting.py [--size 6552x512x102] [--rival-rows 10000] [--half]

A size is images x features x classes; without one, several are measured, each in a process of its own. The fit chooses
its strength out of fold; scikit-learn fits once, to the strength that was chosen, where there are no more rows than
`--rival-rows`. Printed are seconds of wall clock and of processor time, passes over the rows, the peak memory of the
process (and before the fit), and the accuracy of both sides on other images.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
import warnings

import numpy as np

SIZES = ("244x512x2", "200x2048x10", "6552x512x102", "100000x2048x100")
OTHERS = 2000  # images to predict
APART = 0.25  # distance of classes, relative to the spread within one


def main() -> None:
    """Measure one size, or start a process for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size")
    parser.add_argument("--rival-rows", type=int, default=10_000)
    parser.add_argument("--half", action="store_true", help="keep features as float16")
    given = parser.parse_args()
    if given.size:
        measure(*map(int, given.size.split("x")), rival_rows=given.rival_rows, half=given.half)
        return
    from measured import machine

    print(machine(), "abilities:", abilities(), flush=True)
    for size in SIZES:
        subprocess.run([sys.executable, __file__, "--size", size, *sys.argv[1:]], check=True)


def abilities() -> str:
    """Return the instruction sets of the processor that NumPy found."""
    from numpy.core import _multiarray_umath

    return " ".join(name for name, there in _multiarray_umath.__cpu_features__.items() if there and "AVX" in name)


def draw_features(rows: int, columns: int, classes: int, *, half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return features like those of a network: not negative, correlated, of classes that overlap; and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    hidden = min(columns, 256)
    centres = rng.normal(size=(classes, hidden)).astype(np.float32)
    mixing = (rng.normal(size=(hidden, columns)) * np.arange(1, hidden + 1)[:, None] ** -0.5).astype(np.float32)
    features = np.empty((rows, columns), np.float16 if half else np.float32)
    for start in range(0, rows, 4096):
        known = labels[start : start + 4096]
        inner = APART * centres[known] + rng.standard_normal((len(known), hidden), np.float32)
        noise = rng.standard_normal((len(known), columns), np.float32)
        features[start : start + 4096] = np.maximum(inner @ mixing + noise, 0.0)
    return features, labels


def measure(rows: int, columns: int, classes: int, *, rival_rows: int, half: bool) -> None:
    """Fit, and print a line for each side."""
    from finetune.fitting.data import Data
    from finetune.fitting.fit import fit_head
    from finetune.fitting.folds import assign_folds

    features, labels = draw_features(rows + OTHERS, columns, classes, half=half)
    folds = assign_folds(labels[:rows], np.arange(rows), 5, 0)
    data = Data(features=features[:rows], labels=labels[:rows], folds=folds, plain=np.ones(rows, bool))
    before = peak()
    wall, processor = time.perf_counter(), time.process_time()
    fitted = fit_head(data, classes)
    spent = time.perf_counter() - wall, time.process_time() - processor
    right = ((features[rows:] @ fitted.weight.T + fitted.bias).argmax(axis=1) == labels[rows:]).mean()
    print(
        f"{rows}x{columns}x{classes} fitted: {spent[0]:.2f} s, processor {spent[1]:.2f} s, {fitted.passes:.0f} passes, "
        f"{len(fitted.path)} strengths, chose {fitted.strength:g}, peak {peak():.2f} GB ({before:.2f} before), "
        f"accuracy {right:.4f}",
        flush=True,
    )
    if rows <= rival_rows:
        measure_rival(features.astype(np.float32), labels, rows, fitted.strength)


def measure_rival(features: np.ndarray, labels: np.ndarray, rows: int, strength: float) -> None:
    """Fit scikit-learn's model once, to a strength that is known."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    warnings.simplefilter("ignore", ConvergenceWarning)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0 / (strength * rows), max_iter=1000))
    wall, processor = time.perf_counter(), time.process_time()
    model.fit(features[:rows], labels[:rows])
    spent = time.perf_counter() - wall, time.process_time() - processor
    right = (model.predict(features[rows:]) == labels[rows:]).mean()
    steps = int(model[-1].n_iter_[0])
    print(
        f"    scikit-learn, one strength: {spent[0]:.2f} s, processor {spent[1]:.2f} s, {steps} iterations, "
        f"accuracy {right:.4f}",
        flush=True,
    )


def peak() -> float:
    """Return the largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
