"""A cache that is damaged, read-only or full: clean errors, and what was there stays."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from finetune.errors import DownloadError, ResourceError
from finetune.files.download import fetch
from tests.cli.calling import environment
from tests.clocks import LONGEST
from tests.files.conftest import CHILD, ended
from tests.files.server import DATA, QUICK, SHA256, Server, files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.files.conftest import Child

# Modes bind root as well once it gave up its capabilities.
LIKE_ANYBODY = "import ctypes; ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)())"


def test_a_damaged_file_is_fetched_again(server: str, target: Path) -> None:
    target.parent.mkdir()
    for damaged in (DATA[:-1], b"", b"\0" * len(DATA), DATA + b"x"):
        target.write_bytes(damaged)
        fetch(f"{server}/good", SHA256, target)
        assert target.read_bytes() == DATA
        assert files(target.parent) == [target.name]


def test_a_link_to_nowhere_is_replaced(server: str, target: Path) -> None:
    target.parent.mkdir()
    target.symlink_to("nowhere")
    assert fetch(f"{server}/good", SHA256, target).read_bytes() == DATA
    assert not target.is_symlink()


def test_a_folder_in_the_place_of_the_file(server: str, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(ResourceError, match="a folder has this name; choose another name"):
        fetch(f"{server}/good", SHA256, target)
    assert files(target.parent) == [target.name]


def test_a_file_in_the_place_of_the_folder(server: str, target: Path) -> None:
    target.parent.touch()
    with pytest.raises(ResourceError, match="a part of this path is a file; choose another folder"):
        fetch(f"{server}/good", SHA256, target)
    assert Server.calls == []


def test_a_read_only_folder(server: str, target: Path, child: Child) -> None:
    target.parent.mkdir()
    target.parent.chmod(0o555)
    try:
        code, said = ended(child(f"{server}/good", target, first=LIKE_ANYBODY))
        assert (code, said.startswith("ResourceError cannot write '")) == (7, True), said
        assert "permission denied; choose a folder that you may write to" in said
        assert list(target.parent.iterdir()) == []
        assert Server.calls == []
        target.parent.chmod(0o755)
        target.write_bytes(DATA)
        target.parent.chmod(0o555)
        assert ended(child(f"{server}/good", target, first=LIKE_ANYBODY)) == (0, "")
        for digest in (SHA256[:15], ""):  # there is no place for a hash of the first use
            assert ended(child(f"{server}/good", target, digest, first=LIKE_ANYBODY)) == (0, "")
        assert list(target.parent.iterdir()) == [target]
        assert Server.calls == []
    finally:
        target.parent.chmod(0o755)


def test_a_file_that_must_not_be_read(server: str, target: Path, child: Child) -> None:
    target.parent.mkdir()
    target.write_bytes(DATA)
    target.chmod(0)
    code, said = ended(child(f"{server}/good", target, first=LIKE_ANYBODY))
    assert code == 4
    assert said.endswith("cannot be read (Permission denied); change its permissions or remove it\n")
    code, said = ended(child(target.as_uri(), target.with_name("copy"), first=LIKE_ANYBODY))
    assert code == 4
    assert "cannot be read (Permission denied); change its permissions, or put" in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("good", "needs 512,000 bytes, "),
        ("endless", "the disk is full; free some space or choose another folder"),
        ("zipped", "the disk is full; free some space or choose another folder"),
        ("small", "the disk is full; free some space or choose another folder"),
    ],
)
def test_a_full_disk(server: str, tmp_path: Path, repo: Path, name: str, text: str) -> None:
    """On a file system of 200 kB that vanishes with the process."""
    mount = f"mount -t tmpfs -o size=200k none '{tmp_path}'"
    inside = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    target, url = tmp_path / "cache" / "file.bin", f"{server}/{name}"
    if name == "small":
        (tmp_path.parent / "source").write_bytes(DATA)
        url = (tmp_path.parent / "source").as_uri()
    python = f"'{sys.executable}' -P -c \"$CHILD\" '{url}' '{SHA256}' '{target}'"
    done = subprocess.run(
        [*inside, f'{mount} && {python}; code=$?; ls -A "{target.parent}" | grep -v lock; exit $code'],
        env=environment(repo, CHILD=CHILD.format(first="")),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("ResourceError ")
    assert text in done.stdout
    assert done.stdout.count("\n") == 1  # no file is listed


def test_a_disk_that_takes_no_large_file(server: str, target: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            ResourceError, match=r"cannot write '.*file.bin': the file is too large for the file system"
        ):
            fetch(f"{server}/good", SHA256, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(target.parent) == []


def test_a_cache_that_is_removed_meanwhile(server: str, target: Path, child: Child) -> None:
    process = child(f"{server}/paced", target)
    while Server.sent < 10_000:
        assert process.poll() is None
    shutil.rmtree(target.parent)
    code, said = ended(process)
    assert (code, f"'{target}' was removed while downloading; try again" in said) == (4, True), said


@pytest.mark.parametrize("length", [1, 240, 255])
def test_long_names(server: str, target: Path, length: int) -> None:
    """Whatever a file system takes as the name of a file."""
    target = target.with_name("x" * length)
    fetch(f"{server}/good", SHA256, target)
    assert list(target.parent.iterdir()) == [target]
    target.unlink()
    with pytest.raises(DownloadError):
        fetch(f"{server}/missing", SHA256, target, limits=QUICK)
    assert files(target.parent) == []
