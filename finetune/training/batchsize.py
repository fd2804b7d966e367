"""``train.batch_size: auto``: no larger a batch than the memory allows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.machine.kind import quiet_mindspore
from finetune.machine.memory import available_memory_mb
from finetune.network.network import trunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetune.distributed.world import World
    from finetune.network.network import Network
    from finetune.recipe.plan import Plan
    from finetune.training.phases import Phase

SHARE = 0.6  # of the free memory
# Bytes that a training step holds for each byte that cells return on the way forward: 1.1 where all of ResNeXt-50
# trains and 1.9 where its last stage does, by the peak memory of a process (docs/performance.md).
HELD = 2.0
SMALLER = 4  # times the side of the image that is counted: one of full size takes seconds
MB = 2**20


def fit_memory(
    plan: Plan, network: Network, phases: Sequence[Phase], *, side: int, world: World, say: Callable[[str], None]
) -> Plan:
    """Return a plan whose batch size, which nobody asked for, fits the free memory; say what was chosen and why."""
    size, steps = plan.recipe.train.batch, "chosen by the number of images"
    first = min((len(trunk(network.names, phase.trainable)) for phase in phases), default=len(network.stages))
    each, free = HELD * activations(network, first, side) / MB, available_memory_mb()
    size, why = limit(size, steps, each, None if free is None else SHARE * free, world.size)
    size, why = world.from_first([size, why])
    if plan.recipe.train.length:
        say(f"train.batch_size=auto chose {size}: {why}")
    return with_size(plan, size)


def limit(size: int, why: str, each_mb: float, memory_mb: float | None, processes: int) -> tuple[int, str]:
    """Return a batch size that is at most ``size``, a power of two for each process, and what bounds it.

    ``each_mb`` is what one image takes, ``memory_mb`` what there is for all.
    """
    if memory_mb is None or each_mb <= 0 or size * each_mb <= processes * memory_mb:
        return size, why
    share = max(1, int(memory_mb / each_mb))
    return processes * (1 << (share.bit_length() - 1)), f"{memory_mb:,.0f} MB hold as many images of {each_mb:,.1f} MB"


def activations(network: Network, first: int, side: int) -> float:
    """Return the bytes that all cells from stage number ``first`` on return for an image of ``side`` pixels.

    They are counted on a smaller image, and grow with its area.
    """
    ms = quiet_mindspore()
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


def with_size(plan: Plan, size: int) -> Plan:
    """Return a plan with a batch size."""
    train = plan.recipe.train.model_copy(update={"batch_size": size})
    return replace(plan, recipe=plan.recipe.model_copy(update={"train": train}))
