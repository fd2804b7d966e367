"""Hook specifications: components that plugins offer, downloads of weights, and the events of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from finetune.components import Audit, Augmentation, Backbone, Callback, Dataset, Freezer, Weights
    from finetune.run import Run

PROJECT = "finetune"
API = 1  # version of these hooks; a plugin may set `finetune_api = 1` in its module
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# Catalogue: components that recipes can select


@hookspec
def finetune_backbones() -> Iterable[Backbone]:  # type: ignore[empty-body]
    """Return the backbones that this plugin offers."""


@hookspec
def finetune_datasets() -> Iterable[Dataset]:  # type: ignore[empty-body]
    """Return the datasets that this plugin offers."""


@hookspec
def finetune_augmentations() -> Iterable[Augmentation]:  # type: ignore[empty-body]
    """Return the augmentations that this plugin offers."""


@hookspec
def finetune_freezers() -> Iterable[Freezer]:  # type: ignore[empty-body]
    """Return the freezing policies that this plugin offers."""


@hookspec
def finetune_callbacks() -> Iterable[Callback]:  # type: ignore[empty-body]
    """Return the callbacks that this plugin offers."""


@hookspec
def finetune_audits() -> Iterable[Audit]:  # type: ignore[empty-body]
    """Return the checks that this plugin offers to audits."""


# Downloads


@hookspec(firstresult=True)
def finetune_fetch_weights(weights: Weights, cache: Path) -> Path | None:
    """Return a local file with ``weights``, stored below ``cache``; None passes the request to the next plugin."""


# Events, in the order in which a run fires them


@hookspec
def finetune_run_start(run: Run) -> None:
    """Act before the first epoch: data and network are ready, and nothing has trained in this process."""


@hookspec
def finetune_epoch_start(run: Run, epoch: int) -> None:
    """Act before an epoch, counted from 1; ``run.trainable`` are the stages that will train."""


@hookspec
def finetune_step_end(run: Run, step: int, loss: float) -> None:
    """Act after an optimizer step, counted from 1 over the entire run; ``loss`` is the mean over its images."""


@hookspec
def finetune_epoch_end(run: Run, epoch: int, metrics: dict[str, float]) -> None:
    """Act after an epoch and its evaluation; ``metrics`` is the epoch's line of ``metrics.jsonl``."""


@hookspec
def finetune_checkpoint_saved(run: Run, epoch: int, path: Path, best: bool) -> None:
    """Act after a checkpoint is complete on disk; ``best`` is true if it has the best metric so far."""


@hookspec
def finetune_run_error(run: Run, error: BaseException) -> None:
    """Act when a run ends with an error or an interrupt, before ``finetune_run_end``."""


@hookspec
def finetune_run_end(run: Run) -> None:
    """Act when a run ends, whether it finished, failed or was interrupted."""
