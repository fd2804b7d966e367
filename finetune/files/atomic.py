"""Files that appear complete or not at all, whenever the process dies and however full the disk is."""

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
    """Return the folder of all that can be fetched or computed again: ``FINETUNE_HOME``, else in the user's cache.

    The folder need not exist yet.
    """
    home = os.environ.get("FINETUNE_HOME")
    if not home:
        return user_cache_path("finetune", appauthor=False)
    try:
        return expand_home(home).absolute()
    except UsageError as error:
        raise UsageError(f"FINETUNE_HOME={home}: there is no such home folder; name another") from error


def expand_home(path: str | Path, folder: Path | None = None) -> Path:
    """Return a path that a user wrote, with a leading ``~/`` or ``~user/`` replaced by that home folder.

    Everything else is a name as it stands: ``~a.jpg``, and ``~x/a.jpg`` where no user is called x but ``folder``, or
    else the current one, holds ``~x``. Raises ``UsageError`` if there is neither such a user nor such a folder. Never
    pass a name that was found while listing a folder.
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
    raise UsageError(f"no home folder for '{text}'; write the full path of a folder that has this name")


def is_offline() -> bool:
    """Return whether ``FINETUNE_OFFLINE`` forbids every network call."""
    return os.environ.get("FINETUNE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


SUFFIX = ".tmp"
NAME_BYTES = 255  # what every common file system allows

FULL = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EFBIG: "the file system holds no file that large; choose another folder",
    errno.EIO: "the disk reports a fault; choose another folder",
}
REFUSED = FULL | {
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "permission denied; choose a folder that you may write to",
    errno.ENOENT: "the folder is gone or takes no files; choose another folder",
    errno.ENOTDIR: "a part of this path is a file; choose another folder",
    errno.EEXIST: "a part of this path is a file; choose another folder",
    errno.EISDIR: "a folder has this name; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file that takes the place of ``path`` when the block succeeds, else vanishes.

    It is on disk before it is renamed, so that even a power cut leaves the old content or the new, and has the modes
    that the user's umask gives to new files. Raises ``ResourceError`` if the disk is full, read-only or forbidden.
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
        # Inside the block a refusal may concern any other file, but a full disk can only concern this one.
        with translate_disk_errors(path, FULL):
            yield part
        if part.stat().st_mode != mode:  # some writers leave files that their owner cannot write or delete
            part.chmod(mode)
        with translate_disk_errors(path):
            _sync(part)
            os.replace(part, path)
        with suppress(FileNotFoundError):
            part.unlink()  # it stays where both were links to the same file
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` at once; raises ``ResourceError`` if the disk refuses."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` at once, in UTF-8; bytes of file names that are none become escapes, as in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, obj: Any) -> None:
    """Write ``obj`` to ``path`` at once, as indented JSON; raises ``ValueError`` for NaN and infinities."""
    write_bytes(path, encode_json(obj))


def encode_json(obj: Any) -> bytes:
    r"""Return ``obj`` as indented JSON in UTF-8.

    A byte 0xNN of a file name that is not UTF-8 becomes ``\udcNN``, by which ``json.loads`` and ``os.fsencode`` find
    the name again.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def sweep(folder: Path, *, older_than: float = 3600.0) -> None:
    """Remove temporary files and folders that killed processes left in ``folder``, if ``older_than`` in seconds."""
    now = time.time()
    for part in folder.glob(f".*.{'[0-9a-f]' * 12}{SUFFIX}"):
        with suppress(OSError):
            if now - part.lstat().st_mtime < older_than:
                continue
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()


@contextmanager
def translate_disk_errors(path: Path, remedies: dict[int, str] = REFUSED) -> Iterator[None]:
    """Turn what a disk refuses inside the block into a ``ResourceError`` that names ``path`` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in remedies:
            raise
        raise ResourceError(f"cannot write '{path}': {remedies[error.errno]}") from error


def check_place(path: Path) -> None:
    """Raise the ``ResourceError`` of a place that cannot hold a file, before what goes there is computed."""
    with translate_disk_errors(path):
        for folder in (folder for folder in path.absolute().parents if os.path.exists(folder)):
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            break
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def make_temporary_name(path: Path) -> Path:
    """Return a new name beside ``path``: hidden, and swept by ``sweep`` if it is left behind."""
    tail = f".{secrets.token_hex(6)}{SUFFIX}"
    name = os.fsencode(path.name)[: NAME_BYTES - 1 - len(tail)].decode("utf-8", "ignore")
    return path.with_name(f".{name}{tail}")


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where the system can."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
