"""The fitted head, against scikit-learn, and with data that leave little to fit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from finetune.data.targets import balance_weights, make_soft_targets
from finetune.fitting import fit
from finetune.fitting.data import Choice, Fitted, NotFiniteError, Step
from finetune.fitting.fit import DEFAULT_STRENGTH, fit_head
from finetune.fitting.scores import calibrate_logits
from tests.fitting.samples import draw_features, make_data


def predict(fitted: Fitted, features: np.ndarray) -> np.ndarray:
    """Return logits of raw features, with mean 0 in each row."""
    logits = features.astype(np.float64) @ fitted.weight.T.astype(np.float64) + fitted.bias
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def reference(features: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    """Return scikit-learn's logits of standardised features."""
    scaled = (features.astype(np.float64) - features.mean(axis=0)) / features.std(axis=0)
    model = LogisticRegression(C=1.0 / (strength * len(labels)), tol=1e-9, max_iter=5000).fit(scaled, labels)
    logits = model.decision_function(scaled)
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


PLAIN: dict[str, Any] = {"exponent": 1.0, "calibrated": False}


@pytest.mark.parametrize(("rows", "columns", "classes"), [(300, 20, 4), (60, 100, 3)])
@pytest.mark.parametrize("strength", [0.1, 0.003])
def test_equals_scikit_learn(rows: int, columns: int, classes: int, strength: float) -> None:
    features, labels = draw_features(rows, columns, classes)
    fitted = fit_head(make_data(features, labels), classes, strengths=[strength], tolerance=1e-11, **PLAIN)
    wanted = reference(features, labels, strength)
    assert np.abs(predict(fitted, features) - wanted).max() < 1e-3
    assert (predict(fitted, features).argmax(axis=1) == wanted.argmax(axis=1)).all()


def test_default_tolerance_predicts_like_scikit_learn() -> None:
    features, labels = draw_features(600, 40, 6, apart=0.5)
    fitted = fit_head(make_data(features[:400], labels[:400]), 6, **PLAIN)
    scaled = (features - features[:400].mean(axis=0)) / features[:400].std(axis=0)
    model = LogisticRegression(C=1.0 / (fitted.strength * 400), tol=1e-8, max_iter=5000).fit(scaled[:400], labels[:400])
    assert (predict(fitted, features[400:]).argmax(axis=1) == model.predict(scaled[400:])).mean() >= 0.995


def test_minimises_the_loss_of_training() -> None:
    """At the optimum the gradient of the loss with soft targets equals minus the penalty's."""
    features, labels = draw_features(200, 10, 3)
    keep = np.flatnonzero((labels > 0) | (np.arange(200) < 60))
    features, labels = features[keep], labels[keep]
    weights = balance_weights(labels, 3)
    fitted = fit_head(
        make_data(features, labels),
        3,
        smoothing=0.1,
        choices=[Choice(name="auto", class_weights=weights)],
        strengths=[0.01],
        tolerance=1e-12,
        **PLAIN,
    )
    targets = make_soft_targets(labels, np.ones(len(labels), np.float32), 3, 0.1, weights).astype(np.float64)
    logs = log_softmax(predict(fitted, features), axis=1)
    assert fitted.loss == pytest.approx(-(targets * logs).sum() / targets.sum(), rel=1e-5)
    residual = (np.exp(logs) * targets.sum(axis=1, keepdims=True) - targets) / targets.sum()
    deviation = features.std(axis=0, dtype=np.float64)
    scaled = (features - features.mean(axis=0, dtype=np.float64)) / deviation
    assert residual.sum(axis=0) == pytest.approx(0.0, abs=1e-5)
    assert residual.T @ scaled == pytest.approx(-0.01 * fitted.weight * deviation, abs=1e-5)


def test_out_of_fold_logits_come_from_the_other_folds() -> None:
    features, labels = draw_features(80, 6, 2, apart=0.4)
    data = make_data(features, labels)
    fitted = fit_head(data, 2, strengths=[0.01])
    assert fitted.judged.all()
    rest = data.folds != 0
    part = replace(data, features=features[rest], labels=labels[rest], folds=data.folds[rest], plain=data.plain[rest])
    alone = predict(fit_head(part, 2, strengths=[0.01], tolerance=1e-10), features[~rest])
    # The rest alone has another scale, so the penalty is a little different.
    assert np.corrcoef(alone[:, 0], (fitted.logits[~rest, 0] - fitted.logits[~rest, 1]))[0, 1] > 0.995
    assert fitted.path[0].accuracy == pytest.approx((fitted.logits.argmax(axis=1) == labels).mean())


def test_labels_of_a_fold_do_not_reach_its_logits() -> None:
    features, labels = draw_features(100, 8, 2)
    data = make_data(features, labels)
    turned = np.where(data.folds == 1, 1 - labels, labels)
    one, other = (
        fit_head(each, 2, strengths=[0.01], calibrated=False) for each in (data, replace(data, labels=turned))
    )
    assert np.array_equal(one.logits[data.folds == 1], other.logits[data.folds == 1])
    assert not np.array_equal(one.logits[data.folds == 0], other.logits[data.folds == 0])


