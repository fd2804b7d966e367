"""Two machines train together: two network namespaces of this one, each with a name and an address of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

from finetune.distributed.launch import Launch, find_free_port
from finetune.errors import UsageError
from finetune.launch import launcher
from finetune.launch.processes import Peers
from tests import drawn
from tests.clocks import wait_for
from tests.launch import runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBERS = count(1)


def launch(node: int, port: int) -> Launch:
    ranks = range(node, node + 1)
    return Launch(device="cpu", size=2, ranks=ranks, node=node, host="127.0.0.1", port=port, timeout=60)


def count_looks(machines: Peers) -> int:
    """Return how often the launcher has to look, with its pause in between, until it misses a machine."""
    looks = 1
    while not machines.is_lost():
        assert looks < 1000
        time.sleep(launcher.LOOK)
        looks += 1
    return looks


def met(port: int) -> tuple[Peers, Peers]:
    first, second = Peers(launch(0, port)), Peers(launch(1, port))

    def connected() -> bool:
        assert [first.is_lost(), second.is_lost()] == [False, False]
        return bool(first.connections and second.connections)

    wait_for(connected)
    return first, second


@pytest.mark.parametrize("leaves", [0, 1])
def test_a_machine_that_leaves_without_a_word_is_missed(leaves: int) -> None:
    both = met(find_free_port())
    both[leaves].leave(done=False)
    assert count_looks(both[1 - leaves]) * launcher.LOOK <= 1.0
    both[1 - leaves].leave(done=False)


def test_one_that_is_done_is_not() -> None:
    first, second = met(find_free_port())
    second.leave(done=True)
    for _ in range(5):
        assert not first.is_lost()
        time.sleep(0.02)
    first.leave(done=True)


def test_strangers_may_come_and_go() -> None:
    port = find_free_port()
    first, second = met(port)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        with closing(socket.create_connection(("127.0.0.1", port + 1))) as stranger:
            stranger.send(said)
            assert not first.is_lost()
        for _ in range(5):
            assert not first.is_lost()
            time.sleep(0.02)
    second.leave(done=True)
    first.leave(done=True)


def test_one_machine_needs_no_port() -> None:
    alone = Peers(Launch(device="cpu", size=2, ranks=range(2), node=0, host="127.0.0.1", port=0, timeout=60))
    assert alone.listener is None
    assert not alone.is_lost()
    alone.leave(done=True)


def test_a_port_that_is_taken_is_said() -> None:
    with closing(socket.create_server(("", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} is not available .*runner\.master=HOST:PORT"):
            Peers(launch(0, port - 1))


@pytest.fixture
def spaces() -> Iterator[list[str]]:
    """Two network namespaces that reach each other as 10.97.0.1 and 10.97.0.2."""
    names = [f"ft{os.getpid()}n{next(NUMBERS)}" for _ in range(2)]
    made = [["ip", "netns", "add", name] for name in names]
    made += [["ip", "link", "add", "v0", "netns", names[0], "type", "veth", "peer", "name", "v1", "netns", names[1]]]
    for number, name in enumerate(names):
        made += [
            ["ip", "-n", name, "addr", "add", f"10.97.0.{number + 1}/24", "dev", f"v{number}"],
            ["ip", "-n", name, "link", "set", f"v{number}", "up"],
            ["ip", "-n", name, "link", "set", "lo", "up"],
        ]
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs the programs ip and unshare")
    try:
        for command in made:
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("this user may not make network namespaces")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def begun(place: Path, photos: Path, space: str, number: int, *changes: str) -> subprocess.Popen[str]:
    """Start the run of one machine."""
    inside = ("unshare", "-u", "sh", "-c", f'hostname machine{number}; exec ip netns exec {space} "$@"', "sh")
    said = ("runner.nodes=2", f"runner.node_rank={number}", "runner.master=10.97.0.1:8118", "output=../runs")
    return runs.begun(place / f"machine{number}", photos, *said, *changes, inside=inside)


@pytest.mark.once
def test_two_machines_end_with_one_run(tmp_path: Path, spaces: list[str]) -> None:
    photos = drawn.folder(tmp_path / "photos", each=20)
    both = [begun(tmp_path, photos, space, number) for number, space in enumerate(spaces)]
    done = [runs.ended(process, tmp_path) for process in both]
    assert [each.code for each in done] == [0, 0], done[1].errors
    assert done[0].result["devices"] == 2
    assert {path.name for path in (tmp_path / "runs" / "shared-001" / "logs").iterdir()} == {"001", "001-machine-1"}
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["shared-001"]


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_when_a_process_of_one_machine_dies_all_machines_end(tmp_path: Path, spaces: list[str], dies: int) -> None:
    photos = drawn.folder(tmp_path / "photos", each=20)
    both = [begun(tmp_path, photos, space, number, "train.epochs=500") for number, space in enumerate(spaces)]
    runs.after_step(tmp_path, both[0])
    os.kill(runs.members(tmp_path / f"machine{dies}")[dies], signal.SIGKILL)
    done = [runs.ended(process, tmp_path) for process in both]
    assert (done[dies].code, done[1 - dies].code) == (7, 1)
    assert f"process {dies} of the run was killed by SIGKILL" in done[dies].errors
    assert "the processes of another machine ended" in done[1 - dies].errors
    assert runs.remains(tmp_path) == []
