"""Trust on first use: if the publisher states no complete hash, every later file must equal the first one."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import DownloadError, ResourceError
from finetune.files.atomic import write_text
from finetune.files.remote_file import sha256

if TYPE_CHECKING:
    from finetune.files.remote_file import RemoteFile


def locate_mark(target: Path) -> Path:
    """Return the path of the file next to ``target`` that stores its sha256, in the format of ``sha256sum``."""
    return Path(f"{target}.sha256")


def recall_hash(remote: RemoteFile) -> RemoteFile:
    """Return the file with the hash of the file's first use, if its publisher states no complete hash."""
    if remote.whole:
        return remote
    found = None
    with suppress(OSError, UnicodeDecodeError):
        found = re.match(r"[0-9a-f]{64}\b", locate_mark(remote.target).read_text(encoding="ascii"))
    if found is None:
        return remote
    if not f"sha256:{found[0]}".startswith(remote.digest):
        mark = locate_mark(remote.target)
        text = f"'{mark}' stores sha256 {found[0]}, which does not begin with {remote.wanted[:-1]}"
        raise DownloadError(f"{text}; remove it if you trust the new hash")
    return replace(remote, digest=f"sha256:{found[0]}", first_use=True)


def remember_hash(remote: RemoteFile) -> None:
    """Store the hash of a downloaded file, unless its publisher states it."""
    if not remote.whole:
        keep_hash(remote.target, sha256(remote.target))


def keep_hash(target: Path, digest: str) -> None:
    """Store the hash of a file's first use; if that fails, the next use counts as the first one."""
    with suppress(ResourceError):
        write_text(locate_mark(target), f"{digest}  {target.name}\n")


def make_changed_error(remote: RemoteFile) -> DownloadError:
    """Return the error for an existing file that differs from its first use."""
    return DownloadError(
        describe_change(remote.target, sha256(remote.target), remote.wanted, locate_mark(remote.target))
    )


def describe_change(path: Path, found: str, wanted: str, kept: Path) -> str:
    """Describe a file that differs from its first use, whose hash is stored in ``kept``."""
    text = f"'{path}' has sha256 {found}, not {wanted} as at its first use"
    return f"{text}; remove it to download it again, and also remove '{kept}' if you trust the new file"
