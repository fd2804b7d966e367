"""Without network: what is here is used, nothing else is, and no socket is opened."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from finetune.errors import DownloadError
from finetune.files.download import fetch
from tests.cli.calling import RECIPE, environment
from tests.drawn import folder
from tests.files.server import DATA, QUICK, SHA256

if TYPE_CHECKING:
    from pathlib import Path

# An audit hook sees every socket, also those of code that is not Python; nothing can catch what it does.
GUARD = """
import os, sys

def guard(event, arguments):
    if event in ("socket.__new__", "socket.getaddrinfo", "socket.gethostbyname", "socket.connect"):
        os.write(2, f"{event} {arguments}".encode())
        os._exit(99)

sys.addaudithook(guard)
"""
MAIN = "from finetune.cli import main; sys.exit(main())"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)


@pytest.mark.usefixtures("no_network")
def test_what_is_not_here_is_refused(target: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch("https://example.org/a", SHA256, target)
    wanted = f"put the file with {SHA256.replace(':', ' ')} at '{target}'"
    text = f"'https://example.org/a' is needed, but FINETUNE_OFFLINE is set; unset it, or {wanted}"
    assert str(caught.value) == text
    assert not target.parent.exists()


@pytest.mark.usefixtures("no_network")
def test_what_is_here_is_taken(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(DATA)
    assert fetch("https://example.invalid/file.bin", SHA256, target) == target


def test_what_is_here_needs_no_network_online_either(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    target.parent.mkdir()
    target.write_bytes(DATA)
    assert fetch("https://example.invalid/file.bin", SHA256, target) == target


@pytest.mark.usefixtures("no_network")
def test_a_file_address_works(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "a mirror #1.bin"
    source.write_bytes(DATA)
    assert fetch(source.as_uri(), SHA256, target).read_bytes() == DATA
    target.unlink()
    source.write_bytes(b"other")
    with pytest.raises(DownloadError, match="returned 5 other bytes"):
        fetch(source.as_uri(), SHA256, target)
    for url in ((tmp_path / "none").as_uri(), tmp_path.as_uri(), "file://elsewhere/a", "file:///a%00b"):
        with pytest.raises(DownloadError, match="does not exist; use another address, or put the file"):
            fetch(url, SHA256, target)
    assert list(target.parent.iterdir()) == [target.with_name(f".{target.name}.lock")]


def test_a_proxy_that_does_not_answer(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:hush@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DownloadError, match="in 3 tries: the proxy does not answer") as caught:
        fetch(f"{server}/good", SHA256, target, limits=QUICK)
    assert "hush" not in str(caught.value)


# The command line


def called(repo: Path, cwd: Path, *arguments: str, guard: str = GUARD, **env: str) -> subprocess.CompletedProcess[str]:
    env = {"FINETUNE_HOME": str(cwd / "home"), "FINETUNE_OFFLINE": "1", **env}
    return subprocess.run(
        [sys.executable, "-P", "-c", guard + MAIN, *arguments],
        cwd=cwd,
        env=environment(repo, **env),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with photos and a recipe whose weights are elsewhere."""
    folder(tmp_path / "photos", each=8)
    address = "https://example.invalid/nano.safetensors#" + SHA256.replace(":", "=")
    (tmp_path / "away.yaml").write_text(RECIPE.replace("weights: none", f"weights: '{address}'"))
    (tmp_path / "here.yaml").write_text(RECIPE)
    return tmp_path


def test_the_guard_sees_a_socket(repo: Path, place: Path) -> None:
    for code in ("import socket; socket.socket()", "import socket; socket.getaddrinfo('localhost', 1)"):
        assert called(repo, place, guard=f"{GUARD}\n{code}\n").returncode == 99


@pytest.mark.parametrize("words", [("run", "away.yaml"), ("run", "--dry-run", "away.yaml"), ("check", "away.yaml")])
def test_a_cold_cache(repo: Path, place: Path, words: tuple[str, ...]) -> None:
    done = called(repo, place, *words)
    assert done.returncode == 4, done.stderr
    assert "FINETUNE_OFFLINE is set" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "runs").exists()
    assert [path for path in place.rglob("*") if path.suffix in (".tmp", ".safetensors")] == []


def test_a_warm_cache(repo: Path, place: Path) -> None:
    """Weights from a mirror in a folder; then without the mirror; then damaged."""
    done = called(repo, place, "run", "here.yaml", "runner.mode=pynative", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    weights = next((place / "runs" / "here-001").rglob("*.safetensors"))
    digest, mirrored = sha256(weights), place / "mirror" / "example.invalid" / "nano.safetensors"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(weights.read_bytes())
    away = place / "away.yaml"
    away.write_text(away.read_text().replace(SHA256.partition(":")[2], digest))
    fetch_it = (
        "weights",
        "fetch",
        f"https://example.invalid/nano.safetensors#sha256={digest}",
        "--backbone",
        "resnext_nano",
    )
    done = called(repo, place, *fetch_it, FINETUNE_MIRROR=(place / "mirror").as_uri())
    assert done.returncode == 0, done.stderr
    mirrored.unlink()
    done = called(repo, place, *fetch_it)
    assert done.returncode == 0, done.stderr
    (kept,) = (place / "home" / "weights").glob("*nano.safetensors")
    kept.write_bytes(b"damaged")
    done = called(repo, place, "check", "away.yaml")
    assert done.returncode == 4, done.stderr
    assert kept.read_bytes() == b"damaged"


def sha256(path: Path) -> str:
    from finetune.files.remote_file import hash_file

    return hash_file(path, "sha256").partition(":")[2]
