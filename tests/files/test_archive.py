"""Archives are unpacked whole, and hostile ones leave nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import resource
import stat
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest

from finetune.errors import DataError, ResourceError
from finetune.files import archive as module
from finetune.files.archive import extract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = {"jpg/a.jpg": b"a" * 3000, "jpg/ünï 中文 🌼.jpg": b"b", "empty.txt": b"", "a/b/c/d.txt": b"deep"}


def tar(path: Path, entries: dict[str, bytes], packing: str = "w", **fields: object) -> Path:
    with tarfile.open(path, packing, format=tarfile.GNU_FORMAT) as file:  # type: ignore[call-overload]
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, entries: dict[str, bytes], attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes << 16
            file.writestr(info, content)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(path: Path, text: str) -> None:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        extract(path, path.parent / "target")
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_all_files_arrive(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photos"
    zipped(path, FILES) if mode == "zip" else tar(path, FILES, mode)
    target = tmp_path / "new" / "folder"
    extract(path, target)
    assert content(target) == FILES
    assert list(target.parent.iterdir()) == [target]
    assert stat.S_IMODE((target / "empty.txt").stat().st_mode) & 0o600 == 0o600


def test_folders_with_their_own_entries_and_a_dot_in_front(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (source / "nothing").mkdir()
    (source / "nothing").chmod(0o2755)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as file:
        file.add(source, ".")
    extract(tmp_path / "a.tgz", tmp_path / "out")
    assert content(tmp_path / "out") == FILES
    assert (tmp_path / "out" / "nothing").is_dir()


def test_a_full_folder_is_not_touched(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", FILES)
    target = tmp_path / "target"
    target.mkdir()
    extract(path, target)
    with pytest.raises(DataError, match=r"already exists; remove it, or unpack '.*' elsewhere"):
        extract(path, target)
    assert content(target) == FILES


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no archive '.*'; check the path"):
        extract(tmp_path / "a.tar", tmp_path / "target")


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("name", ["../x", "a/../../x"])
def test_names_that_lead_out(tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], name: str) -> None:
    refused(make(tmp_path / "a", {"good": b"1", name: b"x"}), "outside the")


def test_absolute_names_start_at_the_folder(tmp_path: Path) -> None:
    extract(tar(tmp_path / "a.tar", {"/etc/x": b"1"}), tmp_path / "target")
    assert content(tmp_path / "target") == {"etc/x": b"1"}
    (tmp_path / "zip").mkdir()
    refused(zipped(tmp_path / "zip" / "b.zip", {"/etc/x": b"1"}), "leads outside the folder")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    path = tar(tmp_path / "a.tar", {"x": b""}, type=kind, linkname="/etc/passwd")
    refused(path, "is a link, a device or a sparse file")


def test_a_link_in_a_zip_is_written_as_a_file(tmp_path: Path) -> None:
    extract(zipped(tmp_path / "a.zip", {"x": b"/etc/passwd"}, stat.S_IFLNK | 0o777), tmp_path / "target")
    assert not (tmp_path / "target" / "x").is_symlink()


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "is encrypted")


def test_programs_lose_the_rights_of_others(tmp_path: Path) -> None:
    extract(tar(tmp_path / "a.tar", {"x": b"1"}, mode=0o4755), tmp_path / "target")
    assert (tmp_path / "target" / "x").stat().st_mode & (stat.S_ISUID | stat.S_ISGID) == 0


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "zip"])
def test_bombs_are_refused_early(tmp_path: Path, mode: str) -> None:
    entries = {f"{i}": bytes(30 << 20) for i in range(3)}
    path = zipped(tmp_path / "a", entries) if mode == "zip" else tar(tmp_path / "a", entries, mode)
    refused(path, "far more than its size explains")


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x": bytes(90 << 20)})
    data = bytearray(path.read_bytes())
    for start in (data.index(b"PK\x03\x04") + 22, data.index(b"PK\x01\x02") + 24):
        data[start : start + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, "damaged, or neither zip nor tar; download it again")


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 100)
    entries = {f"{i}": b"" for i in range(101)}
    refused(tar(tmp_path / "a.tar", entries), "it has 101 entries, more than 100")
    refused(zipped(tmp_path / "a.zip", entries), "it has 101 entries, more than 100")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_an_archive_cut_anywhere(tmp_path: Path, mode: str) -> None:
    entries = {f"{i}.jpg": bytes([i]) * 700 for i in range(4)}
    path = zipped(tmp_path / "a", entries) if mode == "zip" else tar(tmp_path / "a", entries, mode)
    data = path.read_bytes()
    end = 4 * 1536 + 512 if mode == "w" else len(data)  # a tar ends with blocks of zeros, one is enough
    for size in sorted({0, 1, 100, 512, 1536, end - 1, *range(0, end, max(1, end // 40))} & set(range(end))):
        path.write_bytes(data[:size])
        refused(path, "damaged, or neither zip nor tar; download it again")


def test_what_is_no_archive(tmp_path: Path) -> None:
    for data in (
        b"<html></html>",
        b"PK",
        b"Rar!\x1a\x07\0",
        gzip.compress(b"x"),
        bz2.compress(b"x"),
        lzma.compress(b""),
    ):
        (tmp_path / "a").write_bytes(data)
        refused(tmp_path / "a", "damaged, or neither zip nor tar")


def test_a_wrong_checksum(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tgz", FILES, "w:gz")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    refused(path, "damaged")
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", b"some content")
    path.write_bytes(path.read_bytes().replace(b"some content", b"same content"))
    refused(path, "damaged")


def test_a_full_disk(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tgz", {"x": bytes(1 << 20)}, "w:gz")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="the file is too large for the file system"):
            extract(path, tmp_path / "target")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]


def test_several_at_once_end_with_the_same_files(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tgz", {f"{i}": b"x" * 1000 for i in range(200)}, "w:gz")
    threads = [threading.Thread(target=extract, args=(path, tmp_path / "target")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(content(tmp_path / "target")) == 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tgz", "target"]


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("x" * 256,)])
def test_names_that_cannot_be_written(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], names: tuple[str, ...]
) -> None:
    refused(make(tmp_path / "a", dict.fromkeys(names, b"x")), "names that collide or cannot be written")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31mred", "a\x7f"])
@pytest.mark.parametrize("make", [tar, zipped])
def test_names_with_control_characters(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    refused(make(tmp_path / "x", {name: b"x"}), "has control characters or is not valid text")


def test_a_name_that_a_nul_cuts(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"aXb": b"x"})
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\0b"))
    refused(path, "has control characters")


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as file:
        file.addfile(tarfile.TarInfo("a\udcff"))
    refused(path, "is not valid text")


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for _ in range(2):
            file.addfile(tarfile.TarInfo("same"))
    refused(tmp_path / "x.tar", "it has two entries named 'same'")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("same", b"a")
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("same", b"b")
    refused(tmp_path / "x.zip", "it has two entries named 'same'")


def test_spaces_of_other_scripts_are_fine(tmp_path: Path) -> None:
    extract(zipped(tmp_path / "x.zip", {"a\u00a0b\u3000c.jpg": b"x"}), tmp_path / "target")
    assert content(tmp_path / "target") == {"a\u00a0b\u3000c.jpg": b"x"}
