"""``FINETUNE_MIRROR``: other addresses that are asked first, in order, and never trusted."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from finetune.errors import DownloadError, ResourceError
from finetune.files.download import fetch
from finetune.files.transfer import Limits
from tests.files.server import DATA, HASTY, QUICK, SHA256, Server, files

if TYPE_CHECKING:
    from pathlib import Path

AWAY = "https://example.invalid:8443/some%20where/file.bin?key=hush"


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return what sets ``FINETUNE_MIRROR``; no other machine is asked."""
    known = socket.getaddrinfo

    def lookup(host: str, *more: object, **options: object) -> object:
        if host != "127.0.0.1":
            raise socket.gaierror(f"no address of {host}")
        return known(host, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return monkeypatch


def mirrored(folder: Path, data: bytes = DATA) -> str:
    """Put a file where ``wget -x`` puts that of ``AWAY``, and return the mirror's address."""
    place = folder / "example.invalid:8443" / "some where" / "file.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    return folder.as_uri()


def test_a_mirror_comes_first(server: str, target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_MIRROR", f"{server}/good/")
    paths: list[str] = []

    def good(self: Server) -> None:
        paths.append(self.path)
        self.answer(200, DATA)

    mirrors.setattr(Server, "good", good)
    fetch(AWAY, SHA256, target)
    fetch(f"{server.replace('//', '//user:hush@')}/file", SHA256, target.with_name("another"))
    assert paths == ["/good/example.invalid:8443/some%20where/file.bin", f"/good/{server.partition('//')[2]}/file"]
    assert files(target.parent) == ["another", target.name]


def test_a_mirror_in_a_folder(tmp_path: Path, target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_MIRROR", mirrored(tmp_path / "a mirror"))
    mirrors.setenv("FINETUNE_OFFLINE", "1")
    mirrors.setattr(socket, "socket", None)
    assert fetch(AWAY, SHA256, target).read_bytes() == DATA


@pytest.mark.parametrize("name", ["missing", "forbidden", "down", "cut_always", "stall", "wrong", "login", "loop"])
def test_a_mirror_that_fails_makes_room_for_the_next(
    server: str, tmp_path: Path, target: Path, mirrors: pytest.MonkeyPatch, name: str
) -> None:
    mirrors.setenv("FINETUNE_MIRROR", f"{server}/{name} {mirrored(tmp_path / 'second')}")
    assert fetch(AWAY, SHA256, target, limits=HASTY if name == "stall" else QUICK).read_bytes() == DATA
    assert Server.calls[0] == name
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("name", ["missing", "portal", "too_short"])
def test_the_own_address_comes_last(server: str, target: Path, mirrors: pytest.MonkeyPatch, name: str) -> None:
    mirrors.setenv("FINETUNE_MIRROR", f"{server}/{name}  https://nobody.invalid\n")
    assert fetch(f"{server}/good", SHA256, target, limits=QUICK).read_bytes() == DATA
    assert Server.calls == [name, "good"]


def test_what_each_said_is_listed(server: str, tmp_path: Path, target: Path, mirrors: pytest.MonkeyPatch) -> None:
    other = mirrored(tmp_path / "other", b"other")
    secret = server.replace("//", "//user:hush@")
    mirrors.setenv("FINETUNE_MIRROR", f"{secret}/missing?token=hush {other} file:///nowhere https://nobody.invalid/x")
    with pytest.raises(DownloadError) as caught:
        fetch(AWAY, SHA256, target, limits=QUICK)
    first, *lines = str(caught.value).splitlines()
    path = "example.invalid:8443/some%20where/file.bin"
    assert first == f"'https://{path}' cannot be downloaded from 5 addresses:"
    assert lines[0] == f"  '{server}/missing/{path}' is not available, the server answered 404 Not Found"
    assert lines[1].startswith(
        f"  '{other}/{path}' returned 5 other bytes instead of the expected file: sha256 d9298a10"
    )
    assert lines[2] == f"  'file:///nowhere/{path}' does not exist"
    assert lines[3] == f"  'https://nobody.invalid/x/{path}' could not be downloaded in 3 tries: no connection"
    last, _, remedy = lines[4].partition("; ")
    assert last == f"  'https://{path}' could not be downloaded in 3 tries: no connection"
    wanted = f"put the file with {SHA256.replace(':', ' ')} at '{target}'"
    assert remedy == f"check FINETUNE_MIRROR and the network, or {wanted}"
    assert "hush" not in str(caught.value)
    assert caught.value.exit_code == 4
    assert files(target.parent) == []


def test_offline_only_folders_are_asked(server: str, tmp_path: Path, target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_OFFLINE", "1")
    mirrors.setenv("FINETUNE_MIRROR", f"{server}/good")
    with pytest.raises(DownloadError, match=r"file.bin' is needed, but FINETUNE_OFFLINE is set; unset it, or put"):
        fetch(AWAY, SHA256, target)
    mirrors.setenv("FINETUNE_MIRROR", f"{server}/good {(tmp_path / 'none').as_uri()}")
    with pytest.raises(DownloadError) as caught:
        fetch(AWAY, SHA256, target)
    first, second = str(caught.value).splitlines()
    assert first.endswith("is needed, but FINETUNE_OFFLINE is set, and no mirror has it:")
    assert "none/example.invalid:8443/some%20where/file.bin' does not exist; unset it, or put the file with" in second
    assert Server.calls == []


@pytest.mark.parametrize("base", ["http://example.org", "ftp://example.org", "/srv/mirror", "https://[", "s3://x/y"])
def test_what_is_no_mirror(target: Path, mirrors: pytest.MonkeyPatch, base: str) -> None:
    mirrors.setenv("FINETUNE_MIRROR", base)
    text = f"'{base}' in FINETUNE_MIRROR is not the address of a mirror; write https://HOST/PATH or file:///PATH"
    with pytest.raises(DownloadError) as caught:
        fetch(AWAY, SHA256, target)
    assert str(caught.value) == text


def test_secrets_of_what_is_no_mirror(target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_MIRROR", "http://user:hush@example.org/x?token=hush")
    with pytest.raises(DownloadError, match=r"^'example.org/x' in FINETUNE_MIRROR is not the address of a mirror"):
        fetch(AWAY, SHA256, target)


def test_files_have_no_mirror(tmp_path: Path, target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_MIRROR", mirrored(tmp_path / "mirror"))
    with pytest.raises(DownloadError, match=r"^'file:///nowhere' does not exist; use another address, or put"):
        fetch("file:///nowhere", SHA256, target)


@pytest.mark.parametrize("path", ["../secret", "a/%2e%2E/../secret", "a/..%2f..%2fsecret", "."])
def test_no_address_leads_out_of_a_mirror(tmp_path: Path, target: Path, mirrors: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "mirror" / "localhost").mkdir(parents=True)
    (tmp_path / "mirror" / "secret").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(DATA)
    mirrors.setenv("FINETUNE_MIRROR", (tmp_path / "mirror").as_uri())
    mirrors.setenv("FINETUNE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="is needed, but FINETUNE_OFFLINE is set; unset it"):
        fetch(f"http://localhost/{path}", SHA256, target)


def test_a_mirror_may_send_no_more_than_others(server: str, target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_MIRROR", f"{server}/more_than_said {server}/huge")
    assert fetch(f"{server}/good", SHA256, target, limits=Limits(size=len(DATA))).read_bytes() == DATA


def test_a_full_disk_is_no_reason_to_ask_the_next(server: str, target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_MIRROR", f"{server}/huge")
    with pytest.raises(ResourceError, match="free some space"):
        fetch(f"{server}/good", SHA256, target, limits=Limits(size=10**19))
    assert Server.calls == ["huge"]


def test_what_is_here_needs_no_mirror(target: Path, mirrors: pytest.MonkeyPatch) -> None:
    mirrors.setenv("FINETUNE_MIRROR", "nonsense")
    target.parent.mkdir()
    target.write_bytes(DATA)
    assert fetch(AWAY, SHA256, target) == target
