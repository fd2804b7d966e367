"""Starts the processes of a run on this machine, shows what they do, passes signals on, and ends all when one dies."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.distributed.launch import free_port
from finetune.errors import ResourceError
from finetune.launch.member import ALIVE, RECIPE, Task
from finetune.launch.processes import Machines, Processes
from finetune.launch.relay import Screen
from finetune.machine import interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.display.progress import Progress
    from finetune.distributed.launch import Launch
    from finetune.recipe.plan import Plan

LOOK = 0.1  # seconds between two looks at the processes
# Seconds that the others have to end, before they are made to, once one has failed, or once one has come to its end.
SOON, SAVING = 1.0, 600.0


def run(
    launch: Launch,
    plan: Plan,
    *,
    resume: Path | None,
    allow_changed: bool,
    progress: Progress,
    extend: int | None = None,
) -> dict[str, Any]:
    """Fine-tune with all processes of this machine; return the result of the first, and the run's folder beside it.

    Raises what the first process that failed raised, ``Interrupted`` after a signal, and ``ProcessDied`` naming the
    process and its log where one ended without a word.
    """
    task = Task(
        resume=str(resume) if resume else None,
        allow_changed=allow_changed,
        extend=extend,
        device=launch.device,
        ranks=(launch.ranks.start, launch.ranks.stop),
        argv=sys.argv,
    )
    machines = Machines(launch)
    with interrupts.watched() as stop, _started(launch, plan, task, resume) as processes:
        screen = Screen(processes.folder, progress)
        try:
            _follow(processes, screen, machines, stop)
        finally:
            processes.end()
            machines.leave(done=processes.in_order())
        screen.update()
        _keep_logs(processes, screen.run_folder)
        error = processes.verdict(stop.signal)
    if error is not None:
        if screen.run is not None:
            progress.finetune_run_error(screen.run, error)
        elif str(processes.logs) not in str(error):  # nothing was begun, and nobody was sent to look there
            shutil.rmtree(processes.logs, ignore_errors=True)
        raise error
    return {"folder": screen.run_folder or processes.logs, "result": screen.result}


@contextmanager
def _started(launch: Launch, plan: Plan, task: Task, resume: Path | None) -> Iterator[Processes]:
    """Start MindSpore's launcher; the processes end when this one does, since the kernel then opens its lock."""
    from finetune.recipe import masking
    from finetune.recipe import plan as plans

    folder = Path(tempfile.mkdtemp(prefix="finetune-"))
    logs = _new_logs(plan.recipe.output, resume, launch)
    try:
        with (folder / ALIVE).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            masking.write_recipe(folder / RECIPE, plans.dump_given(plan))
            task.write(folder)
            where = replace(launch, port=launch.port or free_port())
            environment = os.environ | where.environment(folder)
            environment["PATH"] = f"{_python_for(folder)}{os.pathsep}{environment.get('PATH', '')}"
            with (logs / "msrun.log").open("wb") as log:
                msrun = subprocess.Popen(
                    where.command(logs),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            yield Processes(launch=where, folder=folder, logs=logs, msrun=msrun)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_logs(output: Path, resume: Path | None, launch: Launch) -> Path:
    """Return a new folder for the logs: in the run's, or beside where that will be."""
    try:
        if resume is None:
            output.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=".launch-", dir=output))
        home = resume / "logs"
        home.mkdir(exist_ok=True)
        before = [int(each.name[:3]) for each in home.iterdir() if each.name[:3].isdecimal()]
        logs = home / _name(max(before, default=0) + (launch.node == 0 or not before), launch)
        logs.mkdir(exist_ok=launch.node > 0)
    except OSError as error:
        raise ResourceError(
            f"cannot write logs to {error.filename}: {error.strerror}; choose another --output"
        ) from error
    return logs


def _name(number: int, launch: Launch) -> str:
    """Return the name of a launch's logs; those of other machines than the first stand beside."""
    return f"{number:03d}" if launch.node == 0 else f"{number:03d}-machine-{launch.node}"


def _python_for(folder: Path) -> Path:
    """Return a folder in which ``python``, which MindSpore's launcher calls, is this interpreter."""
    programs = folder / "bin"
    programs.mkdir()
    script = programs / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return programs


def _follow(processes: Processes, screen: Screen, machines: Machines, stop: interrupts.Stop) -> None:
    """Show what happens until all processes have ended, or until the others had their time after one did."""
    told: set[int] = set()
    until = float("inf")
    while processes.msrun.poll() is None and time.monotonic() < until:
        time.sleep(LOOK)
        screen.update()
        _keep_logs(processes, screen.run_folder)
        if stop.signal:
            told |= processes.signal(stop.signal, told)
        if processes.finished():
            return  # what is left of MindSpore's launcher would wait for half a minute
        processes.deserted = processes.deserted or machines.lost()
        if processes.failed():
            until = min(until, time.monotonic() + SOON)
        elif processes.outcomes():
            until = min(until, time.monotonic() + SAVING)


def _keep_logs(processes: Processes, folder: Path | None) -> None:
    """Move the logs into the run's folder, once there is one."""
    if folder is None or folder in processes.logs.parents:
        return
    kept = folder / "logs" / _name(1, processes.launch)
    with suppress(OSError):
        kept.parent.mkdir(exist_ok=True)
        processes.logs.rename(kept)
        processes.logs = kept
