"""Thread pool that can be abandoned: a thread that hangs on a dead disk blocks neither errors nor the exit."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]
GRACE = 5.0  # seconds that closing waits for jobs in progress


class Pool:
    """Threads that run jobs in the order they were submitted; ``workers=0`` runs each at once in the calling thread.

    The pool of ``concurrent.futures`` joins its threads at exit, so that one hanging read would block the process.
    These threads are daemons. They start with the first job and end with ``close`` or when the pool is deleted.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Return the future of ``function(*arguments)``; raises ``RuntimeError`` after ``close``."""
        if self._closed:
            raise RuntimeError("the loader is closed; make a new one")
        future: Future[T] = Future()
        if not self.workers:
            future.set_result(function(*arguments))  # errors are raised right here
            return future
        self._start()
        self._jobs.put((future, function, arguments))
        return future

    def _start(self) -> None:
        if self._threads:
            return
        for number in range(self.workers):
            thread = threading.Thread(target=_work, args=(self._jobs,), name=f"finetune-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        weakref.finalize(self, _stop, self._jobs, self.workers)

    def close(self) -> None:
        """Cancel the jobs that have not started and end the threads; calling it again has no effect."""
        self._closed = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job[0].cancel()
        _stop(self._jobs, len(self._threads))
        for thread in self._threads:
            thread.join(GRACE)
        self._threads = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _work(jobs: queue.SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        _run(job)
        del job  # a waiting thread must not keep the last batch in memory


def _run(job: Job) -> None:
    future, function, arguments = job
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function(*arguments))
    except BaseException as error:  # raised in the thread that reads the result
        future.set_exception(error)


def _stop(jobs: queue.SimpleQueue[Job | None], workers: int) -> None:
    for _ in range(workers):
        jobs.put(None)
