"""Certainty of a finished model: its temperature, and the reference that thresholds for its predictions follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor

from finetune.confidence.calibration import fit_temperature, measure_calibration_error
from finetune.confidence.reference import build_reference
from finetune.confidence.unknown import measure_out_of_fold, sum_moments
from finetune.data.loader import Loader
from finetune.model.evaluation import Logits, Predictor, read_folds, softmax
from finetune.network.engines import choose_chunk
from finetune.training.frozen_stages import PLAIN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.confidence.reference import Reference
    from finetune.model.evaluation import Scored
    from finetune.training.training_run import Check, TrainingRun

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

MOST = 2000  # training images that the statistics of a trained network come from; more would take as long as an epoch
BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """What is known about the certainty of a model; ``calibration`` is its record in ``model.json``."""

    calibration: dict[str, Any]
    reference: Reference | None

    @property
    def temperature(self) -> float:
        """The divisor of the logits."""
        return float(self.calibration["temperature"])


UNKNOWN = Certainty(calibration={"temperature": 1.0, "method": "none"}, reference=None)


def measure_certainty(training: TrainingRun, check: Check) -> Certainty:
    """Measure the certainty of the final network on images that it was not trained on.

    These are the validation images, or for a head that was only fitted, the training images by the heads of the other
    folds. If there are neither, nothing is known.
    """
    only_fitted = training.run.history[-1]["epoch"] == 0
    if training.data.valid is None:
        found = read_folds(training.run.folder, training.data) if only_fitted else None
        return UNKNOWN if found is None else _measure_out_of_fold(training, *found, check)
    labels = training.data.valid.labels
    features, logits = compute_outputs(training, "valid", check)
    temperature = 1.0 if only_fitted and training.fitted else fit_temperature(logits, labels)
    rows, own = select_statistics_rows(training)
    moments = sum_moments(compute_features(training, rows, check), own, len(training.data.classes))
    statistics = moments.compute_statistics()
    before, after = softmax(logits), softmax(logits / np.float32(temperature))
    errors = [measure_error(each, labels) for each in (before, after)]
    return Certainty(
        calibration=describe_calibration(temperature, "validation", len(labels), errors[1], before=errors[0]),
        reference=build_reference(
            after.max(axis=1), after[np.arange(len(labels)), labels], statistics.measure_distance(features), statistics
        ),
    )


def _measure_out_of_fold(training: TrainingRun, scored: Scored, folds: Rows, check: Check) -> Certainty:
    """Measure a fitted head by the training images, each by the head and the statistics of the other folds."""
    labels, classes = training.data.train.labels, len(training.data.classes)
    features = training.phase_data.gather(PLAIN, check)
    index = scored["index"]
    distance = measure_out_of_fold(features, labels, folds, classes)[index]
    statistics = sum_moments(features, labels, classes).compute_statistics()
    error = measure_calibration_error(scored["confidence"], scored["predicted"] == labels[index])
    return Certainty(
        calibration=describe_calibration(1.0, "out of fold", len(scored), error),
        reference=build_reference(scored["confidence"], scored["own"], distance, statistics),
    )


def describe_calibration(
    temperature: float, method: str, images: int, error: float, *, before: float | None = None
) -> dict[str, Any]:
    """Return the record of a calibration; the errors are expected calibration errors."""
    about = {"temperature": round(temperature, 6), "method": method, "images": images, "ece": round(error, 6)}
    return about if before is None else {**about, "ece_before": round(before, 6)}


def measure_error(probabilities: Floats, labels: Rows) -> float:
    """Return the expected calibration error of probabilities (N, K)."""
    return measure_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def select_statistics_rows(training: TrainingRun) -> tuple[Rows, Rows]:
    """Return the training images that statistics come from, and their labels.

    These are all images if their features are cached, otherwise at most ``MOST``, evenly spread over the classes.
    """
    labels = training.data.train.labels
    rows = np.arange(len(labels))
    if not has_plain_features(training) and len(rows) > MOST:
        rank = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            inside = np.flatnonzero(labels == label)
            rank[inside] = np.arange(len(inside))
        rows = np.sort(np.argsort(rank, kind="stable")[:MOST])
    return rows, labels[rows]


def has_final_features(training: TrainingRun) -> bool:
    """Return whether the frozen stages are all stages, so that the cached features are those of the final network."""
    phase_data = training.phase_data
    return phase_data.first == len(training.network.stages) and phase_data.frozen.is_fitting()


def has_plain_features(training: TrainingRun) -> bool:
    """Return whether the final features of the training images as they are were computed, since the head was fitted."""
    return training.fitted is not None and has_final_features(training)


def compute_features(training: TrainingRun, rows: Rows, check: Check) -> Floats:
    """Return the features (N, D) of training images by the final network."""
    if has_plain_features(training):
        return training.phase_data.gather(PLAIN, check)[rows]
    prepared = training.prepared
    loader = Loader(
        training.data.train.select(rows, "train"),
        prepared.image,
        batch_size=choose_chunk(prepared.device.name),
        workers=prepared.workers,
        seed=0,
        train=False,
    )
    try:
        return build_predictor(training).compute_features(loader)
    finally:
        loader.close()


def compute_outputs(training: TrainingRun, part: str, check: Check) -> tuple[Floats, Floats]:
    """Return the features (N, D) and the logits (N, K) of a part by the final network."""
    if has_final_features(training):
        features = training.phase_data.gather(PLAIN, check, part)
    else:
        loader = training.phase_data.get_loader(part, ordered=choose_chunk(training.prepared.device.name))
        features = build_predictor(training).compute_features(loader)
    check()
    head = Logits(training.network, len(training.network.stages))
    head.set_train(False)
    blocks = (features[start : start + BLOCK] for start in range(0, len(features), BLOCK))
    return features, np.concatenate([head(Tensor(block)).asnumpy() for block in blocks])


def build_predictor(training: TrainingRun) -> Predictor:
    """Return a predictor of the complete network."""
    prepared = training.prepared
    return Predictor(
        prepared.network,
        prepared.plan.recipe.inference,
        matmul_form=prepared.matmul_form,
        device=prepared.device.name,
        say=training.run.say,
    )
