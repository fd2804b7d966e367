"""World: the processes that train together, and the collective operations between them."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from finetune.errors import FinetuneError
from finetune.machine.interrupts import StopRequested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mindspore import Parameter
    from numpy.typing import NDArray

T = TypeVar("T")

# Bytes of int32, the type of all gathered data: on CPUs, gathering int64 or float64 returns only half of the data.
WORD = 4


class PeerFailed(FinetuneError):
    """Another process of the run failed; that process reports the error."""

    everywhere = True


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Process ``rank`` of ``size``, and ``local_rank`` of ``local_size`` on this machine.

    All processes must call every method except ``shard``, in the same order. A single process does no communication.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints messages."""
        return self.rank == 0

    def shard(self, things: Sequence[Any]) -> Sequence[Any]:
        """Return this process's share: every ``size``-th item, starting with number ``rank``."""
        return things[self.rank :: self.size]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in order of rank; a value can be anything that JSON supports."""
        if self.size == 1:
            return [value]
        raw = np.frombuffer(json.dumps(value).encode(), np.uint8)
        return [json.loads(each.tobytes()) for each in self._gather_bytes(raw)]

    def gather_rows(self, own: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the rows of every process in order of rank; the number of rows may differ."""
        if self.size == 1:
            return [own]
        pieces = self._gather_bytes(np.ascontiguousarray(own).reshape(-1).view(np.uint8))
        return [each.view(own.dtype).reshape(-1, *own.shape[1:]) for each in pieces]

    def _gather_bytes(self, raw: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return the bytes of every process, which are gathered as 32-bit words."""
        lengths = gather_numbers(np.array([raw.size], np.int32))
        room = (
            WORD << max(0, int(lengths.max() - 1) // WORD).bit_length()
        )  # powers of two, since each new size is compiled
        padded = np.zeros(room, np.uint8)
        padded[: raw.size] = raw
        every = gather_numbers(padded.view(np.int32)).view(np.uint8).reshape(self.size, room)
        return [row[:length].copy() for row, length in zip(every, lengths.tolist(), strict=True)]

    def broadcast(self, value: Any) -> Any:
        """Return the value of the first process."""
        return self.gather(value if self.is_main else None)[0]

    def barrier(self) -> None:
        """Wait until every process has reached this call."""
        self.gather(None)

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Run a block in every process; a failure or a signal in one process ends the block in all of them."""
        mine: FinetuneError | StopRequested | None = None
        try:
            yield
        except (FinetuneError, StopRequested) as error:
            mine = error
        self.raise_in_all(mine)

    def raise_in_all(self, mine: FinetuneError | StopRequested | None) -> None:
        """Raise this process's own error; ``PeerFailed`` or ``StopRequested`` if only a different process has one."""
        if self.size > 1 and not gather_numbers(np.array([mine is not None], np.int32)).any():
            return  # the usual case, so it has to be fast
        word = None if mine is None else "asked" if isinstance(mine, StopRequested) else f"rank {self.rank}: {mine}"
        words = [each for each in self.gather(word) if each is not None]
        if not words:
            return
        if isinstance(mine, FinetuneError):
            mine.everywhere = True
            raise mine
        failed = [each for each in words if each != "asked"]
        raise PeerFailed("; ".join(failed)) if failed else StopRequested

    def main_process_first(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the first process, then in the others, which can reuse its results; return its result."""
        result: T | None = None
        for mine in (self.is_main, not self.is_main) if self.size > 1 else (True,):
            with self.collective():
                result = work() if mine else result
        return cast("T", result)

    def broadcast_parameters(self, parameters: Sequence[Parameter]) -> None:
        """Copy the first process's values of parameters to all processes."""
        if self.size == 1:
            return
        from mindspore import ops

        send = ops.Broadcast(0)
        for parameter in parameters:
            parameter.set_data(send((parameter.value(),))[0])


SINGLE_PROCESS = World()


def gather_numbers(own: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the numbers of all processes, concatenated; each must contribute the same amount."""
    from mindspore import Tensor, ops

    every: NDArray[np.int32] = ops.AllGather()(Tensor(own)).asnumpy()
    return every


def is_worker() -> bool:
    """Return whether MindSpore's launcher started this process as one of several that train."""
    return os.environ.get("MS_ROLE") == "MS_WORKER"


def join_processes() -> World:
    """Connect to the other processes and return the world; the device must have been set.

    MindSpore raises ``RuntimeError`` if the others do not connect in time.
    """
    from mindspore.communication import get_group_size, get_rank, init

    init()
    world = World(rank=get_rank(), size=get_group_size())
    hosts = world.gather(socket.gethostname())
    here = [rank for rank, host in enumerate(hosts) if host == hosts[world.rank]]
    return replace(world, local_rank=here.index(world.rank), local_size=len(here))


def leave_processes() -> None:
    """Disconnect from the other processes, if this process was connected."""
    if is_worker():
        from mindspore.communication import release

        release()
