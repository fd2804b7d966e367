"""One process of several that train together: what it does from its start to its end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from finetune.distributed.launch import FOLDER
from finetune.errors import FinetuneError
from finetune.machine import interrupts
from finetune.machine.device import KINDS

ALIVE = "alive"  # the file that the parent keeps locked as long as it lives
RECIPE = "recipe.yaml"
TASK = "task.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the processes are to do: the recipe lies beside it."""

    resume: str | None
    allow_changed: bool
    extend: int | None
    device: str
    ranks: tuple[int, int]
    argv: list[str]

    def write(self, folder: Path) -> None:
        """Write the task for the processes to find."""
        (folder / TASK).write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_task(folder: Path) -> Task:
    """Return the task that the parent wrote."""
    return Task(**json.loads((folder / TASK).read_text(encoding="utf-8")))


def main() -> NoReturn:
    """Be one process of a launch; its outcome is left for the parent, and then the process ends."""
    folder = Path(os.environ[FOLDER])
    interrupts.listen()
    threading.Thread(target=end_with_parent, args=(folder,), daemon=True).start()
    if os.environ["MS_ROLE"] == "MS_SCHED":
        meet_others()
    task = read_task(folder)
    sys.argv = task.argv
    rank = int(os.environ["MS_NODE_ID"])
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))
    pin(task, rank)
    code, outcome = 0, {"exit_code": 0}
    try:
        train(folder, task, rank)
    except BaseException as error:
        code, outcome = failed(error)
    interrupts.taken()
    leave(folder, rank, outcome, code)


def end_with_parent(folder: Path) -> None:
    """End everything when the parent has ended, however it did: then the kernel lets go of its lock.

    The process where the others meet cannot see to that itself: it holds Python's lock all the time.
    """
    with suppress(FileNotFoundError), (folder / ALIVE).open("rb") as file:  # it is gone where the parent was quick
        fcntl.flock(file, fcntl.LOCK_SH)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)  # MindSpore's launcher, and all that has its group
    os._exit(1)


def meet_others() -> NoReturn:
    """Be the process where the others meet, until they have ended."""
    from mindspore.communication import init

    from finetune.machine.kind import quiet_mindspore

    quiet_mindspore().set_device("CPU")
    init()
    os._exit(0)


def pin(task: Task, rank: int) -> None:
    """Keep to this process's share of the cores; on an NPU the launcher has seen to that."""
    first, end = task.ranks
    if not KINDS[task.device].pins or not hasattr(os, "sched_setaffinity"):
        return
    cores, processes = sorted(os.sched_getaffinity(0)), end - first
    each = len(cores) // processes
    if each:
        own = rank - first
        os.sched_setaffinity(0, cores[own * each : (own + 1) * each])


def train(folder: Path, task: Task, rank: int) -> None:
    """Train as the task says."""
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.launch.relay import Relay
    from finetune.recipe import plan as plans
    from finetune.training import engine

    catalogue = Catalogue(plugins.load_plugins())
    plan = plans.load_plan(folder / RECIPE, [], catalogue)
    relay = Relay(folder, quiet=rank != task.ranks[0])
    if rank and not relay.quiet:
        relay.say(f"machine {rank // (task.ranks[1] - rank)}; the first machine shows how the run goes")
        relay.quiet = True
    run = engine.fine_tune(
        plan,
        catalogue,
        resume=Path(task.resume) if task.resume else None,
        allow_changed=task.allow_changed,
        extend=task.extend,
        watchers=[relay],
        say=relay.say,
    )
    if rank == task.ranks[0]:
        relay.finished(run)


def failed(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the outcome; the code is 0 for what ends all processes, each of which then ends itself.

    MindSpore's launcher kills all others when one ends with another code.
    """
    import traceback

    from finetune.display import failures

    traceback.print_exception(error)
    about = failures.as_json(error)["error"]
    everywhere = isinstance(error, FinetuneError) and error.everywhere
    return 0 if everywhere else about["exit_code"], {**about, "everywhere": everywhere, "time": time.time()}


def leave(folder: Path, rank: int, outcome: dict[str, Any], code: int) -> NoReturn:
    """Leave the outcome for the parent, and end the process without taking its libraries apart."""
    part = folder / f"rank-{rank}.json.tmp"
    part.write_text(json.dumps(outcome), encoding="utf-8")
    part.rename(folder / f"rank-{rank}.json")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code == 0 and "mindspore" in sys.modules:
        from finetune.distributed import world

        world.part()
    os._exit(code)
