"""The other machines of a run: whether the parents of their processes still live, over one connection each."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from finetune.errors import UsageError

if TYPE_CHECKING:
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
