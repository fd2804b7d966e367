"""Judge: evaluates a run's network on a part of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.model.evaluation import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.model.evaluation import Evaluation
    from finetune.training.phase_data import PhaseData
    from finetune.training.prepare import Prepared


class Judge:
    """Evaluates the network of a run; keeps the compiled graphs until ``reset``."""

    def __init__(self, prepared: Prepared, say: Callable[[str], None]) -> None:
        self.prepared, self.say = prepared, say
        self.predictors: dict[int, Predictor] = {}
        self.temperature = 1.0  # of a finished network

    def reset(self) -> None:
        """Drop the compiled graphs, because the phase and so the inputs changed."""
        self.predictors = {}

    def evaluate(self, part: str, check: Callable[[], None], phase_data: PhaseData, *, others: bool) -> Evaluation:
        """Evaluate the network on a part of the data.

        ``others`` tells that the network has different weights than the ones in training, so features of trained
        stages cannot be used.
        """
        prepared = self.prepared
        first = 0 if others and not phase_data.frozen.is_fitting() else phase_data.first
        if first not in self.predictors:
            self.predictors[first] = Predictor(
                prepared.network,
                prepared.plan.recipe.inference,
                first=first,
                matmul_form=prepared.matmul_form,
                device=prepared.device.name,
                say=self.say,
            )
        predictor = self.predictors[first]
        predictor.temperature = self.temperature
        predictor.refresh()
        batches = phase_data.get_evaluation_batches(part, check) if first else phase_data.get_loader(part)
        evaluation = predictor.evaluate(batches, len(prepared.data.classes), check, prepared.world)
        predictor.rest()
        return evaluation
