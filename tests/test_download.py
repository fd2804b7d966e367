"""Downloads against a real server on this machine that behaves well, badly, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import resource
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from finetune.errors import DownloadError, ResourceError
from finetune.files.download import fetch
from finetune.files.transfer import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 2000
SHA256 = "sha256:" + hashlib.sha256(DATA).hexdigest()
QUICK = Limits(connect=2.0, stall=0.3, trickle=100, tries=3, pause=0.01)
LOGIN = b"<!DOCTYPE html><html><head><title>Log in\n to WiFi</title></head></html>"


class Server(BaseHTTPRequestHandler):
    """Answers ``/name`` with the method ``name``."""

    calls: ClassVar[list[str]]
    release: ClassVar[threading.Event]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.strip("/").partition("?")[0]
        self.calls.append(f"{name} {self.headers.get('Range', '')}".strip())
        self.close_connection = True
        getattr(self, name)()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def good(self) -> None:
        self.answer(200, DATA)

    def endless(self) -> None:
        self.answer(200, DATA, length=-1)

    def missing(self) -> None:
        self.answer(404, b"<html>not here</html>")

    def forbidden(self) -> None:
        self.answer(403)

    def down(self) -> None:
        self.answer(503)

    def down_once(self) -> None:
        self.answer(500) if len(self.calls) == 1 else self.good()

    def cut_always(self) -> None:
        self.answer(200, DATA[:1000], length=len(DATA))

    def cut_once(self) -> None:
        """Cut the first answer; go on where it was cut."""
        wanted = self.headers.get("Range")
        if not wanted:
            return self.answer(200, DATA[:100_000], length=len(DATA))
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        return self.answer(206, DATA[start:], Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")

    def cut_once_then_whole(self) -> None:
        self.answer(200, b"x" * 9, length=len(DATA)) if len(self.calls) == 1 else self.good()

    def cut_once_then_changed(self) -> None:
        """Cut the first answer, after which the file is another one."""
        if len(self.calls) == 1:
            self.answer(200, b"x" * 9, length=len(DATA))
        elif self.headers.get("Range"):
            self.answer(206, DATA[9:], Content_Range=f"bytes 9-{len(DATA) - 1}/{len(DATA)}")
        else:
            self.good()

    def cut_then_unsatisfiable(self) -> None:
        if len(self.calls) == 1:
            self.answer(200, DATA[:9], length=len(DATA))
        elif self.headers.get("Range"):
            self.answer(416)
        else:
            self.good()

    def cut_in_chunks(self) -> None:
        self.answer(200, b"3e8\r\n" + DATA[:1000] + b"\r\n3e8\r\nhalf", length=-1, Transfer_Encoding="chunked")

    def stall(self) -> None:
        self.answer(200, DATA[:1000], length=len(DATA))
        self.release.wait(5)

    def drip(self) -> None:
        self.answer(200, b"", length=len(DATA))
        while not self.release.wait(0.05):
            self.wfile.write(b"x")

    def silent(self) -> None:
        self.release.wait(5)

    def wrong(self) -> None:
        self.answer(200, DATA[:-1] + b"!")

    def login(self) -> None:
        self.answer(200, LOGIN, Content_Type="text/html")

    def pointer(self) -> None:
        self.answer(200, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")

    def empty(self) -> None:
        self.answer(200)

    def zipped(self) -> None:
        self.answer(200, gzip.compress(DATA), Content_Encoding="gzip")

    def zipped_badly(self) -> None:
        self.answer(200, gzip.compress(DATA)[:-20], Content_Encoding="gzip")

    def mislabelled(self) -> None:
        """Say of a file as it is that it was compressed on the way."""
        self.answer(200, DATA, Content_Encoding="x-gzip")

    def moved(self) -> None:
        self.answer(302, Location="/good")

    def loop(self) -> None:
        self.answer(302, Location="/loop")

    def portal(self) -> None:
        self.answer(302, Location="http://portal.invalid/login")

    def portal_ftp(self) -> None:
        self.answer(302, Location="ftp://portal.invalid/login")

    def huge(self) -> None:
        self.answer(200, b"x", length=10**18)

    def slow(self) -> None:
        time.sleep(0.3)
        self.good()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("FINETUNE_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Server.calls = []
    Server.release = threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    http.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    Server.release.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a cache 中文" / "file.bin"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize(
    "name",
    [
        "good",
        "endless",
        "down_once",
        "cut_once",
        "cut_once_then_whole",
        "cut_once_then_changed",
        "cut_then_unsatisfiable",
        "zipped",
        "mislabelled",
        "moved",
    ],
)
def test_the_file_arrives_whole(server: str, target: Path, name: str) -> None:
    assert fetch(f"{server}/{name}", SHA256, target, limits=QUICK) == target
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


def test_a_cut_download_goes_on_where_it_was_cut(server: str, target: Path) -> None:
    fetch(f"{server}/cut_once", SHA256, target, limits=QUICK)
    assert Server.calls == ["cut_once", "cut_once bytes=100000-"]


def test_md5_and_upper_case_are_taken_too(server: str, target: Path) -> None:
    fetch(f"{server}/good", "MD5:" + hashlib.md5(DATA).hexdigest().upper(), target)
    assert target.read_bytes() == DATA


def test_a_verified_file_needs_no_network(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    target.parent.mkdir()
    target.write_bytes(DATA)
    assert fetch("https://example.invalid/file.bin", SHA256, target) == target


def test_a_damaged_file_is_fetched_again(server: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(DATA[:-1])
    fetch(f"{server}/good", SHA256, target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("name", "calls", "text"),
    [
        ("missing", 1, "cannot be had, the server answered 404 Not Found; check the address, or put the file with"),
        ("forbidden", 1, "cannot be had, the server answered 403 Forbidden"),
        ("down", 3, "could not be fetched in 3 tries: the server answered 503 Service Unavailable; check the network"),
        ("cut_always", 3, "in 3 tries: the connection was cut"),
        ("cut_in_chunks", 3, "in 3 tries: the connection was cut"),
        ("stall", 3, "in 3 tries: nothing came for 0.3 s"),
        ("silent", 3, "in 3 tries: nothing came for 0.3 s"),
        ("drip", 3, "bytes came in 0.3 s"),
        ("wrong", 1, "gave 512,000 other bytes, not the file that was promised"),
        ("login", 1, "gave a web page titled 'Log in to WiFi', not the file that was promised"),
        ("pointer", 1, "gave a git-lfs pointer"),
        ("empty", 1, "gave an empty file"),
        ("zipped_badly", 1, "other bytes"),
        ("loop", 6, "leads from one address to the next"),
        ("portal", 1, "leads to 'http://portal.invalid', which is neither https nor file; use another address, or put"),
        ("portal_ftp", 1, "leads to 'ftp://portal.invalid', which is neither https nor file"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_stays(server: str, target: Path, name: str, calls: int, text: str) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/{name}", SHA256, target, limits=QUICK)
    message = str(caught.value)
    assert text in message
    assert message.endswith(f"put the file with {SHA256.replace(':', ' ')} at '{target}'")
    assert caught.value.exit_code == 4
    assert len(Server.calls) == calls
    assert files(target.parent) == []


def test_both_hashes_are_shown(server: str, target: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/wrong", SHA256, target)
    assert f"sha256 {hashlib.sha256(DATA[:-1] + b'!').hexdigest()}, expected {SHA256[7:]}" in str(caught.value)


def test_a_failed_download_keeps_the_file_that_was_there(server: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"older version")
    with pytest.raises(DownloadError):
        fetch(f"{server}/wrong", SHA256, target)
    assert target.read_bytes() == b"older version"


def test_size_is_bounded_by_limit_and_disk(server: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="exceeds 1,000 bytes; put the file"):
        fetch(f"{server}/endless", SHA256, target, limits=Limits(size=1000))
    with pytest.raises(ResourceError, match=r"needs 1,000,000,000,000,000,000 bytes, .* are free; free some space"):
        fetch(f"{server}/huge", SHA256, target)
    assert files(target.parent) == []


def test_nobody_there(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_OFFLINE", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
        with pytest.raises(DownloadError, match="in 3 tries: no connection"):
            fetch(url, SHA256, target, limits=QUICK)


def test_a_proxy_that_does_not_answer(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DownloadError, match="in 3 tries: the proxy does not answer"):
        fetch(f"{server}/good", SHA256, target, limits=QUICK)


@pytest.mark.parametrize("url", ["http://example.org/a.ckpt", "ftp://example.org/a.ckpt", "a.ckpt", "data:,x"])
def test_other_addresses_are_refused(url: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="is neither https nor file; use another address, or put"):
        fetch(url, SHA256, target)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:12", "sha1:" + "0" * 40, "0" * 64])
def test_a_hash_is_needed(digest: str, target: Path) -> None:
    with pytest.raises(DownloadError, match=r"is no hash of 'https://example.org/a'; write sha256: and 64 hex digits"):
        fetch("https://example.org/a", digest, target)


def test_secrets_of_the_address_are_not_shown(server: str, target: Path) -> None:
    url = server.replace("//", "//user:hush@") + "/missing?token=hush"
    with pytest.raises(DownloadError) as caught:
        fetch(url, SHA256, target)
    assert "hush" not in str(caught.value)
    assert f"{server}/missing" in str(caught.value)


def test_offline_makes_no_socket(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(DownloadError) as caught:
        fetch("https://example.org/a", SHA256, target)
    wanted = f"put the file with {SHA256.replace(':', ' ')} at '{target}'"
    text = f"'https://example.org/a' is needed, but FINETUNE_OFFLINE is set; unset it, or {wanted}"
    assert str(caught.value) == text


def test_a_file_address_works_offline(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    source = tmp_path / "a mirror #1.bin"
    source.write_bytes(DATA)
    assert fetch(source.as_uri(), SHA256, target).read_bytes() == DATA
    target.unlink()
    source.write_bytes(b"other")
    with pytest.raises(DownloadError, match="gave 5 other bytes"):
        fetch(source.as_uri(), SHA256, target)
    with pytest.raises(DownloadError, match="does not exist; use another address, or put the file"):
        fetch((tmp_path / "none").as_uri(), SHA256, target)


@pytest.mark.parametrize("lock", ["real", "refused", "without effect"])
def test_several_at_once(server: str, target: Path, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
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


def test_a_disk_that_takes_no_more(server: str, target: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"cannot write '.*file.bin': the file system holds no file that large"):
            fetch(f"{server}/good", SHA256, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(target.parent) == []


def test_no_tls(server: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be trusted: its TLS certificate does not check; mend the proxy"):
        fetch(server.replace("http", "https") + "/good", SHA256, target)


def test_no_progress_bar_without_a_terminal(server: str, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(f"{server}/good", SHA256, target)
    assert capfd.readouterr() == ("", "")
