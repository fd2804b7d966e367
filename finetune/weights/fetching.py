"""From the record of some weights to their file: here, verified, and the same as at its first use."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from finetune.errors import DownloadError, PluginError, WeightsError
from finetune.files import download, firstuse
from finetune.files.home import cache_folder
from finetune.files.promise import Failed, Promise, public, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.components import Weights
    from finetune.plugins import Plugins

    Fetch = Callable[[Weights, Path], Path | None]

Verified = Literal["sha256", "prefix", "first use"]

DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file, its whole sha256, what that was compared with, and what the user should be told of it, once."""

    path: Path
    sha256: str
    verified: Verified
    note: str = ""


def nothing(record: Weights, cache: Path) -> None:
    """Fetch nothing: leave it to the verified download."""


def fetched(name: str, record: Weights, backbone: str, ask: Fetch = nothing) -> Fetched:
    """Return the file of a record: what ``ask`` returns, else a ``file:`` where it lies, else a download.

    Where the publisher states no whole sha256, that of the first file is kept beside its place in the cache, and every
    later one must have it. Raises ``DownloadError`` for a file that cannot be had, ``WeightsError`` for another file.
    """
    record = replace(record, sha256=record.sha256.lower())
    place = target(record, cache_folder() / "weights")
    stated = f"sha256:{record.sha256}" if record.sha256 else ""
    wanted = firstuse.recalled(Promise(record.url, stated, place)).digest.partition(":")[2]
    whole = len(record.sha256) == DIGITS
    path = ask(record, place.parent) or local(record.url)
    if path is None and wanted != record.sha256 and place.is_file():
        path = place
    if path is None:
        path = downloaded(name, record, backbone, stated, place)
    found = wanted if whole and path == place else checked(path)
    if not found.startswith(wanted):
        raise WeightsError(mismatch(record, path, found, wanted, place))
    if whole:
        return Fetched(path=path, sha256=found, verified="sha256")
    note = "" if wanted == found else remember(name, record, place, found)
    return Fetched(path=path, sha256=found, verified="prefix" if record.sha256 else "first use", note=note)


def target(record: Weights, cache: Path) -> Path:
    """Return where a record's file is kept: two files of one name do not meet."""
    key = record.sha256[:12] or hashlib.sha256(record.url.encode()).hexdigest()[:12]
    return cache / f"{key}-{Path(urlsplit(record.url).path).name or 'weights'}"


def local(url: str) -> Path | None:
    """Return the file that a ``file:`` address on this machine names, if it is there."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    return path if parts.scheme == "file" and parts.netloc in ("", "localhost") and path.is_file() else None


def downloaded(name: str, record: Weights, backbone: str, stated: str, place: Path) -> Path:
    """Return a record's file after a verified download; what goes wrong is explained with all that can be done."""
    limits = replace(download.LIMITS, size=record.bytes or download.LIMITS.size)
    try:
        return download.fetch(record.url, stated, place, limits=limits)
    except DownloadError as error:
        address = public(record.url)
        reason = getattr(error, "reason", str(error)).replace(f"'{address}'", "the file")
        reason = f"the file {reason}" if isinstance(error, Failed) else reason
        raise DownloadError(
            f"no weights '{name}' for '{backbone}': {reason}\n"
            f"  address: {address}\n"
            f"  sha256:  {record.sha256 or 'not stated by the publisher'}\n"
            f"  file:    {place} (put there by hand, it needs no network)\n"
            "or go on without it: backbone.weights=FILE takes weights of yours, backbone.weights=none starts from "
            "random, and `finetune run quickstart` needs no weights"
        ) from error


def checked(path: Path) -> str:
    """Return the sha256 of a file that may not be readable."""
    try:
        return sha256(path)
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read ({error.strerror}); change its permissions") from error


def mismatch(record: Weights, path: Path, found: str, wanted: str, place: Path) -> str:
    """Return what to say of a file with another hash than the stated one, or that of its first use."""
    if wanted != record.sha256:
        return firstuse.other(path, found, wanted, firstuse.mark(place))
    text = f"'{path}' has sha256 {found}, not {wanted}{'…' if len(wanted) < DIGITS else ''} as promised"
    mine = local(record.url) == path
    return f"{text}; {'correct the hash, or name another file' if mine else 'remove it to fetch it anew'}"


def remember(name: str, record: Weights, place: Path, found: str) -> str:
    """Keep the hash of a file's first use, and return what to tell the user."""
    firstuse.keep(place, found)
    stated = f"only {len(record.sha256)} digits of their sha256" if record.sha256 else "no sha256"
    return (
        f"weights '{name}': the publisher states {stated}; found {found}, which is compared from now on "
        f"(remove '{firstuse.mark(place)}' and the file beside it to fetch them anew)"
    )


def asking(plugins: Plugins) -> Fetch:
    """Return what asks plugins for weights; the first that returns a file counts."""

    def ask(record: Weights, cache: Path) -> Path | None:
        answer = plugins.first("finetune_fetch_weights", weights=record, cache=cache)
        if answer is None:
            return None
        origin, found = answer
        if not isinstance(found, str | Path) or not os.path.isfile(found):
            what = f"finetune_fetch_weights returned {found!r}, which is not a file"
            raise PluginError(f"{origin}: {what}; return the path of a file, or None to leave it to others")
        return Path(found)

    return ask
