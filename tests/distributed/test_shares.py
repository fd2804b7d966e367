"""How processes divide batches: every image once, and the same images in each step however many there are."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.loader import assign_batches, assign_rows, compute_order
from finetune.distributed.world import SINGLE_PROCESS, World
from finetune.errors import DataError, FinetuneError
from finetune.machine.interrupts import StopRequested


def worlds(size: int) -> list[World]:
    return [World(rank=rank, size=size, local_rank=rank, local_size=size) for rank in range(size)]


@given(st.integers(1, 3000), st.integers(1, 20), st.integers(1, 9), st.integers(0, 5))
def test_shuffled_batches_are_divided_without_gaps(count: int, each: int, size: int, epoch: int) -> None:
    batch = each * size
    indices = compute_order(count, batch, 7, epoch, shuffled=True)
    steps = range(len(indices) // batch)
    for step in steps:
        parts = [
            indices[rows.start : rows.stop]
            for w in worlds(size)
            for rows in [assign_rows(step, batch, w, shuffled=True)]
        ]
        assert {len(part) for part in parts} == {each}
        np.testing.assert_array_equal(np.concatenate(parts), indices[step * batch : (step + 1) * batch])
    assert all(assign_batches(0, len(steps), w, shuffled=True) == steps for w in worlds(size))


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(1, 9))
def test_batches_in_order_go_round(count: int, batch: int, size: int) -> None:
    steps = -(-count // batch)
    taken = [list(assign_batches(0, steps, world, shuffled=False)) for world in worlds(size)]
    assert sorted(chain(*taken)) == list(range(steps))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_1001_images_on_3_processes_are_seen_once_an_epoch() -> None:
    indices = compute_order(1001, 33, 0, 1, shuffled=True)
    seen = [
        indices[row]
        for world in worlds(3)
        for step in range(len(indices) // 33)
        for row in assign_rows(step, 33, world, shuffled=True)
        if row < 1001
    ]
    assert sorted(seen) == list(range(1001))


def test_one_process_is_told_what_it_says() -> None:
    assert SINGLE_PROCESS.gather({"a": 1}) == [{"a": 1}]
    assert SINGLE_PROCESS.broadcast("x") == "x"
    assert SINGLE_PROCESS.main_process_first(lambda: 5) == 5
    assert [each.tolist() for each in SINGLE_PROCESS.gather_rows(np.arange(3))] == [[0, 1, 2]]
    SINGLE_PROCESS.barrier()


@pytest.mark.parametrize("error", [DataError("gone"), StopRequested(), ValueError("a bug")])
def test_one_process_raises_what_it_came_to(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, SINGLE_PROCESS.collective():
        raise error
    assert not isinstance(error, FinetuneError) or caught.value is error
