"""Iterated function systems: random contracting affine maps of the plane, and their attractors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Random = np.random.Generator

CHAINS, BURN_IN, STEPS = 512, 12, 32  # parallel points, discarded steps, kept steps
GRID = 32
FILLED = 0.12  # minimum share of a 32x32 grid that a fractal must touch
VARIANTS = 4  # variants of each fractal, with slightly different numbers
CHANGE = 0.06
FOLDS = (1, 1, 1, 1, 3, 5, 6, 8)  # possible numbers of arms around the centre of a fractal
VARIANT_KEY = 1 << 32
ORBIT = CHAINS * STEPS * 5  # bytes: two float16 and a uint8 for each point
KEPT = 200_000_000  # bytes of orbits, enough for all variants of 500 fractals


@dataclass(frozen=True, slots=True)
class Orbit:
    """Points (N, 2) of a fractal within about -1..1, float16, and which map led to each, uint8."""

    points: NDArray[np.float16]
    maps: NDArray[np.uint8]


@lru_cache(maxsize=KEPT // ORBIT)
def compute_orbit(seed: int, number: int, variant: int) -> Orbit:
    """Return a variant of fractal ``number``; all have the same number of points."""
    rng = make_generator(seed, number)
    fold, reach = int(rng.choice(FOLDS)), rng.uniform(0.5, 1.1)
    while True:
        matrices, shifts = make_system(rng)
        points, maps = follow_maps(matrices, shifts, rng)
        if is_worth_seeing(points):
            break
    if variant:
        rng = make_generator(seed, VARIANT_KEY * variant + number)
        matrices = matrices * rng.uniform(1 - CHANGE, 1 + CHANGE, (len(matrices), 1, 1))
        shifts = shifts + rng.normal(0, CHANGE, shifts.shape)
        changed, maps = follow_maps(matrices, shifts, rng)
        points = changed if is_worth_seeing(changed) else points
    low, high = np.percentile(points, (1, 99), axis=0)
    scaled = (points - (low + high) / 2) / (max(high - low) / 2)
    return Orbit(np.clip(arrange_arms(scaled, fold, reach), -1.5, 1.5).astype(np.float16), maps)


def arrange_arms(points: NDArray[np.float64], fold: int, reach: float) -> NDArray[np.float64]:
    """Return points distributed among ``fold`` arms that start ``reach`` from the centre of a circle."""
    if fold == 1:
        return points
    turn = np.exp(2j * np.pi / fold * (np.arange(len(points)) % fold))
    placed = ((points @ (1, 1j)) + reach) / (1 + reach) * turn
    return np.stack([placed.real, placed.imag], axis=1)


def make_generator(seed: int, number: int) -> Random:
    """Return the random generator of a fractal."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))


def make_system(rng: Random) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two to four maps: matrices (K, 2, 2) and shifts (K, 2).

    The singular values are limited to a range with mostly interesting fractals, by the rule of Anderson and Farrell,
    "Improving Fractal Pre-training" (2022, https://arxiv.org/abs/2110.03091).
    """
    count = int(rng.integers(2, 5))
    while True:
        large = rng.uniform(0, 1, count)
        small = large * rng.uniform(0, 1, count)
        if (5 + count) / 2 <= (large + 2 * small).sum() <= (6 + count) / 2:
            break
    signs = rng.choice((-1.0, 1.0), (count, 2))
    singular = np.stack([large, small], axis=1) * signs
    matrices = make_rotations(rng, count) * singular[:, None, :] @ make_rotations(rng, count)
    return matrices, rng.uniform(-1, 1, (count, 2))


def make_rotations(rng: Random, count: int) -> NDArray[np.float64]:
    """Return random rotations (count, 2, 2)."""
    angle = rng.uniform(0, 2 * np.pi, count)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)


def follow_maps(
    matrices: NDArray[np.float64], shifts: NDArray[np.float64], rng: Random
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return points (N, 2) after random maps, chosen in proportion to their area, and the last map of each point."""
    area = np.abs(np.linalg.det(matrices)) + 0.02
    chosen = rng.choice(len(matrices), (BURN_IN + STEPS, CHAINS), p=area / area.sum())
    points, kept = np.zeros((CHAINS, 2)), []
    for maps in chosen:
        points = np.einsum("nij,nj->ni", matrices[maps], points) + shifts[maps]
        kept.append(points)
    return np.concatenate(kept[BURN_IN:]), chosen[BURN_IN:].reshape(-1).astype(np.uint8)


def is_worth_seeing(points: NDArray[np.float64]) -> bool:
    """Return whether a fractal is more than a few specks or a line."""
    low, high = np.percentile(points, (1, 99), axis=0)
    longest = max(high - low)
    if not 0 < longest < 50 or min(high - low) < 0.25 * longest:
        return False
    cells = np.clip((points - low) / (high - low) * GRID, 0, GRID - 1).astype(int)
    return len(np.unique(cells @ (1, GRID))) >= FILLED * GRID**2