def test_noise_says_little_and_clear_classes_much() -> None:
    features, labels = draw_features(120, 30, 3, apart=0.0)
    noise = fit_head(make_data(features, labels), 3)
    assert np.abs(noise.logits - noise.logits.mean(axis=1, keepdims=True)).max() < 0.5
    clear = fit_head(make_data(*draw_features(120, 30, 3, apart=2.0)), 3)
    assert clear.path[-1].accuracy == 1.0
    assert clear.path[-1].log_loss < 0.01


def test_augmented_rows_train_but_are_not_judged() -> None:
    features, labels = draw_features(60, 5, 2)
    data = make_data(features, labels)
    views = replace(
        data,
        features=np.concatenate([features, features + 0.1]),
        labels=np.tile(labels, 2),
        folds=np.tile(data.folds, 2),
        plain=np.repeat([True, False], 60),
    )
    fitted = fit_head(views, 2)
    assert fitted.logits.shape == (60, 2)
    assert fitted.judged.all()
    assert fit_head(data, 2).path[0].accuracy == pytest.approx(fitted.path[0].accuracy, abs=0.05)


SLIGHTLY = (("first", 1.0), ("second", 1.1))


def test_class_weights_are_chosen_by_macro_f1() -> None:
    features, labels = draw_features(800, 8, 2, apart=0.3)
    keep = np.flatnonzero((labels == 0) | (np.arange(800) % 16 == 1))
    data = make_data(features[keep], labels[keep])
    choices = [Choice(name="none"), Choice(name="balanced", class_weights=balance_weights(labels[keep], 2))]
    by_f1 = fit_head(data, 2, choices=choices, judge="macro_f1")
    assert by_f1.choice == "balanced"
    alone = [fit_head(data, 2, choices=[choice]) for choice in choices]
    assert chosen_step(alone[1]).macro_f1 > chosen_step(alone[0]).macro_f1
    assert np.array_equal(by_f1.weight, alone[1].weight)
    assert fit_head(data, 2, choices=choices, judge="loss").choice == "none"
    assert fit_head(data, 2, choices=choices[::-1], judge="macro_f1").choice == "balanced"  # by far the better one
    assert by_f1.macro_f1 == {each.choice: chosen_step(each).macro_f1 for each in alone}


def test_choices_that_macro_f1_cannot_tell_apart_are_the_last() -> None:
    data = make_data(*draw_features(60, 8, 3, apart=0.5))
    choices = [Choice(name="first"), Choice(name="second")]
    assert fit_head(data, 3, choices=choices, judge="macro_f1").choice == "second"
    slightly = [Choice(name=name, class_weights=np.array([1.0, 1.0, last], np.float32)) for name, last in SLIGHTLY]
    found = fit_head(data, 3, choices=slightly, judge="macro_f1")
    assert found.macro_f1_error is not None
    assert abs(found.macro_f1["first"] - found.macro_f1["second"]) <= found.macro_f1_error
    assert found.choice == "second"


def chosen_step(fitted: Fitted) -> Step:
    """Return the scores of the chosen strength."""
    return next(step for step in fitted.path if (step.strength, step.choice) == (fitted.strength, fitted.choice))


def test_many_rows_are_judged_by_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "ONE_FOLD", 50)
    features, labels = draw_features(100, 5, 2)
    data = make_data(features, labels)
    fitted = fit_head(data, 2)
    assert (fitted.judged == (data.folds == 0)).all()
    assert np.isfinite(fitted.logits[fitted.judged]).all()


def test_a_hessian_of_a_sample_leads_to_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = draw_features(3000, 10, 3, apart=0.3)
    data = make_data(features, labels)
    exact = fit_head(data, 3, strengths=[0.01], tolerance=1e-9, calibrated=False)
    monkeypatch.setattr("finetune.fitting.logistic.BLOCK", 100)
    sampled = fit_head(data, 3, strengths=[0.01], tolerance=1e-9, calibrated=False)
    assert np.abs(predict(sampled, features) - predict(exact, features)).max() < 1e-2
    assert sampled.passes != exact.passes


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_two_images(classes: int) -> None:
    features, labels = draw_features(2, 4, min(classes, 2))
    fitted = fit_head(make_data(features, labels), classes)
    assert fitted.strength == DEFAULT_STRENGTH
    assert not fitted.judged.any()
    assert (predict(fitted, features).argmax(axis=1) == labels).all()


def test_one_image_in_a_class() -> None:
    features, labels = draw_features(30, 4, 2)
    labels[7] = 2
    fitted = fit_head(make_data(features, labels), 3)
    assert np.isfinite(fitted.logits).all()
    assert fitted.logits[7].argmax() != 2


