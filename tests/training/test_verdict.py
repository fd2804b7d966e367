"""What a finished run warns of: guessing, epochs that did not help, a loss that was still falling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.training import verdict

pytestmark = pytest.mark.once

LABELS = np.array([0] * 6 + [1] * 4)


def history(*losses: float, first: int = 1, **values: list[float]) -> list[dict[str, Any]]:
    """Return the lines of epochs, with a training loss and a value of each metric."""
    lines: list[dict[str, Any]] = [{"epoch": epoch, "train_loss": loss} for epoch, loss in enumerate(losses, first)]
    for name, numbers in values.items():
        for line, number in zip(lines, numbers, strict=True):
            line[f"val_{name}"] = number
    return lines


@pytest.mark.parametrize(("accuracy", "warns"), [(0.5, True), (0.6, True), (0.61, False)])
def test_no_better_than_the_commonest_class(accuracy: float, warns: bool) -> None:
    found = list(verdict.guessing({"val_accuracy": accuracy}, LABELS, ("rose", "tulip")))
    assert len(found) == warns
    if warns:
        assert found[0].startswith(f"the accuracy of {accuracy:.3f} is no better than always answering 'rose' (0.600);")
    assert list(verdict.guessing({}, LABELS, ("rose", "tulip"))) == []


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("loss", [0.5, 0.6, 0.5], "0.5000"),
        ("accuracy", [0.9, 0.8, 0.85], "0.8500"),
        ("loss", [0.5, 0.4, 0.9], None),
        ("accuracy", [0.9, 0.91, 0.1], None),
        ("loss", [0.5], None),
    ],
)
def test_training_that_did_not_improve_on_the_fitted_head(metric: str, values: list[float], best: str | None) -> None:
    lines = history(*([0.1] * len(values)), first=0, **{metric: values})
    found = list(verdict.below_fitted(lines, metric))
    assert len(found) == (best is not None)
    if best:
        said = (
            f"training did not improve on the fitted head: val_{metric} {best} against {values[0]:.4f}, which is kept;"
        )
        assert found[0].startswith(said)


def test_a_run_without_a_fitted_head_is_not_compared_with_one() -> None:
    assert list(verdict.below_fitted(history(0.1, 0.1, loss=[0.5, 0.6]), "loss")) == []


@pytest.mark.parametrize(
    ("losses", "warns"),
    [
        ([1.0, 0.8, 0.6, 0.4], True),
        ([0.0, 1.0, 0.8, 0.6, 0.4], True),
        ([1.0, 0.5, 0.41, 0.4], False),
        ([1.0, 0.8, 0.6], False),
        ([0.1, 0.05, 0.006, 0.003], False),
        ([0.4, 0.5, 0.6, 0.7], False),
    ],
)
def test_a_loss_that_still_falls(losses: list[float], warns: bool) -> None:
    found = list(verdict.unsettled(history(*losses, first=int(losses[0] != 0.0))))
    assert len(found) == warns
    if warns:
        said = (
            "training ended before the loss had settled: it fell from 0.6 to 0.4 in the last epochs; raise train.epochs"
        )
        assert found[0].startswith(said)


def test_a_validation_loss_that_rises_again_has_settled() -> None:
    lines = history(1.0, 0.8, 0.6, 0.4, loss=[0.9, 0.7, 0.6, 0.65])
    assert list(verdict.unsettled(lines)) == []
    lines = history(1.0, 0.8, 0.6, 0.4, loss=[0.9, 0.7, 0.6, 0.55])
    assert len(list(verdict.unsettled(lines))) == 1


def test_the_line_of_the_epoch_that_is_kept() -> None:
    lines = history(0.3, 0.2, 0.1, first=0)
    assert verdict.kept_line(lines, 1) is lines[1]
    assert verdict.kept_line(lines, 9) is lines[-1]
