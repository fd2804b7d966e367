"""Files are replaced as a whole, and a disk that refuses is named."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.errors import ResourceError
from finetune.files.atomic import (
    atomic_path,
    cache_folder,
    is_offline,
    make_temporary_name,
    sweep,
    write_bytes,
    write_json,
    write_text,
)


def test_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "Überblick 中文.txt"
    write_text(path, "one\r\n")
    write_text(path, "two\n")
    assert path.read_bytes() == b"two\n"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_json_is_readable_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"name": "gänseblümchen", "file": os.fsdecode(b"\xff.jpg")})
    assert "gänseblümchen" in path.read_text(encoding="utf-8")
    assert os.fsencode(json.loads(path.read_text(encoding="utf-8"))["file"]) == b"\xff.jpg"
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"loss": float("nan")})
    assert "gänseblümchen" in path.read_text(encoding="utf-8")


def test_a_failed_block_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail() -> None:
        with atomic_path(path) as part:
            part.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_modes_follow_the_umask_even_after_a_writer_that_sets_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    before = os.umask(0o027)
    try:
        with atomic_path(path) as part:
            part.write_bytes(b"x")
            part.chmod(0o400)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "the disk is full; free some space or choose another folder"),
        (errno.EDQUOT, "the disk quota is used up; free some space or choose another folder"),
        (errno.EROFS, "the file system is read-only; choose another folder"),
        (errno.EFBIG, "the file is too large for the file system; choose another folder"),
        (errno.EIO, "the disk reports an error; choose another folder"),
    ],
)
def test_a_disk_that_refuses_is_a_resource_error(tmp_path: Path, code: int, remedy: str) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def refuse() -> None:
        with atomic_path(path):
            raise OSError(code, os.strerror(code))

    with pytest.raises(ResourceError) as caught:
        refuse()
    assert str(caught.value) == f"cannot write '{path}': {remedy}"
    assert caught.value.exit_code == 7
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_about_another_file_passes_through(tmp_path: Path) -> None:
    def read_other() -> None:
        with atomic_path(tmp_path / "a.bin"):
            raise PermissionError(errno.EACCES, "other file")

    with pytest.raises(PermissionError):
        read_other()


def test_places_that_cannot_hold_the_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResourceError, match="a part of this path is a file; choose another folder"):
        write_text(tmp_path / "file" / "a", "x")
    with pytest.raises(ResourceError, match="a folder has this name; choose another name"):
        write_text(tmp_path / "folder", "x")
    with pytest.raises(ResourceError, match="the name is too long; choose a shorter one"):
        write_text(tmp_path / ("ü" * 200), "x")
    write_text(tmp_path / ("n" * 255), "the longest name")


def test_permission_denied_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *, mode: int = 0o666, exist_ok: bool = True) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", refuse)  # root, who may write everywhere, runs tests too
    with pytest.raises(ResourceError, match="permission denied; choose a folder that you may write to"):
        write_text(tmp_path / "a", "x")


def test_sweep_removes_only_old_leftovers(tmp_path: Path) -> None:
    old, new, folder = (make_temporary_name(tmp_path / name) for name in ("old.bin", "new.bin", "folder"))
    others = [tmp_path / ".notes.backup.tmp", tmp_path / "data.0123456789ab.tmp"]
    folder.mkdir()
    (folder / "inside").write_text("x")
    for path in (old, new, *others):
        path.write_text("x")
    for path in (old, folder, *others):
        os.utime(path, (time.time() - 7200,) * 2)
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, *others])


def test_kill_during_writes_never_leaves_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    write_bytes(path, bytes(1 << 20))
    code = "import sys, pathlib; from finetune.files.atomic import write_bytes\nwhile True:\n"
    code += " for i in range(256): write_bytes(pathlib.Path(sys.argv[1]), bytes([i]) * (1 << 20)); print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        for pause in (0.0, 0.003, 0.011):
            writer.stdout.readline()
            time.sleep(pause)
            data = path.read_bytes()
            assert len(data) == 1 << 20
            assert len(set(data)) == 1
        writer.send_signal(signal.SIGKILL)
    data = path.read_bytes()
    assert len(data) == 1 << 20
    assert len(set(data)) == 1
    sweep(tmp_path, older_than=-1)
    assert list(tmp_path.iterdir()) == [path]


def test_home_and_offline_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "a home"))
    assert cache_folder() == tmp_path / "a home"
    monkeypatch.delenv("FINETUNE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "finetune"
    for value, expected in (("1", True), ("true", True), ("0", False), ("", False)):
        monkeypatch.setenv("FINETUNE_OFFLINE", value)
        assert is_offline() is expected


def test_a_link_to_the_same_file_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("content")
    for _ in range(2):
        with atomic_path(tmp_path / "two") as part:
            part.unlink()
            os.link(tmp_path / "one", part)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert (tmp_path / "two").read_text() == "content"
