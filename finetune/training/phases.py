"""Phases: consecutive epochs with the same trainable stages, determined by the freezing policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finetune.errors import PluginError, UsageError
from finetune.suggest import did_you_mean

Policy = Callable[[int, tuple[str, ...]], frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Epochs ``first`` to ``last`` (from 1, both included) in which exactly the stages ``trainable`` train."""

    number: int
    first: int
    last: int
    trainable: tuple[str, ...]


FITTING = Phase(number=0, first=0, last=0, trainable=("head",))  # the phase that fits the head


def plan(policy: Policy, stages: tuple[str, ...], epochs: int, *, name: str) -> tuple[Phase, ...]:
    """Return the phases of a run; ``stages`` ends with the head.

    Raises ``PluginError`` if the policy returns unknown stages, and ``UsageError`` if an epoch trains nothing.
    """
    phases: list[Phase] = []
    for epoch in range(1, epochs + 1):
        answer = frozenset(policy(epoch, stages))
        for unknown in sorted(answer - set(stages)):
            hint = did_you_mean(unknown, stages)
            raise PluginError(f"freezing policy '{name}' returned unknown stage '{unknown}'{hint}")
        trainable = tuple(stage for stage in stages if stage in answer)
        if not trainable:
            raise UsageError(f"freezing policy '{name}' trains nothing in epoch {epoch}; return at least the head")
        if phases and phases[-1].trainable == trainable:
            phases[-1] = Phase(number=len(phases), first=phases[-1].first, last=epoch, trainable=trainable)
        else:
            phases.append(Phase(number=len(phases) + 1, first=epoch, last=epoch, trainable=trainable))
    return tuple(phases)
