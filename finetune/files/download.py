"""Fetch a file whose hash is known: it appears complete and verified, or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from finetune.errors import DownloadError
from finetune.files.atomic import atomic_path, disk_errors, sweep
from finetune.files.home import offline
from finetune.files.promise import Promise
from finetune.files.transfer import Limits, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits()


def fetch(url: str, digest: str, target: Path, *, progress: bool = True, limits: Limits = LIMITS) -> Path:
    """Return ``target`` after making it the file at ``url`` whose hash is ``digest``; no network if it is that already.

    ``digest`` is ``sha256:HEX`` or ``md5:HEX``; ``url`` is https or file, or http on this machine. Raises
    ``DownloadError`` if the file cannot be had or is another one, ``ResourceError`` if the disk does not take it.
    """
    promise = Promise(url, digest.strip().lower(), Path(target))
    promise.check()
    if promise.kept_by(promise.target):
        return promise.target
    if offline() and urlsplit(url).scheme != "file":
        text = f"'{promise.shown}' is needed, but FINETUNE_OFFLINE is set"
        raise DownloadError(f"{text}; unset it, or {promise.by_hand}")
    with disk_errors(promise.target):
        promise.target.parent.mkdir(parents=True, exist_ok=True)
    sweep(promise.target.parent)
    with _lock(promise.target):
        if not promise.kept_by(promise.target):
            _fetch(promise, limits, progress)
    return promise.target


def _fetch(promise: Promise, limits: Limits, progress: bool) -> None:
    with atomic_path(promise.target) as part:
        if urlsplit(promise.url).scheme == "file":
            _copy(promise, part)
        else:
            transfer(promise, part, limits, progress)


def _copy(promise: Promise, part: Path) -> None:
    parts = urlsplit(promise.url)
    source = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not source.is_file():
        raise DownloadError(f"'{promise.shown}' does not exist; use another address, or {promise.by_hand}")
    shutil.copyfile(source, part)
    if not promise.kept_by(part):
        raise promise.broken_by(part)


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Let one process fetch at a time where the file system can lock; elsewhere two fetch, and neither does harm."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=3600)
    with suppress(OSError, NotImplementedError, Timeout):
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()
            if target.exists():  # whoever comes now needs no lock
                os.unlink(lock.lock_file)
