"""TensorBoard event files, written by a thread of their own, so that a slow or full disk cannot stop a run."""

from __future__ import annotations

import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

Draw = Callable[[], Any]
"""Creates a ``Summary``; the writing thread calls it."""

PATTERN = "events.out.tfevents.*"
WAITING = 10_000  # summaries; a thousand take about 1 MB
STALLED = 30.0  # seconds for one summary, after which the disk counts as hung


class EventFile:
    """Passes summaries to a writing thread; after the first failure it accepts no more, and ``failure`` is the reason.

    The library's own writer is not used: if a full disk ends its thread, its ``add_`` functions wait forever. The file
    name contains the time in microseconds, so that the files of a run sort in the order of writing. Entries of earlier
    files from ``first_step`` on are discarded by readers.
    """

    def __init__(self, folder: Path, *, first_step: int = 1) -> None:
        self.path = folder / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.first_step = first_step
        self.failure: str | None = None
        self._items: queue.Queue[tuple[int, float, Draw] | None] = queue.Queue(WAITING)
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="tensorboard", daemon=True)
        self._thread.start()

    def put(self, step: int, draw: Draw) -> None:
        """Queue a summary; waits if the steps are faster than the thread, but not for a hung disk."""
        item = (step, time.time(), draw)
        while self.failure is None:
            since = self._busy_since
            if since is not None and time.monotonic() - since > STALLED:
                self.fail(f"the disk has not answered for {STALLED:g} seconds")
            else:
                with suppress(queue.Full):
                    return self._items.put(item, timeout=0.1)

    def fail(self, reason: str) -> None:
        """Accept no more summaries, and let the thread end."""
        self.failure = self.failure or reason
        with suppress(queue.Full):  # the thread is not waiting then
            self._items.put_nowait(None)

    def close(self, patience: float = 60.0) -> None:
        """Write the queued summaries and close the file; gives up after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        if self.failure is None:
            with suppress(queue.Full):
                self._items.put(None, timeout=patience)
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self.fail(f"the disk has not answered for {patience:g} seconds")

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a killed process loses nothing that was written. Exclusive: nothing is overwritten.
            with open(self.path, "xb", buffering=0) as file:
                self._write_all(file)
                os.fsync(file.fileno())
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}")

    def _write_all(self, file: FileIO) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        write_event(file, Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Every file starts a session, including the first: readers treat the second start as the first restart.
        start = SessionLog(status=SessionLog.START)
        write_event(file, Event(wall_time=time.time(), step=self.first_step, session_log=start))
        while (item := self._items.get()) is not None and not self.failure:
            step, wall_time, draw = item
            self._busy_since = time.monotonic()
            write_event(file, Event(wall_time=wall_time, step=step, summary=draw()))
            self._busy_since = None


def write_event(file: FileIO, event: Any) -> None:
    """Append an event as a TFRecord: length, its checksum, content, its checksum; raises ``OSError`` on disk errors."""
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    record = length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
    rest = memoryview(record)
    while rest:
        rest = rest[file.write(rest) :]
    if os.fstat(file.fileno()).st_nlink == 0:  # writing to a removed file raises nothing
        raise FileNotFoundError(f"{file.name} was deleted")
