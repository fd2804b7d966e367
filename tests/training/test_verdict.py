"""What a finished run warns of: guessing, no better than the fitted head, stopped before the loss had settled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.training import finishing

Line = dict[str, Any]


def lines(train: list[float], valid: list[float] | None = None, *, first: int = 1, metric: str = "loss") -> list[Line]:
    found: list[Line] = [{"epoch": number, "train_loss": loss} for number, loss in enumerate(train, first)]
    for line, value in zip(found, valid or [], strict=False):
        line[f"val_{metric}"] = value
    return found


@pytest.mark.parametrize(
    ("accuracy", "macro_f1", "counts", "warned"),
    [
        (0.5, 1 / 3, [10, 10], True),  # always one of two classes
        (0.55, 0.5, [10, 10], False),
        (0.45, 0.45, [10, 10], False),  # worse than the commonest class, but it finds both
        (0.9, 0.9 / 1.9, [90, 10], True),
        (0.88, 0.7, [90, 10], False),  # finds the rare class at the cost of the common one
        (0.25, 0.1, [5, 5, 5, 5], True),
        (0.1, 0.05, [5, 5, 5, 5], True),
    ],
)
def test_a_result_that_guessing_has_too(accuracy: float, macro_f1: float, counts: list[int], warned: bool) -> None:
    line = {"epoch": 1, "val_accuracy": accuracy, "val_macro_f1": macro_f1}
    classes = ["ant", "bee", "cat", "dog"][: len(counts)]
    found = list(finishing.warn_of_guessing(line, np.array(counts), classes))
    assert bool(found) is warned
    if warned:
        share = max(counts) / sum(counts)
        said = f"the accuracy of {accuracy:.3f} is not better than always predicting 'ant' ({share:.3f}); check the"
        assert found[0].startswith(said)


def test_a_run_that_was_not_evaluated_is_not_called_guessing() -> None:
    assert list(finishing.warn_of_guessing({"epoch": 1}, np.array([3, 3]), ["ant", "bee"])) == []


@pytest.mark.parametrize(
    ("metric", "values", "restored", "warned"),
    [
        ("loss", [0.3, 0.5, 0.31], True, "val_loss 0.3100, and 0.3000 before; the fitted head is kept; lower"),
        ("loss", [0.3, 0.5, 0.29], True, None),
        ("loss", [0.3, 0.2, 0.4], True, None),  # the best epoch is kept
        ("loss", [0.3, 0.2, 0.4], False, "val_loss 0.4000, and 0.3000 before; the last epoch is kept, since eval"),
        ("accuracy", [0.9, 0.9, 0.8], True, "val_accuracy 0.9000, and 0.9000 before; the fitted head is kept; lower"),
        ("macro_f1", [0.6, 0.5, 0.7], True, None),
    ],
)
def test_training_that_did_not_improve_on_the_fitted_head(
    metric: str, values: list[float], restored: bool, warned: str | None
) -> None:
    history = lines([1.0, 0.5, 0.4], values, first=0, metric=metric)
    found = list(finishing.warn_below_fitted(history, metric, restored=restored))
    assert bool(found) is (warned is not None)
    if warned:
        assert found[0].startswith(f"training did not improve on the fitted head: {warned}")


def test_without_a_fitted_head_there_is_nothing_to_be_below() -> None:
    assert list(finishing.warn_below_fitted(lines([1.0, 0.5], [0.3, 0.5]), "loss", restored=True)) == []
    only_fitted = lines([1.0], [0.3], first=0)
    assert list(finishing.warn_below_fitted(only_fitted, "loss", restored=True)) == []


@pytest.mark.parametrize(
    ("train", "valid", "warned"),
    [
        ([2.0, 1.6, 1.3, 1.0], None, "it fell from 1.3 to 1 in the last epochs"),
        ([2.0, 1.6, 1.3, 1.0], [2.0, 1.7, 1.4, 1.1], "it fell from 1.4 to 1.1 in the last epochs"),
        ([2.0, 1.6, 1.3, 1.0], [1.0, 0.9, 0.9, 0.9], None),  # only what is trained on still gets better
        ([2.0, 1.6, 1.3, 1.0], [1.0, 0.8, 0.9, 1.1], None),
        ([2.0, 1.6, 1.3, 1.0], [2.0], "it fell from 1.3 to 1 in the last epochs"),  # evaluated too rarely to say
        ([2.0, 1.6, 1.3, 1.29], None, None),
        ([0.008, 0.004, 0.002, 0.001], None, None),  # by half, but of nothing
        ([2.0, 1.0], None, None),  # too few epochs to say
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5], None, "it fell from 1 to 0.5 in the last epochs"),
    ],
)
def test_a_loss_that_still_falls(train: list[float], valid: list[float] | None, warned: str | None) -> None:
    found = list(finishing.warn_of_unsettled([{"epoch": 0, "train_loss": 9.0, "val_loss": 9.0}, *lines(train, valid)]))
    assert found == ([] if warned is None else [f"training ended before the loss had settled: {warned}; {REMEDY}"])


REMEDY = "raise train.epochs or optimizer.lr"
