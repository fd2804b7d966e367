"""Archives: unpacks tar and zip files with the standard library's protections, completely or not at all."""

from __future__ import annotations

import errno
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import DataError
from finetune.files.atomic import FULL, make_temporary_name, sweep, sync_folder, translate_disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # also bytes that are not text
MAX_ENTRIES = 500_000
MAX_RATIO = 100  # photos hardly shrink, text shrinks fivefold, and known archive bombs a thousandfold or more
FREE_BYTES = 64 << 20  # every archive may unpack to this size, however small it is
ENCRYPTED = 1
NAMES = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.EILSEQ)  # errors of an archive's names
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, NotImplementedError, RuntimeError, ValueError),
)


def extract(archive: Path, target: Path) -> None:
    """Unpack ``archive`` into the new folder ``target``, which appears with all its files or not at all.

    Supports zip and tar, the latter also compressed with gzip, bzip2 or xz. Tar members go through Python's filter
    ``data`` (PEP 706). Raises ``DataError`` for a damaged archive and for one with a path outside the folder, a link, a
    device, too many files, or far more bytes than its size explains; ``ResourceError`` if the disk is full.
    """
    archive, target = Path(archive), Path(target)
    if not archive.is_file():
        raise DataError(f"no archive '{archive}'; check the path")
    if _is_taken(target):
        raise DataError(f"'{target}' already exists; remove it, or unpack '{archive}' elsewhere")
    with _make_scratch(target) as scratch, translate_disk_errors(target, FULL):
        try:
            (unpack_zip if zipfile.is_zipfile(archive) else unpack_tar)(archive, scratch)
        except tarfile.FilterError as error:
            raise _refuse(archive, str(error)) from error
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno in NAMES:
                raise _refuse(
                    archive, f"it holds names that collide or cannot be written ({error.strerror})"
                ) from error
            if isinstance(error, OSError) and error.errno is not None:  # the disk's
                raise
            raise DataError(f"'{archive}' is damaged, or neither zip nor tar; download it again") from error
        try:
            os.replace(scratch, target)
        except OSError:
            if not _is_taken(target):  # otherwise another process has just unpacked the same archive
                raise
    sync_folder(target.parent)


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack a tar file of regular files and folders."""
    with tarfile.open(archive) as tar:
        members = list(tar)
        check_size(archive, len(members), sum(member.size for member in members))
        check_names(archive, (member.name for member in members))
        check_end(tar)
        for member in members:
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _refuse(archive, f"'{member.name}' is a link, a device or a sparse file")
            tar.extract(member, folder, filter="data")


def check_end(tar: tarfile.TarFile) -> None:
    """Raise ``ReadError`` for a tar file without its end mark, and read to the end, where gzip has its checksum."""
    file: Any = tar.fileobj
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")
    while file.read(1 << 20):
        pass


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpack a zip file; ``zipfile`` checks each file's CRC, and a file never exceeds its stated size."""
    with zipfile.ZipFile(archive) as packed:
        infos = packed.infolist()
        check_size(archive, len(infos), sum(info.file_size for info in infos))
        check_names(archive, (info.orig_filename for info in infos))
        for info in infos:
            parts = Path(info.filename).parts
            if os.path.isabs(info.filename) or ".." in parts:
                raise _refuse(archive, f"'{info.filename}' leads outside the folder")
            if info.flag_bits & ENCRYPTED:
                raise _refuse(archive, f"'{info.filename}' is encrypted")
            packed.extract(info, folder)


def check_size(archive: Path, entries: int, size: int) -> None:
    """Raise ``DataError`` for an archive of too many files, or of far more bytes than its size explains."""
    if entries > MAX_ENTRIES:
        raise _refuse(archive, f"it has {entries:,} entries, more than {MAX_ENTRIES:,}")
    if size > max(FREE_BYTES, MAX_RATIO * archive.stat().st_size):
        raise _refuse(archive, f"it unpacks to {size:,} bytes, far more than its size explains")


def check_names(archive: Path, names: Iterable[str]) -> None:
    """Raise ``DataError`` for a name that occurs twice, or that has control or undecodable characters."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _refuse(archive, f"it has two entries named '{name}'")
        if CONTROL.search(name):
            raise _refuse(archive, f"{name!r} has control characters or is not valid text")
        seen.add(name)


def _refuse(archive: Path, why: str) -> DataError:
    return DataError(f"'{archive}' is unsafe: {why}; use an archive from a source you trust")


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
