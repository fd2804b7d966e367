"""The processes of one launch as their parent sees them: where they are, what they came to, and their end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import errors
from finetune.distributed.launch import WORKER
from finetune.errors import FinetuneError, Interrupted, ResourceError, UsageError

if TYPE_CHECKING:
    import subprocess

    from finetune.distributed.launch import Launch


HELLO = b"finetune"  # what a parent says first; others may connect to any port, as those who look for open ones do
DONE = b"."  # what a parent says before it leaves in good order
BETWEEN = 0.5  # seconds between two tries to reach the first machine
# Seconds until a machine that went away without a word is asked, between questions, and how many go unanswered.
KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}


class Machines:
    """The first machine listens at the port after that of MindSpore's, all others stay connected to it.

    MindSpore's processes wait for the others without end, whatever became of them.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch, self.tried = launch, 0.0
        self.address = (launch.host, launch.port + 1)
        self.several = launch.size > len(launch.ranks)
        self.connections: list[socket.socket] = []
        self.strangers: set[socket.socket] = set()  # who has not said hello yet
        self.listener: socket.socket | None = None
        if self.several and launch.node == 0:
            self.listener = self._listening()

    def _listening(self) -> socket.socket:
        try:
            listener = socket.create_server(("", self.address[1]))
        except OSError as error:
            why = f"port {self.address[1]} cannot be listened at: {error.strerror}"
            raise UsageError(
                f"{why}; name two free ones in a row by the first of them: runner.master=HOST:PORT"
            ) from error
        listener.setblocking(False)
        return listener

    def lost(self) -> bool:
        """Tell whether a machine has left other than in good order."""
        if not self.several:
            return False
        self._meet()
        return any([self._left(each) for each in [*self.connections]])

    def _meet(self) -> None:
        """Take or make a connection, if one is due."""
        with suppress(OSError):
            if self.listener is not None:
                stranger = self.listener.accept()[0]
                self._keep(stranger)
                self.strangers.add(stranger)
            elif not self.tried or (self.tried > 0 and time.monotonic() - self.tried >= BETWEEN):
                self.tried = time.monotonic()
                first = socket.create_connection(self.address, timeout=BETWEEN)
                first.send(HELLO)
                self._keep(first)
                self.tried = -1.0

    def _keep(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connections.append(connection)

    def _left(self, connection: socket.socket) -> bool:
        stranger = connection in self.strangers
        try:
            said = connection.recv(len(HELLO) if stranger else 1)
        except BlockingIOError:
            return False
        except OSError:
            said = b""
        self.strangers.discard(connection)
        if stranger and said == HELLO:
            return False
        self.connections.remove(connection)
        connection.close()
        return not stranger and said != DONE

    def leave(self, *, done: bool) -> None:
        """Close all connections; the others hear whether all was in good order."""
        for connection in self.connections:
            with suppress(OSError):
                if done:
                    connection.send(DONE)
                connection.close()
        if self.listener is not None:
            self.listener.close()


UNBEGUN = "stopped before training began; nothing was written"
DIED = re.compile(rb"Worker process (\d+) exit with exception\. Error code: (-?\d+)")


class ProcessDied(FinetuneError):
    """A process of the run ended without a word."""


@dataclass(slots=True, kw_only=True)
class Processes:
    """The processes of one launch: ``folder`` holds what they are told and what they tell, ``logs`` what they print.

    ``deserted`` tells that those of another machine are gone.
    """

    launch: Launch
    folder: Path
    logs: Path
    msrun: subprocess.Popen[bytes]
    deserted: bool = False

    def log(self, rank: int) -> Path:
        """Return the log of a process."""
        return self.logs / f"worker_{rank}.log"

    def pids(self) -> dict[int, int]:
        """Return the process ids by rank of all that have come so far."""
        found = ((rank, self.folder / f"rank-{rank}.pid") for rank in self.launch.ranks)
        return {rank: int(path.read_text()) for rank, path in found if path.exists()}

    def outcomes(self) -> dict[int, dict[str, Any]]:
        """Return what the processes came to, by rank."""
        found = ((rank, self.folder / f"rank-{rank}.json") for rank in self.launch.ranks)
        return {rank: json.loads(path.read_text(encoding="utf-8")) for rank, path in found if path.exists()}

    def dead(self) -> dict[int, int]:
        """Return the codes, or negative signals, of processes that MindSpore's launcher saw end badly, by process."""
        with suppress(OSError):
            return {int(pid): int(code) for pid, code in DIED.findall((self.logs / "msrun.log").read_bytes())}
        return {}

    def failed(self) -> bool:
        """Tell whether a process ended by itself, which the others cannot go on without."""
        lone = (each["exit_code"] and not each["everywhere"] for each in self.outcomes().values())
        return self.deserted or any(lone) or bool(self.dead())

    def in_order(self) -> bool:
        """Tell whether all ended as one."""
        return len(self.outcomes()) == len(self.launch.ranks) and not self.failed()

    def finished(self) -> bool:
        """Tell whether all have told what they came to, and are gone."""
        return len(self.outcomes()) == len(self.launch.ranks) and not any(map(is_member, self.pids().values()))

    def signal(self, signum: int, told: set[int]) -> set[int]:
        """Send a signal to every process that was not ``told``, and return those."""
        new = {*self.pids().values()} - told
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        return new

    def end(self) -> None:
        """End what has not ended yet: the group of MindSpore's launcher, and the processes, each of its own group."""
        for pid in self.pids().values():
            if is_member(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.msrun.pid, signal.SIGKILL)
        self.msrun.wait()

    def verdict(self, signum: int) -> FinetuneError | None:
        """Return what ended the run too early: the word of the process that failed first, or which died without one.

        ``signum`` is the signal that asked them to end, if any did.
        """
        outcomes = self.outcomes()
        failed = {rank: each for rank, each in outcomes.items() if each["exit_code"]}
        own = {rank: each for rank, each in failed.items() if each["type"] != "Elsewhere"} or failed
        if own:
            rank, first = min(own.items(), key=lambda item: item[1]["time"])
            if signum and first["type"] == "KeyboardInterrupt":
                return Interrupted(signum, UNBEGUN)
            where = "" if first["everywhere"] else f" (process {rank}; its log: {self.log(rank)})"
            return errors.rebuild_error(first["type"], f"{first['message']}{where}", first["exit_code"])
        silent = [rank for rank in self.launch.ranks if rank not in outcomes]
        if not silent:
            return None
        if signum:
            return Interrupted(signum, UNBEGUN)
        dead = self.dead()
        if self.deserted and not dead:
            remedy = "look there, and go on with `finetune run --resume` on all"
            return ProcessDied(f"the processes of another machine ended, and those of this one were ended; {remedy}")
        codes = {rank: dead[pid] for rank, pid in self.pids().items() if pid in dead}
        if not codes:
            ended = f"MindSpore's launcher ended with code {self.msrun.returncode}"
            return ProcessDied(f"{ended}, and all processes with it; its log: {self.logs / 'msrun.log'}")
        rank = next(rank for rank in silent if rank in codes)
        return died(rank, codes[rank], self.log(rank))


def died(rank: int, code: int, log: Path) -> ProcessDied:
    """Return the error for a process that ended without a word."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    why = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
    error = ProcessDied(f"process {rank} of the run {how}{why}; all others were ended; its log: {log}")
    error.exit_code = ResourceError.exit_code if code == -signal.SIGKILL else 1
    return error


def is_member(pid: int) -> bool:
    """Tell whether a process, the number of which may be another's by now, is one of a launch."""
    try:
        return os.fsencode(WORKER) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
