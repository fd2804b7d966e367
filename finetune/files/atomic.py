"""Atomic writes: a file appears complete or not at all, even if the process is killed or the disk is full."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from finetune.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_folder() -> Path:
    """Return the folder for everything that can be downloaded or computed again.

    It is ``FINETUNE_HOME``, or else a folder in the user's cache. The folder may not exist yet.
    """
    home = os.environ.get("FINETUNE_HOME")
    if not home:
        return user_cache_path("finetune", appauthor=False)
    try:
        return expand_home(home).absolute()
    except UsageError as error:
        raise UsageError(f"FINETUNE_HOME={home}: no such home folder; set a different folder") from error


def expand_home(path: str | Path, folder: Path | None = None) -> Path:
    """Expand a leading ``~/`` or ``~user/`` in a path that a user wrote.

    Other names are unchanged: ``~a.jpg``, and ``~x/a.jpg`` if there is no user x but ``~x`` exists in ``folder``, by
    default the current folder. Raises ``UsageError`` if there is neither such a user nor such a folder. Never pass a
    name that comes from listing a folder.
    """
    text = os.fspath(path)
    owner, slash, _ = text.partition("/")
    if not owner.startswith("~") or (owner != "~" and not slash):
        return Path(path)
    expanded = os.path.expanduser(text)
    if not expanded.startswith("~"):
        return Path(expanded)
    if owner != "~" and os.path.lexists(os.path.join(folder or "", owner)):
        return Path(path)
    raise UsageError(f"no home folder for '{text}'; write the full path of the folder")


def is_offline() -> bool:
    """Return whether ``FINETUNE_OFFLINE`` forbids network calls."""
    return os.environ.get("FINETUNE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


SUFFIX = ".tmp"
NAME_BYTES = 255  # the limit of all common file systems

FULL = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EFBIG: "the file is too large for the file system; choose another folder",
    errno.EIO: "the disk reports an error; choose another folder",
}
REFUSED = FULL | {
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "permission denied; choose a folder that you may write to",
    errno.ENOENT: "the folder does not exist or does not accept files; choose another folder",
    errno.ENOTDIR: "a part of this path is a file; choose another folder",
    errno.EEXIST: "a part of this path is a file; choose another folder",
    errno.EISDIR: "a folder has this name; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file that replaces ``path`` if the block succeeds, and is removed if it fails.

    The file is flushed to disk before it is renamed, so that even a power cut leaves the old or the new content. Its
    permissions follow the user's umask. Raises ``ResourceError`` if the disk is full, read-only or not accessible.
    """
    path = Path(path)
    with translate_disk_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ResourceError(f"'{path}' is a pipe, socket or device, which would be replaced; choose another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = make_temporary_name(path)
        part.touch(exist_ok=False)
    mode = part.stat().st_mode
    try:
        # Inside the block other errors may come from any file, but a full disk only concerns this one.
        with translate_disk_errors(path, FULL):
            yield part
        if part.stat().st_mode != mode:  # some writers leave files that their owner cannot write or delete
            part.chmod(mode)
        with translate_disk_errors(path):
            _sync(part)
            os.replace(part, path)
        with suppress(FileNotFoundError):
            part.unlink()  # it remains if both were links to the same file
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically; raises ``ResourceError`` if the disk refuses."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8; undecodable bytes of file names are escaped, as in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, obj: Any) -> None:
    """Write ``obj`` to ``path`` atomically, as indented JSON; raises ``ValueError`` for NaN and infinities."""
    write_bytes(path, encode_json(obj))


def encode_json(obj: Any) -> bytes:
    r"""Return ``obj`` as indented JSON in UTF-8.

    A byte 0xNN of a file name that is not UTF-8 becomes ``\udcNN``, which ``json.loads`` and ``os.fsencode`` turn back
    into the name.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def sweep(folder: Path, *, older_than: float = 3600.0) -> None:
    """Remove temporary files and folders that killed processes left in ``folder``, if ``older_than`` this (seconds)."""
    now = time.time()
    for part in folder.glob(f".*.{'[0-9a-f]' * 12}{SUFFIX}"):
        with suppress(OSError):
            if now - part.lstat().st_mtime < older_than:
                continue
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()


@contextmanager
def translate_disk_errors(path: Path, remedies: dict[int, str] = REFUSED) -> Iterator[None]:
    """Turn disk errors inside the block into a ``ResourceError`` that names ``path`` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in remedies:
            raise
        raise ResourceError(f"cannot write '{path}': {remedies[error.errno]}") from error


def check_place(path: Path) -> None:
    """Raise ``ResourceError`` for a path that cannot be written; call this before computing the content."""
    with translate_disk_errors(path):
        for folder in (folder for folder in path.absolute().parents if os.path.exists(folder)):
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            break
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def make_temporary_name(path: Path) -> Path:
    """Return a new hidden name next to ``path``, which ``sweep`` removes if it is left behind."""
    tail = f".{secrets.token_hex(6)}{SUFFIX}"
    name = os.fsencode(path.name)[: NAME_BYTES - 1 - len(tail)].decode("utf-8", "ignore")
    return path.with_name(f".{name}{tail}")


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, if the system supports that."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
