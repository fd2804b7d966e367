"""Files that a user names for a command to write: nothing that is there is lost."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from finetune.errors import FinetuneError, ResourceError, UsageError
from finetune.files.outputs import STDOUT, Output, check_all, parse_output

EXISTS = "the file exists; choose another name or pass --force"
READ = "the command reads this file; choose another name"


def out(path: Path, command: str = "x", *, force: bool = False, inputs: tuple[Path, ...] = ()) -> Output:
    return Output(path=path, command=command, force=force, inputs=inputs)


@pytest.fixture
def top(tmp_path: Path, home: Path) -> Path:
    """Return an empty folder, and start with an empty ledger."""
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


def refused(output: Output, why: str, kind: type[FinetuneError] = UsageError) -> None:
    with pytest.raises(kind, match=f"'{re.escape(str(output.path))}': {re.escape(why)}"):
        output.check()
    with pytest.raises(kind):
        output.write(b"new")


def test_an_existing_file_is_refused_unless_forced(top: Path) -> None:
    path = top / "a.csv"
    path.write_bytes(b"mine")
    refused(out(path), EXISTS)
    assert path.read_bytes() == b"mine"
    out(path, force=True).write(b"new")
    assert path.read_bytes() == b"new"


def test_what_the_same_command_wrote_is_replaced_until_somebody_changes_it(top: Path) -> None:
    path = top / "a.csv"
    for content in (b"1", b"2", b"3"):
        out(path).write(content)
        assert path.read_bytes() == content
    refused(out(path, "y"), EXISTS)
    path.write_bytes(b"3 and mine")
    refused(out(path), EXISTS)
    path.write_bytes(b"3")
    out(path).write(b"4")


@pytest.mark.parametrize("way", ["rename", "relative", "folder link"])
def test_a_file_is_known_by_its_path(top: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out(top / "a.csv").write(b"1")
    if way == "rename":  # another place may be another person's
        (top / "a.csv").rename(top / "b.csv")
        refused(out(top / "b.csv"), EXISTS)
    elif way == "relative":
        monkeypatch.chdir(top)
        out(Path("a.csv")).write(b"2")
    else:
        (top.parent / "link").symlink_to(top)
        out(top.parent / "link" / "a.csv").write(b"2")


@pytest.mark.parametrize("damage", ["{", "[]", "gone", "unreadable", "not writable"])
def test_a_ledger_that_fails_means_that_a_file_is_the_users(top: Path, home: Path, damage: str) -> None:
    if damage == "not writable":
        home.write_text("a file")
    out(top / "a.csv").write(b"1")
    if damage != "not writable":
        (entry,) = (home / "outputs").iterdir()
        entry.unlink()
        if damage == "unreadable":
            entry.mkdir()
        elif damage != "gone":
            entry.write_text(damage)
    refused(out(top / "a.csv"), EXISTS)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("way", ["itself", "link", "hard link", "dots", "in a folder", "in a linked folder"])
def test_an_input_is_never_written(top: Path, way: str, force: bool) -> None:
    photo = top / "photo.jpg"
    photo.write_bytes(b"photo")
    path, inputs = photo, (photo,)
    if way == "link":
        (path := top / "l.csv").symlink_to(photo)
    elif way == "hard link":
        os.link(photo, path := top / "h.csv")
    elif way == "dots":
        path = top / ".." / "top" / "photo.jpg"
    elif way == "in a folder":
        inputs = (top,)
    elif way == "in a linked folder":
        (top.parent / "link").symlink_to(top)
        inputs = (top.parent / "link",)
    refused(out(path, force=force, inputs=inputs), READ)
    assert photo.read_bytes() == b"photo"
    assert path.is_symlink() is (way == "link")


def test_what_is_no_photo_among_photos_may_be_forced(top: Path) -> None:
    (top / "labels.csv").write_bytes(b"old")
    refused(out(top / "labels.csv", inputs=(top,)), EXISTS)
    out(top / "labels.csv", force=True, inputs=(top, top / "gone")).write(b"new")
    out(top / "new.svg", inputs=(top,)).write(b"new")


def test_links_stay_links(top: Path) -> None:
    (top / "deep").mkdir()
    (top / "link.csv").symlink_to("deep/a.csv")
    refused(out(top / "link.csv"), EXISTS)  # it leads nowhere, and somebody made it
    out(top / "link.csv", force=True).write(b"1")
    assert ((top / "link.csv").is_symlink(), (top / "deep" / "a.csv").read_bytes()) == (True, b"1")
    out(top / "link.csv").write(b"2")
    out(top / "deep" / "a.csv").write(b"3")
    (top / "loop").symlink_to("loop")
    refused(out(top / "loop", force=True), "the link leads to itself; choose another name")


def test_folders_and_places_below_files(top: Path) -> None:
    (top / "folder").mkdir()
    (top / "file").touch()
    refused(out(top / "folder", force=True), "this is a folder; name a file in it")
    with pytest.raises(ResourceError, match="a part of this path is a file"):
        out(top / "file" / "a", force=True).check()
    out(top / "new" / "deep" / "a.csv").write(b"1")


def test_two_outputs_of_a_command_are_two_files(top: Path) -> None:
    (top / "b").symlink_to("a")
    check_all([out(top / "a"), out(top / "c")])
    with pytest.raises(UsageError, match="two outputs have this name; choose a different one"):
        check_all([out(top / "a"), out(top / "b", force=True)])


def test_pipes_and_devices_are_written_to(top: Path) -> None:
    out(Path("/dev/null")).write(b"gone")
    assert Path("/dev/null").is_char_device()
    os.mkfifo(pipe := top / "pipe")
    with pytest.raises(ResourceError, match="no process reads this pipe; start its reader first"):
        out(pipe).write(b"1")
    content: list[bytes] = []
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    other = os.open(pipe, os.O_WRONLY)  # without a writer, the reader would end at once

    def read() -> None:
        with open(descriptor, "rb") as file:
            content.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    out(pipe).write(b"x" * 200_000)
    os.close(other)
    reader.join()
    assert len(content[0]) == 200_000
    assert pipe.is_fifo()
    with pytest.raises(ResourceError, match="'/dev/full': No space left on device"):
        out(Path("/dev/full")).write(b"1")


def test_descriptors_are_written_to(top: Path) -> None:
    with (top / "file").open("wb") as file:  # what a shell makes of `finetune … 3> file` and >(command)
        out(Path(f"/dev/fd/{file.fileno()}")).write(b"1")
    assert (top / "file").read_bytes() == b"1"


def test_names_of_standard_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert all(parse_output(name) == STDOUT for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"))
    assert parse_output("./-") == tmp_path / "-"
    assert parse_output("a/b.csv") == Path("a/b.csv")
    assert out(STDOUT).write(b"1") == b"1"
    assert not list(tmp_path.iterdir())
