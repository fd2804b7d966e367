"""Remote files: the address, hash and target of a download, and the errors when it fails."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finetune.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
WHOLE = r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download: its address, its hash as ``sha256:HEX`` or ``md5:HEX``, and the path to store it at.

    If the publisher states less, the hash has the first 8 or more digits of the sha256, or is empty. ``first_use`` says
    that the hash is from the first download of the file instead of from its publisher.
    """

    url: str
    digest: str
    target: Path
    first_use: bool = False

    @property
    def shown(self) -> str:
        """The URL without secrets, for messages."""
        return strip_secrets(self.url)

    @property
    def whole(self) -> bool:
        """Whether the complete hash is known."""
        return bool(re.fullmatch(WHOLE, self.digest))

    @property
    def wanted(self) -> str:
        """The digits of the hash, for messages."""
        return self.digest.partition(":")[2] + ("" if self.whole else "…")

    @property
    def by_hand(self) -> str:
        """The remedy that works without this download."""
        hashed = f" with {self.digest.partition(':')[0]} {self.wanted}" if self.digest else ""
        return f"put the file{hashed} at '{self.target}'"

    def matches(self, path: Path) -> bool:
        """Return whether ``path`` has the expected hash; without a hash, whether it looks like a real file."""
        if not path.is_file():
            return False
        if not self.digest:
            return describe_unexpected(path) is None
        return hash_file(path, self.digest.partition(":")[0]).startswith(self.digest)

    def check(self) -> None:
        """Raise ``DownloadError`` for an invalid hash, or an address that must not be used."""
        try:
            shown = self.shown
        except ValueError:
            raise DownloadError(
                f"'{self.url.partition('?')[0]}' is not a valid address; write https://HOST/PATH"
            ) from None
        if not re.fullmatch(rf"{WHOLE}|sha256:[0-9a-f]{{8,63}}|", self.digest):
            raise DownloadError(f"'{self.digest}' is not a valid hash for '{shown}'; write sha256: and 64 hex digits")
        if not (urlsplit(self.url).scheme in ("https", "file") or on_this_machine(self.url)):
            raise AddressFailed(self, "is neither https nor file", "use another address")

    def check_redirect(self, url: str) -> None:
        """Raise ``DownloadError`` unless a redirect to ``url`` uses https, or both addresses are on this machine."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (on_this_machine(url) and on_this_machine(self.url)):
            address = f"{parts.scheme}://{parts.hostname or ''}"
            raise AddressFailed(self, f"redirects to '{address}', which is not https", "use another address")

    def find_mismatch(self, path: Path) -> AddressFailed:
        """Return the error that describes ``path``, which is not the expected file."""
        reason = f"returned {describe_content(path)} instead of the expected file"
        remedy = "check the address and the network"
        if self.digest:
            algorithm = self.digest.partition(":")[0]
            reason += f": {algorithm} {hash_file(path, algorithm).partition(':')[2]}, expected {self.wanted}"
        if self.first_use:
            reason += " as at its first use"
            remedy = f"remove '{self.target}.sha256' if you trust the new file"
        return AddressFailed(self, reason, remedy)


class AddressFailed(DownloadError):
    """An address did not provide the expected file, for ``reason``."""

    def __init__(self, remote: RemoteFile, reason: str, remedy: str = "") -> None:
        self.remote, self.reason = remote, reason
        super().__init__(f"'{remote.shown}' {reason}; {f'{remedy}, or ' if remedy else ''}{remote.by_hand}")


def on_this_machine(url: str) -> bool:
    """Return whether ``url`` is plain http that does not leave this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOCAL_HOSTS


def strip_secrets(url: str) -> str:
    """Return a URL without the parts that may be secret: user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def sha256(path: Path) -> str:
    return hash_file(path, "sha256").partition(":")[2]


def hash_file(path: Path, algorithm: str) -> str:
    """Return the hash of a file's content, as ``sha256:HEX`` or the like."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def describe_content(path: Path) -> str:
    """Describe a file that was received instead of the expected one."""
    return describe_unexpected(path) or f"{path.stat().st_size:,} other bytes"


def describe_unexpected(path: Path) -> str | None:
    """Describe a page, pointer or empty file that a server sent instead of the expected file; None if it is neither."""
    with path.open("rb") as file:
        head = file.read(4096).decode("utf-8", "replace").strip()
    if re.search(r"<!doctype html|<html", head, re.IGNORECASE):
        title = re.search(r"<title[^>]*>([^<]{1,80})", head, re.IGNORECASE)
        return "a web page" + (f" titled '{' '.join(title[1].split())}'" if title else "")
    if head.startswith("version https://git-lfs"):
        return "a git-lfs pointer"
    return None if head else "an empty file"
