"""A file system of 20 MB that becomes full, where this machine lets a test mount one."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def mounted(place: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a folder is a file system of 20 MB."""
    place.mkdir()
    inside = f"mount -t tmpfs -o size=20m tmpfs {shlex.quote(str(place))} && {command}"
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.once
def test_c9_full_at_every_kind_of_write(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        if mounted(tmp_path / "try", "true").returncode:
            pytest.skip("this machine lets no test mount a file system")
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    monkeypatch.setenv("PYTHONPATH", str(repo), prepend=":")
    disk = tmp_path / "disk"
    done = mounted(disk, shlex.join([sys.executable, "-m", "tests.faults.full_disk", str(disk)]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": right\n") >= 8
