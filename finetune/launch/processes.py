"""Processes of a launch, as seen by their parent: state, outcomes and errors."""

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
from finetune.distributed.world import PeerFailed
from finetune.errors import FinetuneError, Interrupted, ResourceError, UsageError

if TYPE_CHECKING:
    import subprocess

    from finetune.distributed.launch import Launch


HELLO = b"finetune"  # the first message of a parent, to recognise connections from port scanners and the like
DONE = b"."  # the last message of a parent whose processes ended normally
BETWEEN = 0.5  # seconds between two attempts to reach the first machine
# TCP keep-alive: seconds until the first probe of a silent machine, between probes, and how many may stay unanswered.
KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}


class Peers:
    """Connections between machines, to notice when one fails: MindSpore's processes wait for the others forever.

    The first machine listens on the port after MindSpore's; all others stay connected to it.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch, self.tried = launch, 0.0
        self.address = (launch.host, launch.port + 1)
        self.several = launch.size > len(launch.ranks)
        self.connections: list[socket.socket] = []
        self.strangers: set[socket.socket] = set()  # connections that have not sent HELLO yet
        self.listener: socket.socket | None = None
        if self.several and launch.node == 0:
            self.listener = self._open_socket()

    def _open_socket(self) -> socket.socket:
        try:
            listener = socket.create_server(("", self.address[1]))
        except OSError as error:
            why = f"port {self.address[1]} is not available ({error.strerror})"
            remedy = "set runner.master=HOST:PORT such that this port and the next are free"
            raise UsageError(f"{why}; {remedy}") from error
        listener.setblocking(False)
        return listener

    def is_lost(self) -> bool:
        """Return whether a machine has disconnected without ending normally."""
        if not self.several:
            return False
        self._connect()
        return any([self._has_left(each) for each in [*self.connections]])

    def _connect(self) -> None:
        """Accept or open a connection, if one is due."""
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

    def _has_left(self, connection: socket.socket) -> bool:
        stranger = connection in self.strangers
        try:
            received = connection.recv(len(HELLO) if stranger else 1)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        self.strangers.discard(connection)
        if stranger and received == HELLO:
            return False
        self.connections.remove(connection)
        connection.close()
        return not stranger and received != DONE

    def leave(self, *, done: bool) -> None:
        """Close all connections; ``done`` tells the other machines that the processes ended normally."""
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
    """A process of the run ended without reporting an error."""


@dataclass(slots=True, kw_only=True)
class Processes:
    """The processes of one launch: ``folder`` contains their task and outcomes, ``logs`` their output.

    ``deserted`` is True once the processes of another machine have ended.
    """

    launch: Launch
    folder: Path
    logs: Path
    msrun: subprocess.Popen[bytes]
    deserted: bool = False

    def path_of_log(self, rank: int) -> Path:
        return self.logs / f"worker_{rank}.log"

    def find_pids(self) -> dict[int, int]:
        """Return the process ids of all processes that have started, by rank."""
        found = ((rank, self.folder / f"rank-{rank}.pid") for rank in self.launch.ranks)
        return {rank: int(path.read_text()) for rank, path in found if path.exists()}

    def read_outcomes(self) -> dict[int, dict[str, Any]]:
        """Return the outcomes of all processes that have ended by themselves, by rank."""
        found = ((rank, self.folder / f"rank-{rank}.json") for rank in self.launch.ranks)
        return {rank: json.loads(path.read_text(encoding="utf-8")) for rank, path in found if path.exists()}

    def find_dead(self) -> dict[int, int]:
        """Return the exit codes or negative signals of processes that MindSpore's launcher saw fail, by process id."""
        with suppress(OSError):
            return {int(pid): int(code) for pid, code in DIED.findall((self.logs / "msrun.log").read_bytes())}
        return {}

    def has_failed(self) -> bool:
        """Return whether one process failed on its own, so that the others cannot continue."""
        lone = (each["exit_code"] and not each["everywhere"] for each in self.read_outcomes().values())
        return self.deserted or any(lone) or bool(self.find_dead())

    def is_in_order(self) -> bool:
        """Return whether all processes ended together."""
        return len(self.read_outcomes()) == len(self.launch.ranks) and not self.has_failed()

    def is_finished(self) -> bool:
        """Return whether all processes have written their outcomes and ended."""
        return len(self.read_outcomes()) == len(self.launch.ranks) and not any(
            map(is_member, self.find_pids().values())
        )

    def signal(self, signum: int, told: set[int]) -> set[int]:
        """Send a signal to every process that is not in ``told``; return the ids of these processes."""
        new = {*self.find_pids().values()} - told
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        return new

    def end(self) -> None:
        """Kill what is still running: the process group of MindSpore's launcher, and each process in its own group."""
        for pid in self.find_pids().values():
            if is_member(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.msrun.pid, signal.SIGKILL)
        self.msrun.wait()

    def explain_end(self, signum: int) -> FinetuneError | None:
        """Return the error that ended the run: that of the process that failed first, or of one that died silently.

        ``signum`` is the signal that asked the processes to end, or 0.
        """
        outcomes = self.read_outcomes()
        failed = {rank: each for rank, each in outcomes.items() if each["exit_code"]}
        own = {rank: each for rank, each in failed.items() if each["type"] != PeerFailed.__name__} or failed
        if own:
            rank, first = min(own.items(), key=lambda item: item[1]["time"])
            if signum and first["type"] == "KeyboardInterrupt":
                return Interrupted(signum, UNBEGUN)
            where = "" if first["everywhere"] else f" (process {rank}; its log: {self.path_of_log(rank)})"
            return errors.rebuild_error(first["type"], f"{first['message']}{where}", first["exit_code"])
        silent = [rank for rank in self.launch.ranks if rank not in outcomes]
        if not silent:
            return None
        if signum:
            return Interrupted(signum, UNBEGUN)
        dead = self.find_dead()
        if self.deserted and not dead:
            remedy = "look at its logs, then use `finetune run --resume` on all machines"
            return ProcessDied(f"the processes of another machine ended, so those of this one were stopped; {remedy}")
        codes = {rank: dead[pid] for rank, pid in self.find_pids().items() if pid in dead}
        if not codes:
            ended = f"MindSpore's launcher ended with code {self.msrun.returncode}"
            return ProcessDied(f"{ended}, and all processes with it; its log: {self.logs / 'msrun.log'}")
        rank = next(rank for rank in silent if rank in codes)
        return describe_death(rank, codes[rank], self.path_of_log(rank))


def describe_death(rank: int, code: int, log: Path) -> ProcessDied:
    """Return the error for a process that ended without reporting one."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    why = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
    error = ProcessDied(f"process {rank} of the run {how}{why}; all others were stopped; its log: {log}")
    error.exit_code = ResourceError.exit_code if code == -signal.SIGKILL else 1
    return error


def is_member(pid: int) -> bool:
    """Return whether a process id still belongs to a process of a launch, and was not reused."""
    try:
        return os.fsencode(WORKER) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
