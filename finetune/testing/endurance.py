"""Leak and thread checks: fires thousands of events at a callback, and compares results of several threads."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from finetune.plugins import HERE, Origin, Plugins
from finetune.run import Predicted
from finetune.testing.photos import draw_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from finetune.run import Run


T = TypeVar("T")

THREADS = 4
OFTEN = 1e-5  # seconds between switches of threads, so that races show


def make_orders(count: int) -> list[list[int]]:
    """Return an order of ``count`` jobs for each thread: ascending, descending, and two at random."""
    rng = np.random.default_rng(0)
    there = list(range(count))
    return [there, there[::-1], *(rng.permutation(count).tolist() for _ in range(THREADS - 2))]


def find_differences(work: Callable[[T], Any], jobs: Sequence[T], alone: Sequence[Any]) -> list[tuple[int, str]]:
    """Return the jobs, by number, whose results in threads differ from ``alone`` or which raised an error."""
    wrong: dict[int, str] = {}
    start = threading.Barrier(THREADS)

    def run(order: list[int]) -> None:
        start.wait()
        for number in order:
            try:
                if work(jobs[number]) != alone[number]:
                    wrong.setdefault(number, "")
            except Exception as error:
                wrong.setdefault(number, f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(order,), daemon=True) for order in make_orders(len(jobs))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(OFTEN)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    return sorted(wrong.items())


def describe_differences(wrong: Sequence[tuple[int, str]]) -> str:
    """Describe the first error, or the difference, in threads."""
    errors = [error for _, error in wrong if error]
    return f"raised {errors[0].partition(chr(10))[0][:200]}" if errors else "differed from the result of one thread"


EPOCHS, STEPS = 4, 200
MOST = 16_000  # bytes in 4 epochs of 200 steps; a number for each step takes 25,600

Held = tuple[int, int, int]


def measure_growth(make: Callable[[], object], like: Run, folder: Path) -> str:
    """Return which resource grew in 4 epochs of 200 steps after a warm-up of the same length; empty if none did.

    Values that wait for threads of the callback come and go, so a callback that starts threads is measured after the
    end of its run.
    """
    tracing, threads = tracemalloc.is_tracing(), threading.active_count()
    if not tracing:
        tracemalloc.start()
    try:
        manager, run = start_listening(make(), like, folder / "1")
        writes = threading.active_count() > threads
        fire_epochs(manager, run, 1 if writes else EPOCHS)
        if writes:
            manager.fire("finetune_run_end", run=run)
            before = measure_resources()
            manager, run = start_listening(make(), like, folder / "2")
            fire_epochs(manager, run, EPOCHS)
            manager.fire("finetune_run_end", run=run)
            return describe_growth(before, measure_resources())
        before = measure_resources()
        fire_epochs(manager, run, EPOCHS)
        after = measure_resources()
        manager.fire("finetune_run_end", run=run)
        return describe_growth(before, after)
    finally:
        if not tracing:
            tracemalloc.stop()


def start_listening(callback: object, like: Run, folder: Path) -> tuple[Plugins, Run]:
    """Return a manager with the callback, and a run that it has seen start."""
    manager = Plugins()
    manager.register(callback, Origin(name="callback", distribution=HERE, version="-"))
    run = make_run(like, folder)
    manager.fire("finetune_run_start", run=run)
    return manager, run


def make_run(like: Run, folder: Path) -> Run:
    """Return a run before its first epoch, with images and predictions to log."""
    folder.mkdir(parents=True)
    shown = [draw_picture(16, 16, seed=number) for number in range(4)]
    labels = like.classes
    judged = [Predicted(pixels=each, label=labels[0], predicted=labels[-1], probability=0.9) for each in shown]
    return replace(
        like,
        folder=folder,
        steps_per_epoch=STEPS,
        epoch=0,
        step=0,
        history=[],
        state={},
        result=None,
        stop_reason=None,
        messages=[],
        best=None,
        _augmented=lambda count: shown[:count],
        _predictions=lambda count: judged[:count],
        _say=lambda message: None,
    )


def fire_epochs(manager: Plugins, run: Run, count: int) -> None:
    """Fire the events of ``count`` epochs."""
    for epoch in range(run.epoch + 1, run.epoch + 1 + count):
        fire_epoch(manager, run, epoch)


def fire_epoch(manager: Plugins, run: Run, epoch: int) -> None:
    """Fire the events of an epoch."""
    run.epoch = epoch
    manager.fire("finetune_epoch_start", run=run, epoch=epoch)
    for _ in range(STEPS):
        run.step += 1
        manager.fire("finetune_step_end", run=run, step=run.step, loss=1.0 / run.step)
    line = {"epoch": epoch, "phase": 1, "trainable": list(run.trainable), "train_loss": 0.5, "lr": 1e-3, "seconds": 0.1}
    line |= {"val_loss": 0.5, "val_accuracy": 0.5, "val_top5": 1.0, "val_macro_f1": 0.5, "images_per_second": 10.0}
    run.confusion = np.eye(len(run.classes), dtype=np.int64)
    run.history = [line]  # in a real run it grows by a line per epoch
    manager.fire("finetune_epoch_end", run=run, epoch=epoch, metrics=line)
    path = run.folder / "checkpoint.safetensors"
    path.touch()
    manager.fire("finetune_checkpoint_saved", run=run, epoch=epoch, path=path, best=False)
    run.messages.clear()
    run.stop_reason = None


def measure_resources() -> Held:
    """Return the number of open files and threads, and the bytes of Python's memory."""
    gc.collect()
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return files, threading.active_count(), tracemalloc.get_traced_memory()[0]


def describe_growth(before: Held, after: Held) -> str:
    """Return which resource grew by more than is allowed."""
    what = ("open files", "threads", "bytes of memory")
    for name, most, first, last in zip(what, (0, 0, MOST), before, after, strict=True):
        if last - first > most:
            return f"in {EPOCHS} epochs of {STEPS} steps it used {last - first} more {name}"
    return ""
