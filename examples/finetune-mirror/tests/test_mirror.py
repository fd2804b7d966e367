"""Tests the scheme ``company://``; install the package first, so that the plugin is found."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finetune_mirror import finetune_fetch_weights

from finetune import DownloadError, Weights, WeightsError

DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the shared folder, with a file below it."""
    folder = tmp_path / "company files"
    (folder / "vision").mkdir(parents=True)
    (folder / "vision" / "Net 1.ckpt").write_bytes(DATA)
    monkeypatch.setenv("COMPANY_WEIGHTS", str(folder))
    return folder


def fetched(url: str, cache: Path, sha256: str = SHA256) -> Path | None:
    return finetune_fetch_weights(Weights(url=url, sha256=sha256, layout=""), cache)


def test_a_verified_copy_outlives_the_folder(shared: Path, tmp_path: Path) -> None:
    path = fetched("company://vision/Net%201.ckpt", tmp_path / "cache")
    assert path is not None
    assert path.read_bytes() == DATA
    assert tmp_path / "cache" in path.parents
    (shared / "vision" / "Net 1.ckpt").unlink()
    assert fetched("company://vision/Net%201.ckpt", tmp_path / "cache") == path


def test_other_addresses_are_left_to_others(tmp_path: Path) -> None:
    assert fetched("https://example.org/net.ckpt", tmp_path) is None
    assert fetched("file:///net.ckpt", tmp_path) is None


def test_what_cannot_be_used_is_said(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match="does not exist"):
        fetched("company://none.ckpt", tmp_path)
    with pytest.raises(DownloadError, match=f"{SHA256}, expected {'0' * 64}"):
        fetched("company://vision/Net 1.ckpt", tmp_path, "0" * 64)
    with pytest.raises(WeightsError, match=r"'company://../secret.ckpt' leads outside '.*'; name a file inside it"):
        fetched("company://%2E%2E/secret.ckpt", tmp_path)
    for part in ("", SHA256[:8]):
        with pytest.raises(
            WeightsError, match=r"'company://vision/Net 1.ckpt' needs the full sha256 of its file; write"
        ):
            fetched("company://vision/Net%201.ckpt", tmp_path, part)
    monkeypatch.delenv("COMPANY_WEIGHTS")
    with pytest.raises(WeightsError, match="has no folder to start from; set COMPANY_WEIGHTS to the shared folder"):
        fetched("company://net.ckpt", tmp_path)


def test_the_command_line_finds_it(shared: Path, tmp_path: Path) -> None:
    def fetch(name: str, code: int = 0) -> dict[str, Any]:
        env = {**os.environ, "FINETUNE_HOME": str(tmp_path / "home"), "FINETUNE_OFFLINE": "1"}
        words = ["weights", "fetch", name, "--backbone", "resnext_nano", "--json"]
        command = [sys.executable, "-m", "finetune", *words]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    ours = fetch("fractals")  # bundled weights serve as the company's
    (shared / "nano.safetensors").write_bytes(Path(ours["path"]).read_bytes())
    theirs = fetch(f"company://nano.safetensors#sha256={ours['sha256']}")
    assert theirs["sha256"] == ours["sha256"]
    assert Path(theirs["path"]).is_relative_to(tmp_path / "home")
    fetch(f"company://nano.safetensors#sha256={'0' * 64}", code=4)
