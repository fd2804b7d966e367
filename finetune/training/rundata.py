"""Data of a run: scanned and split as the plan says, or as the run that is resumed was split."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from finetune.data import loading as datas
from finetune.data import splitfile
from finetune.errors import UsageError
from finetune.plugins import named
from finetune.training import defaults

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.data.loading import Data
    from finetune.data.scan import Progress
    from finetune.data.splits import Method
    from finetune.recipe.models import Recipe
    from finetune.recipe.plan import Plan


def split_method(resume: Path | None) -> Method:
    """Return how the run in a folder split its images, for it to keep its split."""
    if resume is None:
        return "hash"
    try:
        about = json.loads((resume / "data.json").read_text(encoding="utf-8"))
        return "stratified" if about["split"]["method"] == "stratified" else "hash"
    except (OSError, ValueError, KeyError, TypeError):  # runs of earlier versions have no split.csv
        return "hash" if (resume / splitfile.NAME).exists() else "stratified"


def load_data(plan: Plan, catalogue: Catalogue, workers: int, progress: Progress, *, method: Method = "hash") -> Data:
    """Return the data of a plan, scanned, split and with one class map.

    A plan whose ``validate.folds`` is open must be one for which only the number of images decides that.
    """
    chosen, recipe = plan.dataset, plan.recipe
    with named(catalogue.origin(chosen.component), f"build of dataset '{chosen.component.name}'"):
        whose = f"{origin}: " if (origin := catalogue.origin(chosen.component)).foreign else ""
        return datas.load(
            chosen.component,
            chosen.options,
            recipe.dataset,
            recipe.seed,
            workers,
            progress,
            whose=whose,
            method=method,
            folds=partial(defaults.choose_folds, recipe),
            color=recipe.image.color,
        )


def check_mixing(recipe: Recipe, images: int, processes: int) -> None:
    """Raise ``UsageError`` where mixup or cutmix would never find a second image to blend with.

    A batch size that is yet to be chosen counts as large enough.
    """
    used = [name for name in ("mixup", "cutmix") if getattr(recipe.train, name)]
    size = recipe.train.batch_size
    if used and min(images, images if size == "auto" else size // processes) < 2:
        each = " of each device" * (processes > 1)
        what = f"it blends pairs of images, and a batch{each} has one"
        raise UsageError(f"train.{used[0]} has no effect: {what}; raise train.batch_size or set train.{used[0]}=0")
