"""Several processes at once, and processes that are killed: the file is verified or not there, and nothing is left."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from finetune.files.download import fetch
from tests.cli.calling import command, environment
from tests.clocks import LONGEST, wait_for
from tests.files.conftest import ended
from tests.files.server import DATA, SHA256, Server, files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.files.conftest import Child

# What some file systems do, and what `huggingface_hub` was once found to survive badly.
NO_LOCKS = "import fcntl; fcntl.flock = lambda *_: None"


@pytest.mark.parametrize("sent", [0, 10_000, 250_000, len(DATA)])
def test_killed_in_the_middle(server: str, target: Path, child: Child, sent: int) -> None:
    victim = child(f"{server}/{'paced' if sent else 'silent'}", target)
    wait_for(lambda: bool(Server.calls) and Server.sent >= sent)
    victim.kill()
    assert victim.wait() == -9
    assert not target.exists() or target.read_bytes() == DATA
    fetch(f"{server}/good", SHA256, target)
    assert target.read_bytes() == DATA
    assert files(target.parent) == [target.name]


def test_killed_again_and_again(server: str, target: Path, child: Child) -> None:
    random.seed(7)
    left = 0
    for _ in range(8):
        Server.calls.clear()
        victim = child(f"{server}/paced", target)
        wait_for(lambda: bool(Server.calls))
        time.sleep(random.uniform(0, 0.4))
        victim.kill()
        victim.wait()
        assert not target.exists() or target.read_bytes() == DATA
        left = max(left, len(files(target.parent)))
    assert left == 1  # each sweeps what the last one left
    assert ended(child(f"{server}/good", target)) == (0, "")
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_r5_a_signal_while_weights_are_fetched(
    server: str, repo: Path, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    address = f"{server}/drip#{SHA256.replace(':', '=')}"
    words = command("weights", "fetch", address, "--backbone", "resnext_nano")
    env, pipe = environment(repo, FINETUNE_HOME=str(tmp_path / "home")), subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        wait_for(lambda: bool(Server.calls), process)
        time.sleep(0.3)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=LONGEST)  # the download would take hours
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".part", ".bin")]


def test_whoever_waits_takes_over_from_one_that_was_killed(server: str, target: Path, child: Child) -> None:
    first = child(f"{server}/paced", target)
    wait_for(lambda: Server.sent > 0)
    second = child(f"{server}/good", target)
    time.sleep(0.3)
    first.kill()
    assert ended(second) == (0, "")
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(("first", "requests"), [("", {1}), (NO_LOCKS, {1, 2, 3})], ids=["locks", "no locks"])
def test_several_processes(server: str, target: Path, child: Child, first: str, requests: set[int]) -> None:
    """They ask once between them; without locks at most once each."""
    processes = [child(f"{server}/paced", target, first=first) for _ in range(3)]
    assert [ended(process) for process in processes] == [(0, "")] * 3
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]
    assert len(Server.calls) in requests


@pytest.mark.parametrize("lock", ["real", "refused", "without effect"])
def test_several_threads(server: str, target: Path, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    if lock != "real":
        monkeypatch.setattr("filelock.FileLock.acquire", refuse if lock == "refused" else lambda *_, **__: None)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            fetch(f"{server}/slow", SHA256, target)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    run: list[Callable[[], None]] = [t.start for t in threads] + [t.join for t in threads]
    for step in run:
        step()
    assert not failures
    assert target.read_bytes() == DATA
    assert files(target.parent) == [target.name]
    assert len(Server.calls) == (1 if lock == "real" else 4)


def refuse(*args: object, **options: object) -> None:
    raise OSError("no locks here")


def test_files_whose_names_begin_alike_leave_each_other_alone(server: str, target: Path) -> None:
    target.parent.mkdir()
    others = [target.with_name(f".{target.name}{tail}.0123456789ab.tmp") for tail in (".gz", ".part", "x")]
    mine = target.with_name(f".{target.name}.0123456789ab.tmp")
    for path in (*others, mine):
        path.touch()
    fetch(f"{server}/good", SHA256, target)
    assert sorted(target.parent.iterdir()) == sorted([*others, target])
