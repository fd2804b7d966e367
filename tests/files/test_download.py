"""Downloads against a real server on this machine that behaves well, badly, or not at all."""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from finetune.components import Weights
from finetune.errors import DownloadError, ResourceError
from finetune.files.download import fetch
from finetune.files.transfer import Limits
from finetune.weights import fetching
from tests.clocks import LONGEST
from tests.files.server import DATA, HASTY, QUICK, SHA256, Server, files, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "name",
    [
        "good",
        "endless",
        "down_once",
        "busy_once",
        "cut_once",
        "cut_once_then_whole",
        "cut_once_then_changed",
        "cut_then_unsatisfiable",
        "zipped",
        "mislabelled",
        "moved",
        "moved_endlessly",
        "no_number",
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


@pytest.mark.parametrize(
    ("name", "calls", "text"),
    [
        ("missing", 1, "is not available, the server answered 404 Not Found; check the address, or put the file with"),
        ("forbidden", 1, "is not available, the server answered 403 Forbidden"),
        (
            "down",
            3,
            "could not be downloaded in 3 tries: the server answered 503 Service Unavailable; check the network",
        ),
        ("cut_always", 3, "in 3 tries: the connection was cut"),
        ("cut_in_chunks", 3, "in 3 tries: the connection was cut"),
        ("stall", 3, "in 3 tries: no data for 0.3 s"),
        ("silent", 3, "in 3 tries: no data for 0.3 s"),
        ("wrong", 1, "returned 512,000 other bytes instead of the expected file"),
        ("login", 1, "returned a web page titled 'Log in to WiFi' instead of the expected file"),
        ("pointer", 1, "returned a git-lfs pointer"),
        ("empty", 1, "returned an empty file"),
        ("zipped_badly", 1, "other bytes"),
        ("loop", 6, "redirects too often"),
        ("portal", 1, "redirects to 'http://portal.invalid', which is not https; use another address, or put"),
        ("portal_ftp", 1, "redirects to 'ftp://portal.invalid', which is not https"),
        ("portal_file", 1, "redirects to 'file://', which is not https"),
        ("nowhere", 1, "redirects to an invalid address; use another address, or put"),
        ("too_long", 3, "in 3 tries: the connection was cut"),
        ("too_short", 1, "returned 511,000 other bytes"),
        ("unasked_part", 1, "is not available, the server answered 206 Partial Content"),
        ("thousands_of_digits", 1, "exceeds 21,474,836,480 bytes"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_stays(server: str, target: Path, name: str, calls: int, text: str) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/{name}", SHA256, target, limits=HASTY if name in ("stall", "silent") else QUICK)
    message = str(caught.value)
    assert text in message
    assert message.endswith(f"put the file with {SHA256.replace(':', ' ')} at '{target}'")
    assert caught.value.exit_code == 4
    assert len(Server.calls) == calls
    assert files(target.parent) == []


def test_a_server_that_sends_next_to_nothing_is_given_up(server: str, target: Path) -> None:
    limits = Limits(connect=LONGEST, stall=1.0, trickle=100, tries=2, pause=0.01)
    with pytest.raises(DownloadError, match=r"in 2 tries: only \d+ bytes arrived in 1 s"):
        fetch(f"{server}/drip", SHA256, target, limits=limits)
    assert len(Server.calls) == 2
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
        fetch(f"{server}/huge", SHA256, target, limits=Limits(size=10**19))
    assert files(target.parent) == []


def test_what_is_too_large_by_its_own_word_is_not_even_begun(
    server: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.files.transfer._read_chunks", None)
    with pytest.raises(DownloadError, match="exceeds 511,999 bytes; put the file"):
        fetch(f"{server}/good", SHA256, target, limits=Limits(size=len(DATA) - 1))


def test_a_server_that_sends_more_than_was_promised_is_cut_off(server: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="exceeds 512,000 bytes; put the file"):
        fetch(f"{server}/more_than_said", SHA256, target, limits=Limits(size=len(DATA)))
    assert fetch(f"{server}/good", SHA256, target, limits=Limits(size=len(DATA))).read_bytes() == DATA
    target.unlink()
    source = target.with_name("source.bin")
    source.write_bytes(DATA)
    with pytest.raises(DownloadError, match="exceeds 511,999 bytes; put the file"):
        fetch(source.as_uri(), SHA256, target, limits=Limits(size=len(DATA) - 1))


def test_weights_that_say_their_size_come_in_that_size(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    record = Weights(url=f"{server}/more_than_said", sha256=SHA256[7:], layout="", bytes=len(DATA))
    with pytest.raises(DownloadError, match="no weights 'big' for 'net': the file exceeds 512,000 bytes\n"):
        fetching.fetch_weights("big", record, "net")
    assert files(tmp_path / "weights") == []


def test_headers_that_do_not_end(server: str, target: Path) -> None:
    limits = Limits(connect=0.7, stall=0.7, tries=1, pause=0.01)
    with pytest.raises(DownloadError, match=r"in 1 tries: no answer in 1\.4 s; check the network"):
        fetch(f"{server}/drip_headers", SHA256, target, limits=limits)
    assert files(target.parent) == []


@pytest.mark.parametrize("goes_on", ["", "&goes_on=1"], ids=["from the start", "goes on"])
@pytest.mark.parametrize("length", ["", "&length=1"], ids=["no length", "length"])
def test_cuts_anywhere(server: str, target: Path, length: str, goes_on: str) -> None:
    random.seed(3)
    for count in (0, 1, len(DATA) - 1, *(random.randrange(len(DATA)) for _ in range(8))):
        Server.calls.clear()
        limits = Limits(tries=4, pause=0.001)
        url = f"{server}/cut_at?count={count}{length}{goes_on}"
        if goes_on and count * limits.tries < len(DATA):
            with pytest.raises(DownloadError, match="in 4 tries: "):
                fetch(url, SHA256, target, limits=limits)
            assert files(target.parent) == []
        else:
            assert fetch(url, SHA256, target, limits=limits).read_bytes() == DATA
            assert len(Server.calls) == (-(-len(DATA) // count) if goes_on else 2)
            target.unlink()


def test_nobody_there(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_OFFLINE", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
        with pytest.raises(DownloadError, match="in 3 tries: no connection"):
            fetch(url, SHA256, target, limits=QUICK)


@pytest.mark.parametrize("url", ["http://example.org/a.ckpt", "ftp://example.org/a.ckpt", "a.ckpt", "data:,x"])
def test_other_addresses_are_refused(url: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="is neither https nor file; use another address, or put"):
        fetch(url, SHA256, target)


@pytest.mark.parametrize("url", ["https://[", "https://[x]/a?key=hush"])
def test_what_is_no_address(url: str, target: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"^'https://\[.*' is not a valid address; write https://HOST/PATH$"
    ) as caught:
        fetch(url, SHA256, target)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "digest", ["sha256:", "sha256:1234567", "sha256:" + "0" * 65, "md5:12345678", "sha1:" + "0" * 40, "0" * 64]
)
def test_a_hash_is_needed(digest: str, target: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"is not a valid hash for 'https://example.org/a'; write sha256: and 64 hex digits"
    ):
        fetch("https://example.org/a", digest, target)


def test_secrets_of_the_address_are_not_shown(server: str, target: Path) -> None:
    url = server.replace("//", "//user:hush@") + "/missing?token=hush"
    with pytest.raises(DownloadError) as caught:
        fetch(url, SHA256, target)
    assert "hush" not in str(caught.value)
    assert f"{server}/missing" in str(caught.value)


def test_no_tls(server: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="has an invalid TLS certificate; check the proxy"):
        fetch(server.replace("http", "https") + "/good", SHA256, target)


@pytest.fixture
def signed_by_itself(tmp_path: Path) -> Path:
    """Return a key and a certificate of 127.0.0.1 that is good for a day; skip without the program that makes them."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], capture_output=True, timeout=LONGEST, check=True)
    (tmp_path / "both.pem").write_text(key.read_text() + certificate.read_text())
    return tmp_path / "both.pem"


def test_a_certificate_that_nobody_signed(target: Path, signed_by_itself: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(signed_by_itself)
    with serving(tls) as address, pytest.raises(DownloadError, match="has an invalid TLS certificate"):
        fetch(f"{address}/good", SHA256, target, limits=QUICK)
    assert files(target.parent) == []


def test_no_progress_bar_without_a_terminal(server: str, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(f"{server}/good", SHA256, target)
    assert capfd.readouterr() == ("", "")
