"""How checkpoints are written: beside training, the best epoch never lost, and a disk that refuses survived."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import ResourceError
from finetune.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

KEEP = 2  # checkpoints, where no plugin says how many
# Where an epoch takes less time than twenty times what its checkpoint takes, not every one is worth it: what a kill
# costs is made again in the time of twenty checkpoints.
RARELY = 20
QUICK = 0.1  # seconds of a checkpoint that is written after every epoch in any case


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state of a run at one moment, and whether that is the end of its best epoch."""

    arrays: Mapping[str, NDArray[Any]]
    state: Mapping[str, Any]
    best: bool


Written = tuple[int, "Path", bool]  # epoch, path, best


class Saver:
    """Writes snapshots in order, one at a time, in a thread of its own or, where the caller waits, at once."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say, self.keep = folder, say, KEEP
        self._held: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._written: list[Written] = []
        self._error: BaseException | None = None
        self._refused = False  # by the disk, when this was tried last
        self._at, self._seconds = 0.0, 0.0

    @property
    def busy(self) -> bool:
        """Tell whether something is being written."""
        return self._thread is not None and self._thread.is_alive()

    def due(self) -> bool:
        """Tell whether a checkpoint is worth its time again, or the last one failed."""
        if self.busy:
            return False
        return self._refused or self._seconds < QUICK or time.monotonic() - self._at >= RARELY * self._seconds

    def hold(self, best: Snapshot) -> None:
        """Keep the best epoch in memory until the next checkpoint is written."""
        self._held = best

    def write(self, now: Snapshot) -> None:
        """Write a snapshot, and before it the best epoch if that still waits; raises what the disk raises."""
        self.join()
        self._write(self._waiting(now))
        error, self._error = self._error, None
        if error is not None:
            raise error

    def begin(self, now: Snapshot) -> None:
        """Begin to write a snapshot that nobody changes any more, beside what follows."""
        self.join()
        self._thread = threading.Thread(target=self._write, args=(self._waiting(now),), name="checkpoint")
        self._thread.start()

    def flush(self) -> None:
        """Wait until nothing is being written, and write the best epoch if that still waits."""
        self.join()
        if self._held is not None:
            self._write([self._held])
            self._held = self._held if self._refused else None

    def _waiting(self, now: Snapshot) -> list[Snapshot]:
        held, self._held = self._held, None
        return [now] if held is None or now.best else [held, now]

    def _write(self, snapshots: Sequence[Snapshot]) -> None:
        began, self._refused = time.monotonic(), False
        for number, each in enumerate(snapshots, 1):
            try:
                spare = len(snapshots) - number
                path = checkpoint.save(self.folder, each.arrays, each.state, best=each.best, keep=self.keep + spare)
            except BaseException as error:  # it reaches the run by ``finished``
                self._error, self._refused = error, isinstance(error, ResourceError)
                self._held = each if each.best else self._held
            else:
                self._written.append((each.state["epoch"], path, each.best))
        self._at = time.monotonic()
        self._seconds = (self._at - began) / len(snapshots)

    def finished(self) -> list[Written]:
        """Return what was written since this was asked last; a disk that refused is said, any other error raised."""
        if self.busy:
            return []
        self._thread = None
        written, self._written = self._written, []
        error, self._error = self._error, None
        if isinstance(error, ResourceError):
            self.say(f"warning: no checkpoint was written: {error}; the run goes on, and tries again")
        elif error is not None:
            raise error
        return written

    def join(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is not None:
            self._thread.join()


class NoSaver(Saver):
    """Writes nothing: for the processes of a run that leave that to the first one."""

    def write(self, now: Snapshot) -> None:
        """Write nothing."""

    def begin(self, now: Snapshot) -> None:
        """Begin to write nothing."""

    def hold(self, best: Snapshot) -> None:
        """Hold nothing."""
