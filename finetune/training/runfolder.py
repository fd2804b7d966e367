"""Run folders: numbered, never overwritten, and locked while a process uses them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from finetune.errors import ResourceError, UsageError
from finetune.files import atomic

if TYPE_CHECKING:
    from pathlib import Path


def create_folder(output: Path, name: str) -> Path:
    """Create and return the next free folder ``name-NNN`` in ``output``."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        taken = [int(m[1]) for p in output.iterdir() if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))]
        for number in range(max(taken, default=0) + 1, 1_000_000):
            folder = output / f"{name}-{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue  # another run took the number in between
            return folder
    except OSError as error:
        reason = f"{output} is a file" if os.path.isfile(output) else error.strerror
        why = f"cannot create a run folder in {output}: {reason}"
        raise ResourceError(f"{why}; choose another with --output") from error
    raise ResourceError(f"too many runs named '{name}' in {output}; choose another name")


class Lock:
    """A lock on a run folder against a second process; the kernel releases it however the process ends."""

    def __init__(self, folder: Path) -> None:
        self.owner = folder / ".lock-owner"
        self.lock = FileLock(folder / ".lock", timeout=0)

    def __enter__(self) -> None:
        try:
            self.lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"{self.owner.parent} is in use by {self._read_owner()}; wait for it or stop it"
            ) from error
        except (OSError, NotImplementedError):
            return  # a file system without locks must not stop a run
        atomic.write_text(self.owner, f"process {os.getpid()} on {socket.gethostname()}")
        for folder in (self.owner.parent, *self.owner.parent.glob("*/")):
            atomic.sweep(folder, older_than=0.0)  # temporary files of a killed process

    def __exit__(self, *exception: object) -> None:
        if self.lock.is_locked:
            with contextlib.suppress(OSError):  # must not hide the error that ended the run
                self.owner.unlink()
            self.lock.release()

    def _read_owner(self) -> str:
        try:
            return self.owner.read_text(encoding="utf-8")
        except OSError:
            return "another process"
