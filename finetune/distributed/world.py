"""The processes that train together: which of them this one is, and what they tell one another."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from finetune.errors import FinetuneError
from finetune.machine.interrupts import Asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mindspore import Parameter
    from numpy.typing import NDArray

T = TypeVar("T")

# Bytes of int32, in which all is gathered: on CPUs int64 and float64 come back as half of themselves.
WORD = 4


class Elsewhere(FinetuneError):
    """Another process of the run failed; that one says how."""

    everywhere = True


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Process ``rank`` of ``size``, and ``local_rank`` of ``local_size`` on this machine.

    Every method but ``share`` must be called by all processes in the same order; of one process, all are free.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, things: Sequence[Any]) -> Sequence[Any]:
        """Return this process's share: every ``size``-th thing, from number ``rank`` on."""
        return things[self.rank :: self.size]

    def gather(self, said: Any) -> list[Any]:
        """Return what every process said, in the order of their ranks; anything that JSON holds."""
        if self.size == 1:
            return [said]
        raw = np.frombuffer(json.dumps(said).encode(), np.uint8)
        return [json.loads(each.tobytes()) for each in self._pieces(raw)]

    def rows(self, own: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the rows of every process, whose number may differ, in the order of their ranks."""
        if self.size == 1:
            return [own]
        pieces = self._pieces(np.ascontiguousarray(own).reshape(-1).view(np.uint8))
        return [each.view(own.dtype).reshape(-1, *own.shape[1:]) for each in pieces]

    def _pieces(self, raw: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return the bytes of every process, gathered as whole words."""
        lengths = gathered(np.array([raw.size], np.int32))
        room = WORD << max(0, int(lengths.max() - 1) // WORD).bit_length()  # few different sizes: each is compiled
        padded = np.zeros(room, np.uint8)
        padded[: raw.size] = raw
        every = gathered(padded.view(np.int32)).view(np.uint8).reshape(self.size, room)
        return [row[:length].copy() for row, length in zip(every, lengths.tolist(), strict=True)]

    def from_first(self, said: Any) -> Any:
        """Return what the first process said."""
        return self.gather(said if self.first else None)[0]

    def wait(self) -> None:
        """Return once every process has got here."""
        self.gather(None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let the processes do a block each for itself; a failure or a signal in one ends it in all."""
        mine: FinetuneError | Asked | None = None
        try:
            yield
        except (FinetuneError, Asked) as error:
            mine = error
        self.agree(mine)

    def agree(self, mine: FinetuneError | Asked | None) -> None:
        """Raise what this process or, before it, another one came to."""
        if self.size > 1 and not gathered(np.array([mine is not None], np.int32)).any():
            return  # as nearly always, so this is quick
        word = None if mine is None else "asked" if isinstance(mine, Asked) else f"rank {self.rank}: {mine}"
        words = [each for each in self.gather(word) if each is not None]
        if not words:
            return
        if isinstance(mine, FinetuneError):
            mine.everywhere = True
            raise mine
        failed = [each for each in words if each != "asked"]
        raise Elsewhere("; ".join(failed)) if failed else Asked

    def in_turn(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; the first process does it before the others, which find what it left."""
        result: T | None = None
        for mine in (self.first, not self.first) if self.size > 1 else (True,):
            with self.together():
                result = work() if mine else result
        return cast("T", result)

    def same_everywhere(self, parameters: Sequence[Parameter]) -> None:
        """Give all processes the first one's values of parameters."""
        if self.size == 1:
            return
        from mindspore import ops

        send = ops.Broadcast(0)
        for parameter in parameters:
            parameter.set_data(send((parameter.value(),))[0])


ALONE = World()


def gathered(own: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return as many numbers from each process, one after the other."""
    from mindspore import Tensor, ops

    every: NDArray[np.int32] = ops.AllGather()(Tensor(own)).asnumpy()
    return every


def is_member() -> bool:
    """Tell whether MindSpore's launcher started this process as one of several that train."""
    return os.environ.get("MS_ROLE") == "MS_WORKER"


def join() -> World:
    """Meet the other processes and return the world; the device must have been set.

    Raises ``RuntimeError`` of MindSpore if they do not come in time.
    """
    from mindspore.communication import get_group_size, get_rank, init

    init()
    world = World(rank=get_rank(), size=get_group_size())
    hosts = world.gather(socket.gethostname())
    here = [rank for rank, host in enumerate(hosts) if host == hosts[world.rank]]
    return replace(world, local_rank=here.index(world.rank), local_size=len(here))


def part() -> None:
    """Leave the other processes in good order, if they were met."""
    if is_member():
        from mindspore.communication import release

        release()
