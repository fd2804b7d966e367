"""Entries of the feature cache: named by their content, limited in size, least recently used ones removed first."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from finetune.files import atomic
from finetune.files.atomic import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ABOUT = "entry.json"
RESERVE = 256 << 20  # bytes of disk space to leave free
POLL = 0.2  # seconds between two attempts to take a lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The folder of a table; ``about`` is everything that its content depends on."""

    folder: Path
    about: dict[str, Any]

    def read(self) -> dict[str, Any]:
        """Read ``entry.json``: ``shape``, and ``seconds`` of computation once complete; empty if missing or invalid."""
        try:
            found = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
            if found.pop("seal") == hash_json(found) and found["about"] == self.about:
                return dict(found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        return {}

    def write(self, shape: tuple[int, ...], seconds: float | None, takes: int = 0) -> None:
        """Write ``entry.json``: ``seconds`` of computation (None until complete), ``takes`` the final size in bytes."""
        found = {"about": self.about, "shape": list(shape), "seconds": seconds, "bytes": takes}
        atomic.write_json(self.folder / ABOUT, {**found, "seal": hash_json(found)})

    def use(self) -> None:
        """Mark the entry as the most recently used."""
        with suppress(OSError):
            os.utime(self.folder / ABOUT)

    @contextmanager
    def lock(self, say: Callable[[str], None], check: Callable[[], None]) -> Iterator[bool]:
        """Lock the entry; while another process holds it, wait and call ``check``.

        Yields whether the lock is held: some file systems do not support locks.
        """
        lock = FileLock(self.folder.with_suffix(".lock"))
        with atomic.translate_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        told = False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=POLL)
            except Timeout:
                if not told:
                    say("another run computes the same features; waiting for it")
                told = True
                check()
            except (OSError, NotImplementedError):
                break  # a file system without locks: both compute the same features, and writes are atomic
        try:
            yield lock.is_locked
        finally:
            lock.release()


def locate_cache() -> Path:
    """Return the folder of all entries."""
    return cache_folder() / "features"


def locate_entry(about: dict[str, Any]) -> Entry:
    """Return the entry for features that depend on ``about``."""
    about = json.loads(json.dumps(about))
    return Entry(folder=locate_cache() / hash_json(about), about=about)


def hash_json(content: dict[str, Any]) -> str:
    """Return a hash of a JSON value."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def measure_size(folder: Path) -> int:
    """Return the size of the shards in a folder in bytes, without those that vanish meanwhile."""
    total = 0
    for path in folder.glob("*.f16"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def read_claim(folder: Path) -> int:
    """Return the size in bytes that an entry will have once complete; 0 if unknown."""
    try:
        return int(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["bytes"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


@contextmanager
def lock_cache() -> Iterator[None]:
    """Keep other processes from making room at the same time, if the file system supports locks."""
    lock = FileLock(locate_cache() / ".lock")
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def make_room(needed: int, limit: int, keep: set[Path]) -> str:
    """Remove the least recently used entries, except ``keep``, until ``needed`` more bytes fit.

    Returns an empty string if they fit below ``limit`` and on the disk, else the reason why they do not.
    """
    atomic.sweep(locate_cache())
    folders = [folder for folder in locate_cache().glob("*") if folder.is_dir()]
    # Entries that another run has started count with their final size; ``needed`` covers those of this run.
    held = {each: measure_size(each) if each in keep else max(measure_size(each), read_claim(each)) for each in folders}
    if sum(held.get(folder, 0) for folder in keep) + needed > limit:
        return f"they need {needed / 1e9:.3g} GB, but cache.max_gb is {limit / 1e9:.3g}"
    others = sorted((folder for folder in held if folder not in keep), key=read_last_use)
    if (lacking := count_missing_bytes(needed) - sum(held[folder] for folder in others)) > 0:
        return f"they need {needed / 1e9:.3g} GB; free {lacking / 1e9:.3g} GB more at {locate_cache()}"
    while sum(held.values()) + needed > limit or count_missing_bytes(needed):
        if not others:
            break
        oldest = others.pop(0)
        if drop_entry(oldest):
            del held[oldest]
    if sum(held.values()) + needed > limit:
        return f"they need {needed / 1e9:.3g} GB, but the features that other runs are computing fill cache.max_gb"
    if lacking := count_missing_bytes(needed):
        return f"they need {needed / 1e9:.3g} GB; free {lacking / 1e9:.3g} GB more at {locate_cache()}"
    return ""


def read_last_use(folder: Path) -> float:
    """Return the time when an entry was last used; 0 if it has no ``entry.json``."""
    try:
        return (folder / ABOUT).stat().st_mtime
    except OSError:
        return 0.0


def count_missing_bytes(needed: int) -> int:
    """Return how many bytes are missing on the disk."""
    folder = next(each for each in (locate_cache(), *locate_cache().parents) if each.exists())
    return max(0, needed + RESERVE - shutil.disk_usage(folder).free)


def drop_entry(folder: Path) -> bool:
    """Remove an entry unless a process is computing it; processes that have it open can still read it."""
    lock = FileLock(folder.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError, NotImplementedError):
        return False
    try:
        gone = atomic.make_temporary_name(folder)
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError:
        return False
    finally:
        lock.release()
    with suppress(OSError):
        folder.with_suffix(".lock").unlink()
    return True
