"""A misbehaving server, a place for a file, and child processes that fetch it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.cli.calling import environment
from tests.clocks import LONGEST
from tests.files.server import SHA256, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Child = Callable[..., subprocess.Popen[str]]

CHILD = """
import sys
from pathlib import Path
from finetune.errors import FinetuneError
from finetune.files.download import fetch
from finetune.files.transfer import Limits
{first}
try:
    fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]), limits=Limits(stall=240, tries=2, pause=0.01))
except FinetuneError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
"""


@pytest.fixture(autouse=True)
def own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the user's environment says about the network."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    for name in ("FINETUNE_OFFLINE", "FINETUNE_MIRROR", *names, *map(str.upper, names)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a cache 中文" / "file.bin"


@pytest.fixture
def child(repo: Path) -> Iterator[Child]:
    """Return a function that starts a process which runs ``first`` and fetches a file."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str, target: Path, digest: str = SHA256, first: str = "", **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-c", CHILD.format(first=first), url, digest, str(target)]
        process = subprocess.Popen(
            command, env=environment(repo, **env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit code and output of a process, which ends in seconds."""
    said, _ = process.communicate(timeout=LONGEST)
    return process.returncode, said
