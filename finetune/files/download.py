"""Verified downloads: a file with a known hash appears complete and verified, or not at all."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from finetune.errors import DownloadError
from finetune.files import trust
from finetune.files.atomic import SUFFIX, atomic_path, is_offline, make_temporary_name, sweep, translate_disk_errors
from finetune.files.remote_file import AddressFailed, RemoteFile
from finetune.files.transfer import CHUNK, Limits, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from filelock import BaseFileLock


VARIABLE = "FINETUNE_MIRROR"


def list_addresses(remote: RemoteFile) -> list[RemoteFile]:
    """Return the file at each address to try, in order: mirrors, then its own; only files when offline."""
    found = [*_list_mirrors(remote), remote]
    return [each for each in found if not is_offline() or urlsplit(each.url).scheme == "file"]


class AllAddressesFailed(DownloadError):
    """No address had the file; ``reason`` is the message without the remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}; {remedy}")


def explain_failures(remote: RemoteFile, failures: Sequence[AddressFailed]) -> DownloadError:
    """Return the error that lists the answer of each address, one per line."""
    answers = "".join(f"\n  '{failed.remote.shown}' {failed.reason}" for failed in failures)
    if is_offline() and urlsplit(remote.url).scheme != "file":
        lacking = f", and no mirror has it:{answers}" if answers else ""
        damaged = f"; '{remote.target}' exists but is damaged" if remote.target.is_file() else ""
        text = f"'{remote.shown}' is needed, but FINETUNE_OFFLINE is set{damaged}{lacking}"
        return AllAddressesFailed(text, f"unset it, or {remote.by_hand}")
    if len(failures) == 1:
        return failures[0]
    text = f"'{remote.shown}' cannot be downloaded from {len(failures)} addresses:{answers}"
    return AllAddressesFailed(text, f"check {VARIABLE} and the network, or {remote.by_hand}")


def _list_mirrors(remote: RemoteFile) -> Iterator[RemoteFile]:
    """Yield the file at ``BASE/HOST/PATH`` for each mirror, without the secrets in its own address."""
    own = urlsplit(remote.url)
    path = f"{own.netloc.rpartition('@')[2].lower()}{own.path}"
    if own.scheme == "file" or {".", ".."} & {*unquote(path).split("/")}:
        return
    for word in os.environ.get(VARIABLE, "").split():
        try:
            base = urlsplit(word)
            url = base._replace(path=f"{base.path.rstrip('/')}/{path}", fragment="").geturl()
            mirrored = replace(remote, url=url)
            mirrored.check()
        except (DownloadError, ValueError):
            shown = word.partition("?")[0].rpartition("@")[2]
            raise DownloadError(
                f"'{shown}' in {VARIABLE} is not the address of a mirror; write https://HOST/PATH or file:///PATH"
            ) from None
        yield mirrored


LIMITS = Limits()


def fetch(url: str, digest: str, target: Path, *, progress: bool = True, limits: Limits = LIMITS) -> Path:
    """Download ``url`` to ``target`` unless the file is already there, verify its hash, and return ``target``.

    ``digest`` is ``sha256:HEX`` or ``md5:HEX``. If the publisher states less, it is ``sha256:`` with the first 8 or
    more digits, or empty; then the sha256 of the first download is written to ``TARGET.sha256`` and required of every
    later file. ``url`` is https or file, or http on this machine; the mirrors in ``FINETUNE_MIRROR`` are tried first.
    Raises ``DownloadError`` if the file cannot be downloaded or is a different file, and ``ResourceError`` if the disk
    refuses it.
    """
    remote = RemoteFile(url, digest.strip().lower(), Path(target))
    remote.check()
    if _is_here(trust.recall_hash(remote)):
        return remote.target
    if not list_addresses(remote):
        raise explain_failures(remote, ())
    with translate_disk_errors(remote.target):
        remote.target.parent.mkdir(parents=True, exist_ok=True)
    sweep(remote.target.parent)
    with _lock(remote.target) as alone:
        if alone:
            _clear(remote.target)
        known = trust.recall_hash(remote)  # a process that held the lock may have stored it
        if not _is_here(known):
            _fetch(known, limits, progress)
    return remote.target


def _is_here(remote: RemoteFile) -> bool:
    """Return whether the expected file is at its place; raises ``DownloadError`` for one that must not be replaced."""
    target = remote.target
    try:
        if remote.matches(target):
            trust.remember_hash(remote)
            return True
        if remote.first_use and target.is_file():
            raise trust.make_changed_error(remote)
    except OSError as error:
        text = f"'{target}' cannot be read ({error.strerror}); change its permissions or remove it"
        raise DownloadError(text) from error
    return False


def _fetch(remote: RemoteFile, limits: Limits, progress: bool) -> None:
    """Try one address after the other."""
    failures = []
    for address in list_addresses(remote):
        carry = _copy if urlsplit(address.url).scheme == "file" else transfer
        try:
            with atomic_path(remote.target) as part:
                carry(address, part, limits, progress)
        except AddressFailed as failed:
            failures.append(failed)
        except FileNotFoundError as error:
            raise DownloadError(f"'{remote.target}' was removed while downloading; try again") from error
        else:
            return trust.remember_hash(remote)
    raise explain_failures(remote, failures)


def _copy(remote: RemoteFile, part: Path, limits: Limits, progress: bool) -> None:
    """Fill ``part`` with the file that a ``file:`` address names."""
    with part.open("wb") as file:
        for chunk in _read_source(remote):
            if file.tell() + len(chunk) > limits.size:
                raise AddressFailed(remote, f"exceeds {limits.size:,} bytes")
            file.write(chunk)
    if not remote.matches(part):
        raise remote.find_mismatch(part)


def _read_source(remote: RemoteFile) -> Iterator[bytes]:
    parts = urlsplit(remote.url)
    source = Path(unquote(parts.path))
    try:
        if parts.netloc not in ("", "localhost") or not source.is_file():
            raise AddressFailed(remote, "does not exist", "use another address")
        with source.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise AddressFailed(remote, f"cannot be read ({error.strerror})", "change its permissions") from error


@contextmanager
def _lock(target: Path) -> Iterator[bool]:
    """Let one process download at a time; if the file system cannot lock, several may, which is harmless.

    Yields whether it is certain that no other process downloads the file.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=3600)
    with suppress(OSError, NotImplementedError, Timeout):
        lock.acquire()
    try:
        yield _is_exclusive(lock)
        with suppress(OSError):  # later processes find the file and need no lock
            os.unlink(lock.lock_file)
    finally:
        with suppress(OSError):
            lock.release()


def _is_exclusive(lock: BaseFileLock) -> bool:
    """Return whether a lock excludes other processes; some file systems grant every lock to everyone."""
    if not lock.is_locked:
        return False
    with suppress(OSError), open(lock.lock_file, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _clear(target: Path) -> None:
    """Remove partial downloads of this file that killed processes left behind."""
    for path in (target, trust.locate_mark(target)):
        start = make_temporary_name(path).name.removesuffix(SUFFIX)[:-12]
        tail = r"[0-9a-f]{12}" + re.escape(SUFFIX)
        left = re.compile(rf"\.?{re.escape(start)}{tail}(\.{tail})?")
        for part in target.parent.iterdir():
            if left.fullmatch(part.name):
                with suppress(OSError):
                    part.unlink()
