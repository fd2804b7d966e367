"""Archives: safely unpacks tar and zip files from untrusted sources, completely or not at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from finetune.errors import DataError
from finetune.files.atomic import FULL, make_temporary_name, sweep, sync_folder, translate_disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRIES = 500_000
MAX_RATIO = 100  # photos hardly shrink, text shrinks fivefold, and known archive bombs a thousandfold or more
FREE_BYTES = 64 << 20  # every archive may unpack to this size, however small it is
HEADER_BYTES = 4 << 20  # tarfile reads a header at once, whatever size it claims
NAME_BYTES = 1024
CHUNK = 1 << 20
SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),
)


def extract(archive: Path, target: Path) -> None:
    """Unpack ``archive`` into the new folder ``target``, which appears with all its files or not at all.

    Supports zip and tar, the latter also compressed with gzip, bzip2 or xz; modes and owners are ignored. Raises
    ``DataError`` for a damaged archive and for one with a path outside the folder, a link, a device, colliding or
    misleading names, too many files, or far more bytes than its size explains; ``ResourceError`` if the disk is full.
    """
    archive, target = Path(archive), Path(target)
    if not archive.is_file():
        raise DataError(f"no archive '{archive}'; check the path")
    if _is_taken(target):
        raise DataError(f"'{target}' already exists; remove it, or unpack '{archive}' elsewhere")
    with _make_scratch(target) as scratch, translate_disk_errors(target, FULL):
        unpacking = _Unpacking(archive, scratch, left=max(FREE_BYTES, MAX_RATIO * archive.stat().st_size))
        try:
            unpacking.run()
        except DAMAGED as error:
            raise DataError(f"'{archive}' is damaged, or neither zip nor tar; download it again") from error
        try:
            os.replace(scratch, target)
        except OSError:
            if not _is_taken(target):  # otherwise another process has just unpacked the same archive
                raise
    sync_folder(target.parent)


@dataclass(slots=True)
class _Unpacking:
    """An archive that is unpacked into an empty folder; ``left`` bytes may still be written."""

    archive: Path
    folder: Path
    left: int
    entries: int = 0
    claims: dict[str, tuple[str, bool]] = field(default_factory=lambda: {".": (".", True)})

    def run(self) -> None:
        with self.archive.open("rb") as file:
            head = file.read(8)
        if head.startswith(b"PK"):
            self.unzip()
            return
        opener: Any = next((opener for magic, opener in PACKED.items() if head.startswith(magic)), open)
        with opener(self.archive, "rb") as packed:
            self.untar(_Meter(packed))
            while chunk := packed.read(CHUNK):  # read to the end, where the checksum is
                self.spend(len(chunk), "after the last")

    def untar(self, meter: _Meter) -> None:
        with tarfile.open(fileobj=meter, mode="r:") as tar:  # type: ignore[call-overload]
            for member in tar:
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise self.refusal(member.name, "is a link, a device or a sparse file")
                self.take(member.name, member.isdir(), member.mode, member.size, lambda m=member: tar.extractfile(m))
                tar.members.clear()  # tarfile would keep all of them
        if meter.last != bytes(tarfile.BLOCKSIZE):  # to tarfile, a cut between two entries is the end of the archive
            raise tarfile.ReadError("no end mark")

    def unzip(self) -> None:
        with zipfile.ZipFile(self.archive) as packed:
            for info in packed.infolist():
                mode = info.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self.refusal(info.filename, "is a link or a device")
                if info.flag_bits & 1:
                    raise self.refusal(info.filename, "is encrypted")
                # ZipFile cuts info.filename at a NUL.
                name = info.orig_filename
                self.take(name, info.is_dir(), mode, info.file_size, lambda i=info: packed.open(i))

    def take(self, name: str, is_folder: bool, mode: int, size: int, source: Any) -> None:
        """Check an entry and write it; ``source()`` opens its content."""
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise self.refusal(name, f"is beyond the limit of {MAX_ENTRIES:,} entries")
        if mode & SPECIAL_BITS and not is_folder:
            raise self.refusal(name, "would run with the rights of a different user")
        place = self.place(name, is_folder)
        if is_folder:
            place.mkdir(parents=True, exist_ok=True)
            return
        if size > self.left:
            self.spend(size, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with source() as content, place.open("xb") as file:
            self.copy(content, file, name)

    def copy(self, content: IO[bytes], file: IO[bytes], name: str) -> None:
        while chunk := content.read(CHUNK):
            self.spend(len(chunk), name)
            file.write(chunk)

    def spend(self, count: int, name: str) -> None:
        self.left -= count
        if self.left < 0:
            raise self.refusal(name, "unpacks to far more than the size of the archive explains")

    def place(self, name: str, is_folder: bool) -> Path:
        """Return the path to write an entry to, after checking its name against all earlier ones."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":":
            raise self.refusal(name, "leads outside the folder")
        if any(unicodedata.category(c) in ("Cc", "Cs") or c in BIDIRECTIONAL for c in name):
            raise self.refusal(name, "has control characters or unreadable bytes in its name")
        if len(name.encode()) > NAME_BYTES or any(len(part.encode()) > 255 for part in path.parts):
            raise self.refusal(name, "has a name that is too long")
        for parent in path.parents:
            self.claim(parent, name, True)
        self.claim(path, name, is_folder)
        return self.folder / path

    def claim(self, path: PurePosixPath, name: str, is_folder: bool) -> None:
        """Reserve a name for one file or folder; names that differ only in case are the same on many disks."""
        key = unicodedata.normalize("NFC", str(path)).casefold()
        known = self.claims.get(key)
        if known and not (is_folder and known == (str(path), True)):
            raise self.refusal(name, f"collides with '{known[0]}'")
        self.claims[key] = (str(path), is_folder)

    def refusal(self, name: str, why: str) -> DataError:
        return DataError(f"'{self.archive}' is unsafe: entry {name!r} {why}; use an archive from a source you trust")


class _Meter:
    """The stream that tarfile reads; refuses headers that would fill the memory. ``last`` is the last block."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.last = b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError("header too long")
        data = self.file.read(size)
        if size == tarfile.BLOCKSIZE:
            self.last = data
        return data


@contextmanager
def _make_scratch(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder next to ``target``, which is removed afterwards unless it was renamed."""
    with translate_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        scratch = make_temporary_name(target)
        scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_taken(target: Path) -> bool:
    return target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir()))
