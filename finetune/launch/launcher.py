"""Launcher: starts a run's processes on this machine, shows progress, forwards signals, ends all if one dies."""

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

from finetune.distributed.launch import find_free_port
from finetune.errors import ResourceError
from finetune.launch.events import EventReader
from finetune.launch.processes import Peers, Processes
from finetune.launch.worker_process import ALIVE, RECIPE, Task
from finetune.machine import interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.display.progress import Progress
    from finetune.distributed.launch import Launch
    from finetune.recipe.plan import Plan

LOOK = 0.1  # seconds between two checks of the processes
# Seconds until the other processes are killed, after one has failed and after one has finished.
SOON, SAVING = 1.0, 600.0


def run_processes(
    launch: Launch,
    plan: Plan,
    *,
    resume: Path | None,
    allow_changed: bool,
    progress: Progress,
    extend: int | None = None,
) -> dict[str, Any]:
    """Fine-tune with all processes of this machine; return the run's folder and the result of the first process.

    Raises the error of the first process that failed, ``Interrupted`` after a signal, and ``ProcessDied`` with the
    process and its log if one ended without reporting an error.
    """
    task = Task(
        resume=str(resume) if resume else None,
        allow_changed=allow_changed,
        extend=extend,
        device=launch.device,
        ranks=(launch.ranks.start, launch.ranks.stop),
        argv=sys.argv,
    )
    machines = Peers(launch)
    with interrupts.watch_signals() as stop, _start_processes(launch, plan, task, resume) as processes:
        screen = EventReader(processes.folder, progress)
        try:
            _follow(processes, screen, machines, stop)
        finally:
            processes.end()
            machines.leave(done=processes.is_in_order())
        screen.update()
        _keep_logs(processes, screen.run_folder)
        error = processes.explain_end(stop.signal)
    if error is not None:
        if screen.run is not None:
            progress.finetune_run_error(screen.run, error)
        elif str(processes.logs) not in str(error):  # no run was started, and the error does not refer to the logs
            shutil.rmtree(processes.logs, ignore_errors=True)
        raise error
    return {"folder": screen.run_folder or processes.logs, "result": screen.result}


@contextmanager
def _start_processes(launch: Launch, plan: Plan, task: Task, resume: Path | None) -> Iterator[Processes]:
    """Start MindSpore's launcher; the processes end with this one, because the kernel then releases its lock."""
    from finetune.recipe import masking
    from finetune.recipe import plan as plans

    folder = Path(tempfile.mkdtemp(prefix="finetune-"))
    logs = _create_logs(plan.recipe.output, resume, launch)
    try:
        with (folder / ALIVE).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            masking.write_recipe(folder / RECIPE, plans.dump_given(plan))
            task.write(folder)
            where = replace(launch, port=launch.port or find_free_port())
            environment = os.environ | where.make_environment(folder)
            environment["PATH"] = f"{_link_python(folder)}{os.pathsep}{environment.get('PATH', '')}"
            with (logs / "msrun.log").open("wb") as log:
                msrun = subprocess.Popen(
                    where.make_command(logs),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            yield Processes(launch=where, folder=folder, logs=logs, msrun=msrun)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create_logs(output: Path, resume: Path | None, launch: Launch) -> Path:
    """Create a folder for the logs: in the run's folder, or in the output folder if there is no run yet."""
    try:
        if resume is None:
            output.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=".launch-", dir=output))
        home = resume / "logs"
        home.mkdir(exist_ok=True)
        before = [int(each.name[:3]) for each in home.iterdir() if each.name[:3].isdecimal()]
        logs = home / _name_logs(max(before, default=0) + (launch.node == 0 or not before), launch)
        logs.mkdir(exist_ok=launch.node > 0)
    except OSError as error:
        raise ResourceError(
            f"{error.filename}: cannot write logs ({error.strerror}); choose another --output"
        ) from error
    return logs


def _name_logs(number: int, launch: Launch) -> str:
    """Return the name of the folder with a launch's logs; it includes the machine's number except on the first."""
    return f"{number:03d}" if launch.node == 0 else f"{number:03d}-machine-{launch.node}"


def _link_python(folder: Path) -> Path:
    """Return a folder in which ``python``, the command that MindSpore's launcher calls, is this interpreter."""
    programs = folder / "bin"
    programs.mkdir()
    script = programs / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return programs


def _follow(processes: Processes, screen: EventReader, machines: Peers, stop: interrupts.Stop) -> None:
    """Show progress until all processes have ended, or until the time limit after one of them ended."""
    told: set[int] = set()
    until = float("inf")
    while processes.msrun.poll() is None and time.monotonic() < until:
        time.sleep(LOOK)
        screen.update()
        _keep_logs(processes, screen.run_folder)
        if stop.signal:
            told |= processes.signal(stop.signal, told)
        if processes.is_finished():
            return  # MindSpore's launcher itself would wait for half a minute longer
        processes.deserted = processes.deserted or machines.is_lost()
        if processes.has_failed():
            until = min(until, time.monotonic() + SOON)
        elif processes.read_outcomes():
            until = min(until, time.monotonic() + SAVING)


def _keep_logs(processes: Processes, folder: Path | None) -> None:
    """Move the logs into the run's folder, once that exists."""
    if folder is None or folder in processes.logs.parents:
        return
    kept = folder / "logs" / _name_logs(1, processes.launch)
    with suppress(OSError):
        kept.parent.mkdir(exist_ok=True)
        processes.logs.rename(kept)
        processes.logs = kept
