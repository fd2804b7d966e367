"""Files whose publisher states no whole hash: the first one is trusted, and from then on no other."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from finetune.errors import DownloadError
from finetune.files.download import fetch
from tests.files.conftest import ended
from tests.files.server import DATA, QUICK, SHA256, Server, files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.files.conftest import Child

HEX = SHA256.partition(":")[2]
PREFIX = SHA256[: len("sha256:") + 8]
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize("digest", ["", PREFIX, PREFIX.upper(), SHA256[:-1]])
def test_the_hash_of_the_first_use_is_kept_beside_the_file(server: str, target: Path, digest: str) -> None:
    assert fetch(f"{server}/good", digest, target) == target
    assert files(target.parent) == [target.name, f"{target.name}.sha256"]
    assert target.with_name(f"{target.name}.sha256").read_text() == f"{HEX}  {target.name}\n"
    check = ["sha256sum", "--check", "--strict", f"{target.name}.sha256"]
    assert subprocess.run(check, cwd=target.parent, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("digest", ["", PREFIX])
def test_a_file_that_changed_here_is_refused_and_stays(
    server: str, target: Path, monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    fetch(f"{server}/good", digest, target)
    monkeypatch.setattr(socket, "socket", None)
    assert fetch(f"{server}/good", digest, target) == target
    target.write_bytes(b"other")
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/good", digest, target)
    assert str(caught.value) == (
        f"'{target}' has sha256 {OTHER}, not {HEX} as at its first use; "
        f"remove it to download it again, and also remove '{target}.sha256' if you trust the new file"
    )
    assert caught.value.exit_code == 4
    assert target.read_bytes() == b"other"
    assert Server.calls == ["good"]


@pytest.mark.parametrize("digest", ["", PREFIX])
def test_a_file_that_changed_there_is_refused(server: str, target: Path, digest: str) -> None:
    fetch(f"{server}/good", digest, target)
    target.unlink()
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/wrong", digest, target)
    assert f"expected {HEX} as at its first use; remove '{target}.sha256' if you trust the new file" in str(
        caught.value
    )
    assert files(target.parent) == [f"{target.name}.sha256"]
    assert fetch(f"{server}/good", digest, target).read_bytes() == DATA


def test_a_whole_hash_needs_no_mark(server: str, target: Path) -> None:
    fetch(f"{server}/good", SHA256, target)
    assert files(target.parent) == [target.name]
    target.with_name(f"{target.name}.sha256").write_text(f"{OTHER}  {target.name}\n")
    assert fetch(f"{server}/good", SHA256, target) == target


def test_a_file_put_there_by_hand_is_a_first_use(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    target.parent.mkdir()
    target.write_bytes(DATA)
    assert fetch("https://example.invalid/file.bin", "", target) == target
    assert files(target.parent) == [target.name, f"{target.name}.sha256"]


@pytest.mark.parametrize("text", ["", "nonsense", "0" * 63, b"\xff\xfe"])
def test_a_mark_that_is_none_is_written_anew(server: str, target: Path, text: str | bytes) -> None:
    mark = target.with_name(f"{target.name}.sha256")
    mark.parent.mkdir()
    mark.write_bytes(text.encode() if isinstance(text, str) else text)
    fetch(f"{server}/good", "", target)
    assert mark.read_text().startswith(HEX)


def test_a_mark_of_another_file(server: str, target: Path) -> None:
    target.parent.mkdir()
    target.with_name(f"{target.name}.sha256").write_text(OTHER)
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/good", PREFIX, target)
    said = f"stores sha256 {OTHER}, which does not begin with {HEX[:8]}; remove it if you trust the new hash"
    assert str(caught.value).endswith(said)


def test_a_prefix_tells_a_damaged_file(server: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"other")
    assert fetch(f"{server}/good", PREFIX, target).read_bytes() == DATA
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/wrong", PREFIX, target.with_name("second"))
    message = str(caught.value)
    assert f", expected {HEX[:8]}…; check the address" in message
    assert message.endswith(f"put the file with sha256 {HEX[:8]}… at '{target.with_name('second')}'")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("login", "returned a web page titled 'Log in to WiFi' instead of the expected file; check the address and"),
        ("pointer", "returned a git-lfs pointer"),
        ("empty", "returned an empty file"),
        ("endless", "has no hash, and the server's answer does not show whether it is complete; put the file at"),
        ("zipped", "has no hash, and the server's answer does not show whether it is complete"),
        ("cut_always", "in 3 tries: the connection was cut"),
        ("cut_in_chunks", "in 3 tries: the connection was cut"),
        ("unasked_part", "the server answered 206"),
        ("missing", "the server answered 404"),
        ("portal", "redirects to 'http://portal.invalid', which is not https"),
    ],
)
def test_without_a_hash_all_else_is_checked(server: str, target: Path, name: str, text: str) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/{name}", "", target, limits=QUICK)
    assert text in str(caught.value)
    assert str(caught.value).endswith(f"put the file at '{target}'")
    assert files(target.parent) == []


@pytest.mark.parametrize("name", ["good", "moved", "busy_once", "cut_once_then_whole"])
def test_without_a_hash_the_file_arrives_whole(server: str, target: Path, name: str) -> None:
    assert fetch(f"{server}/{name}", "", target, limits=QUICK).read_bytes() == DATA


def test_without_a_hash_nothing_is_put_together(server: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="in 3 tries: the connection was cut"):
        fetch(f"{server}/cut_once", "", target, limits=QUICK)
    assert Server.calls == ["cut_once"] * 3


def test_killed_and_several_processes(server: str, target: Path, child: Child) -> None:
    victim = child(f"{server}/paced", target, "")
    while Server.sent < 100_000:
        assert victim.poll() is None
    victim.kill()
    victim.wait()
    processes = [child(f"{server}/paced", target, "") for _ in range(2)]
    assert [ended(process) for process in processes] == [(0, "")] * 2
    assert target.read_bytes() == DATA
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, f"{target.name}.sha256"]
    assert len(Server.calls) == 2
