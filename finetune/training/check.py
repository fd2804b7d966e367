"""Checks of ``finetune check``: everything that a run needs, without training or writing anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import DataError, DownloadError, FinetuneError, ResourceError, WeightsError
from finetune.features import entries
from finetune.machine.environment import count_usable_cores, read_peak_memory_mb
from finetune.machine.memory import read_available_memory_mb
from finetune.network import engines, network
from finetune.network.network import Trunk, is_statistic
from finetune.recipe.models import AdamW
from finetune.training import changes, finished, preflight, saving, trial
from finetune.training.frozen_stages import select_fitting
from finetune.training.phase_data import PhaseData
from finetune.training.preflight import find_existing
from finetune.training.prepare import Prepared, prepare
from finetune.training.records import load_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan

MB = 2**20


def check(plan: Plan, catalogue: Catalogue, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Prepare a run without starting it and return a report; raises the error that would have stopped the run."""
    preflight.check_machine(plan)
    try:
        prepared = prepare(plan, catalogue, say=say, tried=trial.CHECK)
    except (WeightsError, DownloadError) as error:
        raise add_data_error(error, plan) from None
    return build_report(prepared, say)


def check_resumed(
    plan: Plan,
    catalogue: Catalogue,
    folder: Path,
    *,
    extend: int | None,
    allow_changed: bool,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Prepare to resume the run in a folder and return a report like ``check``; nothing is written."""
    plan, done, extended = finished.decide_resume(
        folder, plan, catalogue, extend=extend, allow_changed=allow_changed, say=say
    )
    preflight.check_machine(plan, folder)
    prepared = prepare(plan, catalogue, resume=folder, say=say, tried=trial.CHECK)
    if done is None:
        state = saving.load_newest(folder / "checkpoints")[0].state
        changes.check_same(state, prepared, say, folder=folder, allow=allow_changed, extended=extended)
    return build_report(prepared, say)


def build_report(prepared: Prepared, say: Callable[[str], None]) -> dict[str, Any]:
    """Return everything that is known about a run before its first step, as JSON."""
    plan, recipe = prepared.plan, prepared.plan.recipe
    steps = -(-len(prepared.data.train) // (recipe.train.batch * recipe.train.accumulate))
    return {
        "recipe": recipe.name,
        "notes": list(plan.notes),
        "device": {
            "name": prepared.device.name,
            "why": prepared.device.why,
            "isa": prepared.device.isa,
            "amp": prepared.device.amp,
        },
        "trunk": engines.describe_expected(recipe.inference, prepared.device.name),
        "data": prepared.data.report,
        "weights": prepared.weights,
        "stages": list(prepared.network.names),
        "phases": describe_phases(prepared),
        "batch_size": recipe.train.batch,
        "steps_per_epoch": steps,
        "steps": steps * recipe.train.epochs,
        "features": describe_features(prepared, say),
        "memory": check_memory(prepared),
        "disk": check_disk(prepared),
    }


def add_data_error(error: FinetuneError, plan: Plan) -> FinetuneError:
    """Add an error in the data, which would be found only later, to an error in the weights."""
    try:
        load_data(plan, count_usable_cores(), lambda split, done, total: None)
    except DataError as other:
        return type(error)(f"{error}\n{other}")
    return error


def describe_phases(prepared: Prepared) -> list[dict[str, Any]]:
    return [
        {
            "epochs": [phase.first, phase.last],
            "trainable": list(phase.trainable),
            "parameters": count_trainable_values(prepared, phase.trainable),
        }
        for phase in prepared.phases
    ]


def count_trainable_values(prepared: Prepared, stages: tuple[str, ...]) -> int:
    """Return how many numbers the optimizer updates if ``stages`` train."""
    return sum(p.size for p in prepared.network.get_parameters_of(stages) if not is_statistic(p))


def describe_features(prepared: Prepared, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return for each phase with features the stage that they follow, their size in MB, and whether they fit."""
    phase_data, found = PhaseData(prepared, None, say), []
    for phase in prepared.phases:
        frozen = network.find_trunk(prepared.network.names, phase.trainable)
        phase_data.enter(len(frozen), epochs=range(phase.first, phase.last + 1), last=phase == prepared.phases[-1])
        if not frozen:
            continue
        sizes = phase_data.views.compute_sizes(find_feature_shape(prepared, len(frozen)))
        kept = (
            select_fitting(sizes, phase_data.cache.limit)
            if prepared.plan.recipe.cache.features != "off"
            else frozenset[str]()
        )
        lacking = entries.count_missing_bytes(sum(sizes[name] for name in kept))
        found.append(
            {
                "phase": phase.number,
                "after": frozen[-1],
                "mb": {name: round(size / MB, 1) for name, size in sizes.items()},
                "kept": [name for name in sizes if name in kept],
                "disk_lacks_mb": round(lacking / MB, 1),
                "writable": os.access(find_existing(entries.locate_cache()), os.W_OK | os.X_OK)
                and find_existing(entries.locate_cache()).is_dir(),
            }
        )
    phase_data.close()
    return found


def find_feature_shape(prepared: Prepared, stages: int) -> tuple[int, ...]:
    """Return the shape of one image's features after the first ``stages`` stages."""
    cell = Trunk(prepared.network, stages, prepared.matmul_form)
    side = prepared.image.size
    return engines.compute_reference(cell, np.zeros((1, 3, side, side), np.float32)).shape[1:]


def check_memory(prepared: Prepared) -> dict[str, float]:
    """Estimate the least memory in MB: the process plus weights, gradients, optimizer state and batches.

    Raises ``ResourceError`` if less is free.
    """
    recipe = prepared.plan.recipe
    most = max(count_trainable_values(prepared, phase.trainable) for phase in prepared.phases)
    copies = 1 + (2 if isinstance(recipe.optimizer, AdamW) else 1) + (recipe.train.accumulate > 1)
    weights = sum(p.size for p in prepared.network.get_parameters()) * (2 if recipe.train.ema else 1)
    batches = 3 * recipe.train.batch * 3 * prepared.image.size**2
    own = read_peak_memory_mb() or 0.0
    needed = 4 * (weights + copies * most + batches) / MB
    free = read_available_memory_mb()
    if free is None:
        return {"at_least_mb": round(own + needed, 1)}
    if needed > free:
        have = f"but only {free:.0f} MB are free"
        raise ResourceError(f"the run needs more than {needed:.0f} MB of memory, {have}; lower train.batch_size")
    return {"at_least_mb": round(own + needed, 1), "free_mb": round(free, 1)}


def check_disk(prepared: Prepared) -> dict[str, float]:
    """Return the size of checkpoints and model, and the free space of their disk, in MB."""
    recipe = prepared.plan.recipe
    most = max(count_trainable_values(prepared, phase.trainable) for phase in prepared.phases)
    moments = 2 if isinstance(recipe.optimizer, AdamW) else 1
    weights = sum(p.size for p in prepared.network.get_parameters())
    one = 4 * (weights * (2 if recipe.train.ema else 1) + moments * most) / MB
    needed = 4 * one + 4 * weights / MB  # two to keep, the best, the one being written, and the model
    free = preflight.check_output(recipe.output)
    if free is None:
        return {"checkpoints_mb": round(needed, 1)}
    if needed > free:
        have = f"but only {free:.0f} MB are free"
        need = f"checkpoints need {max(needed, 1):.0f} MB in {recipe.output}"
        raise ResourceError(f"{need}, {have}; free some disk space or set --output")
    return {"checkpoints_mb": round(needed, 1), "free_mb": round(free, 1)}