def test_a_thousand_classes_of_one_image() -> None:
    features, labels = draw_features(1000, 8, 1000)
    fitted = fit_head(make_data(features, labels), 1000)
    assert fitted.strength == DEFAULT_STRENGTH
    assert np.isfinite(fitted.weight).all()


@pytest.mark.parametrize("constant", [slice(None), slice(0, 3)])
def test_constant_features(constant: slice) -> None:
    features, labels = draw_features(40, 5, 2)
    features[:, constant] = 7.0
    fitted = fit_head(make_data(features, labels), 2)
    assert (fitted.weight[:, constant] == 0.0).all()
    assert np.isfinite(fitted.logits).all()


def test_separable_features_stay_finite() -> None:
    features, labels = draw_features(40, 3, 2, apart=1e4)
    fitted = fit_head(make_data(features * 1e6, labels), 2)
    assert np.isfinite(fitted.weight).all()
    assert fitted.path[-1].accuracy == 1.0


def test_one_class_has_weight_0() -> None:
    features, labels = draw_features(60, 5, 3)
    choice = Choice(name="given", class_weights=np.array([1.0, 0.0, 1.0], np.float32))
    fitted = fit_head(make_data(features, labels), 3, choices=[choice])
    assert np.isfinite(fitted.bias).all()
    assert not (predict(fitted, features).argmax(axis=1) == 1).any()


def test_all_classes_have_weight_0() -> None:
    features, labels = draw_features(60, 5, 3)
    fitted = fit_head(make_data(features, labels), 3, choices=[Choice(name="x", class_weights=np.zeros(3, np.float32))])
    assert np.abs(fitted.weight).max() == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    features, labels = draw_features(30, 4, 2)
    features[[3, 9], 2] = value
    with pytest.raises(NotFiniteError, match="rows 3, 9") as found:
        fit_head(make_data(features, labels), 2)
    assert found.value.rows == [3, 9]


def test_half_precision_rows() -> None:
    features, labels = draw_features(60, 5, 2)
    half = features.astype(np.float16)
    one, other = fit_head(make_data(half, labels), 2), fit_head(make_data(half.astype(np.float32), labels), 2)
    assert np.array_equal(one.weight, other.weight)


def test_check_may_stop_the_fit() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_head(make_data(*draw_features(30, 4, 2)), 2, check=stop)


CODE = """
import hashlib, numpy as np
from finetune.fitting.fit import fit_head
from tests.fitting.samples import draw_features, make_data
fitted = fit_head(make_data(*draw_features(300, 30, 5)), 5)
print(hashlib.sha256(fitted.weight.tobytes() + fitted.logits.tobytes()).hexdigest())
"""


def test_same_bytes_in_another_process() -> None:
    found = {subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(found) == 1
    assert len(found.pop()) == 65


@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_weaker_scaling_weighs_large_features_more(exponent: float) -> None:
    features, labels = draw_features(200, 10, 2, apart=0.5)
    scale = np.where(np.arange(10) < 5, 100.0, 1.0).astype(np.float32)
    data = make_data(features * scale, labels)
    for power in (exponent, 1.0):
        fitted = fit_head(data, 2, strengths=[1.0], exponent=power)
        effect = np.abs(fitted.weight[0] * data.features.std(axis=0))
        share = effect[:5].sum() / effect.sum()
        assert (share > 0.95) == (power != 1.0)


def test_the_strength_has_the_least_calibrated_loss() -> None:
    features, labels = draw_features(150, 20, 3, apart=0.35)
    data = make_data(features, labels)
    fitted = fit_head(data, 3)
    factor, least = calibrate_logits(fitted.logits, labels)
    assert factor == pytest.approx(1.0, rel=0.02)
    for strength in (step.strength for step in fitted.path):
        alone = fit_head(data, 3, strengths=[strength])
        assert calibrate_logits(alone.logits, labels)[1] >= least - 2e-3


def test_a_calibrated_head_differs_by_a_factor() -> None:
    features, labels = draw_features(150, 20, 3, apart=0.35)
    data = make_data(features, labels)
    fitted, plain = (fit_head(data, 3, smoothing=0.1, strengths=[1e-3], calibrated=each) for each in (True, False))
    factor = fitted.path[0].factor
    assert 0.01 < factor < 0.9  # a weak strength is too sure
    assert fitted.weight == pytest.approx(plain.weight * factor, rel=1e-4, abs=1e-6)
    assert fitted.logits == pytest.approx(plain.logits * factor, rel=1e-4, abs=1e-6)
    targets = make_soft_targets(labels, np.ones(150, np.float32), 3, 0.1, None).astype(np.float64)
    loss = -(targets * log_softmax(features @ fitted.weight.T + fitted.bias, axis=1)).sum() / 150
    assert fitted.loss == pytest.approx(loss, rel=1e-4)
