"""What each of three processes does in ``test_ranks``: started by MindSpore's launcher, it writes what it saw.

msrun --worker_num=3 --local_worker_num=3 … ranks.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.distributed import world
from finetune.errors import DataError, FinetuneError
from finetune.machine import device
from finetune.machine.interrupts import StopRequested
from finetune.network import batchnorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.distributed.world import World

SEEN: dict[str, Any] = {}


def raised(work: Callable[[], object]) -> str:
    """Return what a block that all do together raises in this process."""
    try:
        work()
    except (FinetuneError, StopRequested) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def say(us: World) -> None:
    """Tell the others things of different lengths."""
    SEEN["gathered"] = us.gather({"rank": us.rank, "text": "é" * 50 * us.rank})
    SEEN["first"] = us.broadcast(f"from {us.rank}")
    kind = np.dtype([("index", "i8"), ("value", "f8"), ("flag", "?")])
    own = np.zeros(us.rank, kind)
    own["index"], own["value"] = 2**40 + us.rank, np.pi
    SEEN["rows"] = [[list(row) for row in each.tolist()] for each in us.gather_rows(own)]
    SEEN["shares"] = list(us.shard(range(8)))


def fail(us: World, folder: Path) -> None:
    """Fail in one process, or be asked to stop in one."""

    def if_rank(rank: int, error: Exception) -> None:
        with us.collective():
            if us.rank == rank:
                raise error

    def in_turn() -> bool:
        there = (folder / "made").exists()
        (folder / "made").touch()
        return there

    SEEN["failed"] = raised(lambda: if_rank(2, DataError("photo gone")))
    SEEN["asked"] = raised(lambda: if_rank(0, StopRequested()))
    SEEN["fine"] = raised(lambda: if_rank(9, StopRequested()))
    SEEN["second"] = us.main_process_first(in_turn)


def broadcast(us: World) -> None:
    """Take the first process's weights."""
    from mindspore import Parameter, Tensor

    own = [Parameter(Tensor(np.full((2, 3), us.rank + k, np.float32)), name=f"p{k}") for k in range(2)]
    us.broadcast_parameters(own)
    SEEN["same"] = [p.asnumpy().tolist() for p in own]


def normalise(us: World) -> None:
    """Compare gradients and statistics of BatchNorm over all processes with those of one that has all images."""
    import mindspore as ms
    from mindspore import Tensor, nn, ops

    rng = np.random.default_rng(0)
    images, weights = (rng.normal(1.0, 2.0, (6, 4, 5, 5)).astype(np.float32) for _ in range(2))

    def gradients(norm: nn.Cell, rows: slice) -> tuple[list[Any], list[Any]]:
        norm.set_train(True)

        def weighed(x: Tensor, w: Tensor) -> Tensor:
            return (norm(x) * w).sum()

        step = ms.value_and_grad(weighed, 0, ms.ParameterTuple(norm.trainable_params()))
        _, (inputs, parameters) = step(Tensor(images[rows]), Tensor(weights[rows]))
        return [inputs, *parameters], list(norm.get_parameters())

    whole, apart = nn.BatchNorm2d(4), nn.SequentialCell(nn.BatchNorm2d(4))
    batchnorm.synchronise_batch_norm(apart, us.size)
    own = slice(us.rank * 2, us.rank * 2 + 2)
    (expected, stats), (found, own_stats) = gradients(whole, slice(None)), gradients(apart, own)
    total = ops.AllReduce("sum")
    pairs = [(expected[0].asnumpy()[own], found[0].asnumpy())]
    pairs += [(a.asnumpy(), total(b).asnumpy()) for a, b in zip(expected[1:], found[1:], strict=True)]
    pairs += [(a.asnumpy(), b.asnumpy()) for a, b in zip(stats, own_stats, strict=True)]
    SEEN["normalised"] = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs]
    apart.set_train(False)
    whole.set_train(False)
    SEEN["evaluated"] = float(np.abs(whole(Tensor(images)).asnumpy() - apart(Tensor(images)).asnumpy()).max())


def main() -> None:
    """Do everything, and leave what was seen."""
    device.set_up(device="cpu")
    us = world.join_processes()
    if os.environ["MS_ROLE"] == "MS_SCHED":
        return
    folder = Path(sys.argv[1])
    SEEN["world"] = [us.rank, us.size, us.local_rank, us.local_size]
    for part in (say, lambda us: fail(us, folder), broadcast, normalise):
        part(us)
    (folder / f"{us.rank}.json").write_text(json.dumps(SEEN))


if __name__ == "__main__":
    main()
