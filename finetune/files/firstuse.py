"""Files whose publisher states no whole hash: what came first is trusted, and every later file must be the same."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import DownloadError, ResourceError
from finetune.files.atomic import write_text
from finetune.files.promise import sha256

if TYPE_CHECKING:
    from finetune.files.promise import Promise


def locate_mark(target: Path) -> Path:
    """Return the file beside ``target`` that keeps its sha256, as ``sha256sum`` writes it."""
    return Path(f"{target}.sha256")


def recall_hash(promise: Promise) -> Promise:
    """Return the promise with the hash of its file's first use, where its publisher states no whole one."""
    if promise.whole:
        return promise
    found = None
    with suppress(OSError, UnicodeDecodeError):
        found = re.match(r"[0-9a-f]{64}\b", locate_mark(promise.target).read_text(encoding="ascii"))
    if found is None:
        return promise
    if not f"sha256:{found[0]}".startswith(promise.digest):
        text = (
            f"'{locate_mark(promise.target)}' keeps sha256 {found[0]}, which does not begin with {promise.wanted[:-1]}"
        )
        raise DownloadError(f"{text}; remove it if you trust the new hash")
    return replace(promise, digest=f"sha256:{found[0]}", first_use=True)


def remember_hash(promise: Promise) -> None:
    """Keep the hash of a promise's file, which is here, unless its publisher states it."""
    if not promise.whole:
        keep_hash(promise.target, sha256(promise.target))


def keep_hash(target: Path, digest: str) -> None:
    """Keep the hash of a file's first use; without that the next use is a first one again."""
    with suppress(ResourceError):
        write_text(locate_mark(target), f"{digest}  {target.name}\n")


def make_changed_error(promise: Promise) -> DownloadError:
    """Return the error for a file that is here and no longer what it was at its first use."""
    return DownloadError(
        describe_change(promise.target, sha256(promise.target), promise.wanted, locate_mark(promise.target))
    )


def describe_change(path: Path, found: str, wanted: str, kept: Path) -> str:
    """Return what to say of a file that is not what it was at its first use, whose hash ``kept`` keeps."""
    text = f"'{path}' has sha256 {found}, not {wanted} as at its first use"
    return f"{text}; remove it to fetch it anew, and '{kept}' too if you trust the new file"
