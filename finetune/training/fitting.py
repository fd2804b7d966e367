"""Epoch 0: fits the head to the features of the frozen network, and estimates its accuracy out of fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor

from finetune.data import targets
from finetune.errors import DataError
from finetune.fitting import folds
from finetune.fitting.data import Choice, Data, Fitted, NotFiniteError, check_finite
from finetune.fitting.fit import fit_head as fit
from finetune.fitting.scores import estimate_interval
from finetune.model import evaluation, metrics
from finetune.model.evaluation import Evaluation, softmax
from finetune.training import defaults
from finetune.training.frozen_stages import list_head_views

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from finetune.training.training_run import TrainingRun

    Check = Callable[[], None]
    Floats = NDArray[np.float32]


def fit_head(training: TrainingRun, check: Check) -> None:
    """Set the head to the optimum of its loss on the training images, with its strength chosen out of fold.

    With several processes, the first fits the head and shares it with the others.
    """
    wanted = list_head_views(training.recipe)
    many = f" in {len(wanted)} views" if len(wanted) > 1 else ""
    training.run.say(f"fitting the head to {len(training.data.train):,} training images{many}")
    features = gather_features(training, wanted, check)
    answer: dict[str, Any] = {}
    with training.world.collective():
        if training.world.is_main:
            answer = _fit_first(training, features, check)
    answer = training.world.broadcast(answer)
    training.world.broadcast_parameters(training.network.get_parameters_of(("head",)))
    _begin_average(training)
    training.loss_sum, training.images = answer["loss"] * len(training.data.train), len(training.data.train)
    training.fitted = answer["report"]
    if training.estimate is None and answer["metrics"]:
        training.estimate = Evaluation(
            metrics=answer["metrics"],
            confusion=np.zeros((0, 0), np.int64),
            scored=np.empty(0, metrics.SCORE),
        )
    if training.recipe.loss.class_weights == "measured":
        training.settle("loss", class_weights=answer["choice"])


def gather_features(training: TrainingRun, wanted: tuple[int, ...], check: Check) -> Floats:
    """Return the features (V, N, D) of the training images in ``wanted`` views; empty except in the first process."""
    found = np.empty((0, 0, 0), np.float32)
    for place, view in enumerate(wanted):
        features = training.phase_data.gather(view, check)
        if training.world.is_main:
            found = found if place else np.empty((len(wanted), *features.shape), np.float32)
            found[place] = features
    return found


def _fit_first(training: TrainingRun, features: Floats, check: Check) -> dict[str, Any]:
    """Fit the head in this process; return the results that the other processes need, as JSON."""
    labels = training.data.train.labels
    count = training.recipe.validate.folds
    count = count if isinstance(count, int) else defaults.FOLDS
    measured = training.recipe.loss.class_weights == "measured"
    try:
        check_finite(features[0])
        groups = folds.group_images(training.data.train.hashes, features[0])
        groups = folds.join_groups(groups, training.data.train.groups)
        assigned = folds.assign_folds(labels, groups, count, training.recipe.seed)
        found = fit(
            build_rows(features, labels, assigned),
            len(training.data.classes),
            smoothing=training.recipe.loss.label_smoothing,
            choices=list_choices(training),
            judge="macro_f1" if measured else "loss",
            check=check,
        )
    except NotFiniteError as error:
        raise build_not_finite_error(training, error) from None
    set_layer(training, found)
    scored = score_images(found, labels)
    training.estimate = evaluate(scored, labels, len(training.data.classes))
    report = describe_fit(found, training.estimate, count)
    _say(training, report)
    if training.data.valid is None:
        evaluation.write_scores(training.run.folder, training.data, scored, assigned)
    judged = training.estimate.metrics if training.estimate else {}
    return {"loss": found.loss, "choice": found.choice, "metrics": judged, "report": report}


def build_rows(features: Floats, labels: NDArray[np.int64], assigned: NDArray[np.int64]) -> Data:
    """Convert features of all views (V, N, D), the plain one first, to rows."""
    views = len(features)
    return Data(
        features=features.reshape(-1, features.shape[-1]),
        labels=np.tile(labels, views),
        folds=np.tile(assigned, views),
        plain=np.arange(views * len(labels)) < len(labels),
    )


def list_choices(training: TrainingRun) -> tuple[Choice, ...]:
    """Return the class weights to try: those of the recipe, or for ``measured`` none and square-root weights."""
    section, data = training.recipe.loss, training.data
    if section.class_weights != "measured":
        name = section.class_weights if isinstance(section.class_weights, str) else "given"
        return (Choice(name=name, class_weights=training.compute_class_weights()),)
    weights = targets.compute_class_weights("sqrt", data.train.labels, data.classes)
    return (Choice(name="none"), Choice(name="sqrt", class_weights=weights))


def build_not_finite_error(training: TrainingRun, error: NotFiniteError) -> DataError:
    """Return the error that lists the images whose features are not finite."""
    count = len(training.data.train)
    images = sorted({row % count for row in error.rows})
    names = ", ".join(map(training.data.train.describe, images[:5])) + ", …" * (len(images) > 5)
    what = f"the features of {len(images)} images are not finite ({names})"
    return DataError(f"{what}; check these images and the weights of the backbone")


def set_layer(training: TrainingRun, found: Fitted) -> None:
    """Copy the fitted layer into the head."""
    values = {"weight": found.weight, "bias": found.bias}
    for parameter in training.network.get_parameters_of(("head",)):
        parameter.set_data(Tensor(values[parameter.name.rsplit(".", 1)[1]]))


def _begin_average(training: TrainingRun) -> None:
    """Start the moving average, if there is one, with the fitted head."""
    for parameter in training.network.get_parameters_of(("head",)):
        if parameter.name in training.trainer.average:
            training.trainer.average[parameter.name].set_data(Tensor(parameter.asnumpy()))


def score_images(found: Fitted, labels: NDArray[np.int64]) -> NDArray[np.void]:
    """Return the out-of-fold ``SCORE`` of each image that has one."""
    judged = np.flatnonzero(found.judged)
    return metrics.score_images(judged, softmax(found.logits[judged]), labels[judged])


def evaluate(scored: NDArray[np.void], labels: NDArray[np.int64], classes: int) -> Evaluation | None:
    """Return the out-of-fold metrics; None if there are too few images."""
    if not len(scored):
        return None
    confusion = metrics.count_pairs(scored, labels[scored["index"]], classes)
    return Evaluation(
        metrics=metrics.compute_metrics(scored, confusion),
        confusion=confusion,
        scored=scored,
    )


def describe_fit(found: Fitted, estimate: Evaluation | None, count: int) -> dict[str, Any]:
    """Return how the head was fitted, as JSON."""
    hits, judged = 0 if estimate is None else int(np.trace(estimate.confusion)), int(found.judged.sum())
    report: dict[str, Any] = {"strength": found.strength, "class_weights": found.choice, "folds": count}
    if estimate is None:
        return report
    report["judged_folds"] = count if found.judged.all() else 1
    if found.macro_f1_error is not None:
        report["compared"] = {**found.macro_f1, "standard_error": found.macro_f1_error}
    low, high = estimate_interval(hits, judged)
    scores = {name: round(value, 6) for name, value in estimate.metrics.items()}
    return {**report, "images": judged, **scores, "accuracy_low": low, "accuracy_high": high}


def _say(training: TrainingRun, report: dict[str, Any]) -> None:
    fitted = f"head fitted: L2 strength {report['strength']:g}"
    if "accuracy" not in report:
        names = {*training.data.train.groups}
        why = (
            "all images are in one group"
            if len(names) == 1 and None not in names
            else "too few classes have two different images"
        )
        training.run.say(f"{fitted}; its accuracy cannot be estimated: {why}")
        return
    interval = f"{report['accuracy_low']:.3f} to {report['accuracy_high']:.3f}"
    accuracy = f"accuracy {report['accuracy']:.3f} (95 % interval {interval}), macro-F1 {report['macro_f1']:.3f}"
    by = f"{report['folds']} folds" if report["judged_folds"] > 1 else f"one of {report['folds']} folds"
    training.run.say(f"{fitted}, chosen by {by}; out of fold: {accuracy}")
    if "compared" in report:
        chosen, compared = report["class_weights"], report["compared"]
        scores = f"{compared['sqrt']:.3f} with square-root weights and {compared['none']:.3f} without"
        error = f"standard error of the difference {compared['standard_error']:.3f}"
        training.run.say(f"loss.class_weights=measured chose {chosen}: macro-F1 out of fold {scores} ({error})")
