"""Random numbers as functions of what they are for, never of what was drawn before or by which thread."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for; each purpose has numbers of its own for the same seed."""

    SPLIT = 1
    ORDER = 2
    AUGMENT = 3
    DROPOUT = 4
    MIX = 5
    HEAD = 6


def generator(stream: Stream, seed: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """Return the generator of a purpose, seed, epoch and sample (Philox 4x64, Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, index, stream]))
