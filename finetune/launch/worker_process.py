"""Worker process: one of several processes that train together, from start to end."""

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

ALIVE = "alive"  # the file that the parent locks while it runs
RECIPE = "recipe.yaml"
TASK = "task.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task of the processes; the recipe is a separate file in the same folder."""

    resume: str | None
    allow_changed: bool
    extend: int | None
    device: str
    ranks: tuple[int, int]
    argv: list[str]

    def write(self, folder: Path) -> None:
        (folder / TASK).write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_task(folder: Path) -> Task:
    """Read the task that the parent wrote."""
    return Task(**json.loads((folder / TASK).read_text(encoding="utf-8")))


def main() -> NoReturn:
    """Run one process of a launch, write its outcome for the parent, and end the process."""
    folder = Path(os.environ[FOLDER])
    interrupts.listen()
    threading.Thread(target=end_with_parent, args=(folder,), daemon=True).start()
    if os.environ["MS_ROLE"] == "MS_SCHED":
        meet_others()
    task = read_task(folder)
    sys.argv = task.argv
    rank = int(os.environ["MS_NODE_ID"])
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))
    pin_cores(task, rank)
    code, outcome = 0, {"exit_code": 0}
    try:
        train_task(folder, task, rank)
    except BaseException as error:
        code, outcome = describe_failure(error)
    interrupts.mark_taken()
    leave_launch(folder, rank, outcome, code)


def end_with_parent(folder: Path) -> None:
    """End everything when the parent has ended, however that happened: the kernel then releases its lock.

    The scheduler process cannot do this for itself, because it never releases Python's global lock.
    """
    with (
        suppress(FileNotFoundError),
        (folder / ALIVE).open("rb") as file,
    ):  # the file is missing if the parent has already ended
        fcntl.flock(file, fcntl.LOCK_SH)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)  # MindSpore's launcher and its process group
    os._exit(1)


def meet_others() -> NoReturn:
    """Run MindSpore's scheduler, which connects the other processes, until they have ended."""
    from mindspore.communication import init

    from finetune.machine.kind import import_mindspore

    import_mindspore().set_device("CPU")
    init()
    os._exit(0)


def pin_cores(task: Task, rank: int) -> None:
    """Bind this process to its share of the cores; on an NPU, MindSpore's launcher does that."""
    first, end = task.ranks
    if not KINDS[task.device].pins or not hasattr(os, "sched_setaffinity"):
        return
    cores, processes = sorted(os.sched_getaffinity(0)), end - first
    each = len(cores) // processes
    if each:
        own = rank - first
        os.sched_setaffinity(0, cores[own * each : (own + 1) * each])


def train_task(folder: Path, task: Task, rank: int) -> None:
    """Train as one of the processes of the task."""
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.launch.events import EventWriter
    from finetune.recipe import plan as plans
    from finetune.training import engine

    catalogue = Catalogue(plugins.load_plugins())
    plan = plans.load_plan(folder / RECIPE, [], catalogue)
    relay = EventWriter(folder, quiet=rank != task.ranks[0])
    if rank and not relay.quiet:
        relay.say(f"machine {rank // (task.ranks[1] - rank)}; the first machine shows the progress of the run")
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


def describe_failure(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the outcome of an error; the code is 0 if the error ends every process by itself.

    With any other code, MindSpore's launcher kills all other processes.
    """
    import traceback

    from finetune.display import failures

    traceback.print_exception(error)
    about = failures.convert_to_json(error)["error"]
    everywhere = isinstance(error, FinetuneError) and error.everywhere
    return 0 if everywhere else about["exit_code"], {**about, "everywhere": everywhere, "time": time.time()}


def leave_launch(folder: Path, rank: int, outcome: dict[str, Any], code: int) -> NoReturn:
    """Write the outcome for the parent, and end the process without unloading its libraries."""
    part = folder / f"rank-{rank}.json.tmp"
    part.write_text(json.dumps(outcome), encoding="utf-8")
    part.rename(folder / f"rank-{rank}.json")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code == 0 and "mindspore" in sys.modules:
        from finetune.distributed import world

        world.leave_processes()
    os._exit(code)
