"""Numbers that are none: they end a run before anything of it becomes a checkpoint or the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import hookimpl
from finetune.errors import DivergedError, FinetuneError
from finetune.model.evaluation import Predictor
from finetune.training import saving
from finetune.training.trainer import Trainer
from tests.faults.small import recipe
from tests.features.tiny import run

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]


def kept(found: Path) -> list[int]:
    """Return the steps of the checkpoints, all of whose numbers are finite."""
    saved = [saving.load_checkpoint(path) for path in sorted((found / "checkpoints").glob("*.safetensors"))]
    assert all(np.isfinite(array).all() for each in saved for array in each.arrays.values())
    return sorted({each.state["step"] for each in saved})


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_n2_weights_that_are_no_numbers_while_the_loss_is_one(
    value: float, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def broken(self: Trainer, *args: Any) -> float:
        loss = step(self, *args)
        if args[1:] == (2, 2):  # the last step of the second epoch, so that no loss is computed from it
            bias = self.network.trainable_params()[-1]
            bias.set_data(bias * np.float32(value))
        return loss

    monkeypatch.setattr(Trainer, "step", broken)
    with pytest.raises(DivergedError, match=r"weight 'head\.fc\.bias' is not finite after epoch 2; lower"):
        run(recipe(photos, tmp_path))
    assert kept(tmp_path / "small-001") == [3]


def test_n3_a_gradient_that_is_not_finite(photos: Path, tmp_path: Path) -> None:
    what = recipe(photos, tmp_path, optimizer={"use": "sgd", "lr": 1e38}, train={"epochs": 2, "batch_size": 64})
    with pytest.raises(DivergedError, match=r"not finite|the loss became (nan|inf)") as caught:
        run(what)
    assert caught.value.exit_code == 5
    assert kept(tmp_path / "small-001") in ([], [1])


def test_n5_a_validation_loss_that_is_no_number_is_never_the_best(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Predictor.evaluate

    def broken(self: Predictor, *args: Any) -> Any:
        found = evaluate(self, *args)
        found.metrics["loss"] = float("nan")
        return found

    class Broken:
        @hookimpl
        def finetune_epoch_start(self, epoch: int) -> None:
            if epoch == 2:
                monkeypatch.setattr(Predictor, "evaluate", broken)

    with pytest.raises(FinetuneError, match="the validation loss is not finite in epoch 2"):
        run(recipe(photos, tmp_path), watchers=[Broken()])
    assert kept(tmp_path / "small-001") == [3]
    monkeypatch.undo()
    made = run(recipe(photos, tmp_path), resume=tmp_path / "small-001")
    assert made.run.best is not None
    assert np.isfinite(made.run.best.value)
