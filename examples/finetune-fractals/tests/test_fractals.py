"""The dataset ``fractals``: the same pictures at every reading, of systems that are worth seeing and told apart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from finetune_fractals import Fractals, build
from finetune_fractals.drawing import choose_palette
from finetune_fractals.system import (
    VARIANTS,
    compute_orbit,
    follow_maps,
    is_worth_seeing,
    make_generator,
    make_system,
)
from pydantic import ValidationError

if TYPE_CHECKING:
    from finetune import Samples, Split


def made(split: Split = "train", **options: int) -> Samples:
    samples = build(Fractals(**options), split)
    assert samples is not None
    return samples


def stack(samples: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([np.asarray(samples.images[i]) for i in range(len(samples))])


def test_sizes_labels_and_names() -> None:
    samples = made(train=25, classes=12, size=32)
    assert list(samples.labels) == [*range(12), *range(12), 0]
    assert samples.classes[:2] == ("fractal 00", "fractal 01")
    assert len(set(samples.classes)) == 12
    assert stack(samples).shape == (25, 32, 32, 3)
    assert stack(samples).dtype == np.uint8
    assert build(Fractals(test=0), "test") is None
    for options in ({"train": 1}, {"size": 8}, {"classes": 1}, {"seed": -1}):
        with pytest.raises(ValidationError):
            Fractals(**options)


def test_a_picture_depends_on_seed_split_and_index_alone() -> None:
    first = stack(made(train=40, classes=8, size=32))
    again = made(train=60, classes=8, size=32)
    assert np.array_equal(first, [again.images[i] for i in reversed(range(40))][::-1])
    shared = made(train=40, classes=8, size=32)
    with ThreadPoolExecutor(4) as pool:
        assert np.array_equal(first, list(pool.map(lambda i: shared.images[i], range(40))))
    assert not np.array_equal(first, stack(made(train=40, classes=8, size=32, seed=2)))
    assert not np.array_equal(first, stack(made("valid", valid=40, classes=8, size=32)))
    assert len(np.unique(first.reshape(40, -1), axis=0)) == 40


def test_systems_contract_and_fill_the_picture() -> None:
    for number in range(60):
        matrices, shifts = make_system(make_generator(3, number))
        assert 2 <= len(matrices) <= 4
        assert np.linalg.norm(matrices, ord=2, axis=(1, 2)).max() < 1  # so that the orbit stays bounded
        points, maps = follow_maps(matrices, shifts, make_generator(4, number))
        assert np.isfinite(points).all()
        assert set(maps) <= set(range(len(matrices)))
        for variant in range(VARIANTS):
            found = compute_orbit(3, number, variant).points.astype(np.float64)
            assert is_worth_seeing(found)
            assert np.abs(found).max() <= 1.5


def test_few_orbits_are_kept_in_memory() -> None:
    found = compute_orbit(3, 0, 0)
    kept = compute_orbit.cache_info().maxsize
    assert kept is not None
    assert kept >= 2000  # all variants of the 500 that there are by default
    assert kept * (found.points.nbytes + found.maps.nbytes) <= 200_000_000


def test_specks_and_lines_are_not_worth_seeing() -> None:
    rng = np.random.default_rng(0)
    assert is_worth_seeing(rng.uniform(-1, 1, (5000, 2)))
    assert not is_worth_seeing(rng.uniform(-1, 1, (5000, 2)) * (1, 0.1))
    assert not is_worth_seeing(rng.choice((-1.0, 0.0, 1.0), (5000, 2)))
    assert not is_worth_seeing(np.zeros((5000, 2)))
    assert not is_worth_seeing(np.full((5000, 2), 1e9) * rng.uniform(-1, 1, (5000, 2)))


def test_colours_are_shared_so_that_forms_must_be_learnt() -> None:
    assert np.array_equal(choose_palette(1, 3), choose_palette(1, 3))
    assert choose_palette(1, 3).min() >= 0
    assert choose_palette(1, 3).max() <= 255
    samples = made(train=720, classes=24, size=32)
    pixels, labels = stack(samples), np.array(samples.labels)
    colours = pixels.reshape(len(pixels), -1, 3).mean(axis=1)
    given = np.column_stack([colours, colours**2 / 255, np.full(len(colours), 128.0)])
    fit = np.linalg.lstsq(given[:480], np.eye(24)[labels[:480]], rcond=None)[0]
    assert ((given[480:] @ fit).argmax(axis=1) == labels[480:]).mean() < 0.35
