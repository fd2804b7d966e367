"""Automatic batch size: limits ``train.batch_size: auto`` to what fits into the free memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.machine.kind import import_mindspore
from finetune.machine.memory import read_available_memory_mb
from finetune.network.network import find_trunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetune.distributed.world import World
    from finetune.network.network import Network
    from finetune.recipe.plan import Plan
    from finetune.training.phases import Phase

SHARE = 0.6  # of the free memory
# Bytes that a training step holds for each byte that cells return in the forward pass, by the peak memory of a process:
# 1.1 if all of ResNeXt-50 trains and 1.9 if its last stage does (docs/performance.md).
HELD = 2.0
SMALLER = 4  # the measured image has this fraction of the side, since one of full size takes seconds
MB = 2**20


def fit_memory(
    plan: Plan, network: Network, phases: Sequence[Phase], *, side: int, world: World, say: Callable[[str], None]
) -> Plan:
    """Return a plan whose automatic batch size fits the free memory; report the size and the reason."""
    size, steps = plan.recipe.train.batch, "chosen by the number of images"
    first = min((len(find_trunk(network.names, phase.trainable)) for phase in phases), default=len(network.stages))
    each, free = HELD * measure_activations(network, first, side) / MB, read_available_memory_mb()
    size, why = limit_size(size, steps, each, None if free is None else SHARE * free, world.size)
    size, why = world.broadcast([size, why])
    if plan.recipe.train.length:
        say(f"train.batch_size=auto chose {size}: {why}")
    return set_batch_size(plan, size)


def limit_size(size: int, why: str, each_mb: float, memory_mb: float | None, processes: int) -> tuple[int, str]:
    """Return a batch size of at most ``size``, a power of two for each process, and the reason for it.

    ``each_mb`` is the memory for one image, ``memory_mb`` the memory available to each process.
    """
    if memory_mb is None or each_mb <= 0 or size * each_mb <= processes * memory_mb:
        return size, why
    share = max(1, int(memory_mb / each_mb))
    why = f"{memory_mb:,.0f} MB of memory fit this many images of {each_mb:,.1f} MB"
    return processes * (1 << (share.bit_length() - 1)), why


def measure_activations(network: Network, first: int, side: int) -> float:
    """Return the bytes that all cells from stage number ``first`` return for an image of ``side`` pixels.

    They are measured on a smaller image and scaled by the area.
    """
    ms = import_mindspore()
    small = max(32, side // SMALLER)
    mode, training, numbers, hooks = ms.get_context("mode"), network.training, [0], []

    def count(cell: object, given: object, returned: object) -> None:
        numbers[0] += int(getattr(returned, "size", 0))

    stages = list(network.stages)
    for stage in stages[first:]:
        hooks += [cell.register_forward_hook(count) for _, cell in stage.cells_and_names() if not list(cell.cells())]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        network.set_train(False)
        maps = ms.Tensor(np.zeros((1, 3, small, small), np.float32))
        for stage in stages:
            maps = stage(maps)
    finally:
        for hook in hooks:
            hook.remove()
        network.set_train(training)
        ms.set_context(mode=mode)
    return 4.0 * numbers[0] * (side / small) ** 2


def set_batch_size(plan: Plan, size: int) -> Plan:
    train = plan.recipe.train.model_copy(update={"batch_size": size})
    return replace(plan, recipe=plan.recipe.model_copy(update={"train": train}))
