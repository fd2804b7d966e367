"""Report of a finished run, written while its network is still in memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.catalogue import Catalogue
from finetune.display.failures import describe_error
from finetune.explain.explain import explain_images
from finetune.model.evaluation import read_folds
from finetune.model.model import Model
from finetune.report.run import write_report
from finetune.training.pictures import show_heat_maps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from finetune.explain.explanation import Explanation
    from finetune.training.training_run import TrainingRun


def list_images(training: TrainingRun) -> Sequence[Any]:
    """Return the images that the report is about: test, or else validation images, or those scored out of fold."""
    data = training.data
    if part := data.test or data.valid:
        return part.images
    found = read_folds(training.run.folder, data)
    return [] if found is None else data.train.select(found[0]["index"], "train").images


def write_page(training: TrainingRun, about: Mapping[str, Any]) -> None:
    """Write ``report.html``; a failure is only reported, since the run itself is complete."""
    prepared, run, data = training.prepared, training.run, training.data
    catalogue = Catalogue(prepared.plugins)
    model = Model(network=training.network, about=dict(about), image=prepared.image, catalogue=catalogue, say=run.say)

    def explain(images: Sequence[Any]) -> list[Explanation]:
        return explain_images(model, list(images), workers=prepared.workers)

    run._heat_maps = partial(show_heat_maps, model, data, training.evaluation)
    try:
        write_report(run.folder, explain, list_images(training))
    except Exception as error:  # of whatever is wrong with one image or record
        run.say(f"warning: report.html was not written: {describe_error(error)}; run finetune report {run.folder}")
