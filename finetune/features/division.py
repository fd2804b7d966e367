"""Where a network is divided: the longest frozen prefix of its stages is the trunk, all the rest the tail."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def trunk(stages: Sequence[str], trainable: Iterable[str]) -> tuple[str, ...]:
    """Return the stages before the first that trains; ``stages`` end with the head."""
    training = set(trainable)
    return tuple(takewhile(lambda stage: stage not in training, stages))
