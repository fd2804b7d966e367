"""A file that is known by its hash before it is here, and what to say when it does not come."""

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


@dataclass(frozen=True, slots=True)
class Promise:
    """The file that is wanted: where it comes from, its hash as ``sha256:HEX`` or ``md5:HEX``, and where it goes."""

    url: str
    digest: str
    target: Path

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it: user, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def by_hand(self) -> str:
        """What the user can do without this download."""
        return f"put the file with {self.digest.replace(':', ' ')} at '{self.target}'"

    def kept_by(self, path: Path) -> bool:
        """Whether the content of ``path`` has the promised hash."""
        return path.is_file() and hash_file(path, self.digest.partition(":")[0]) == self.digest

    def check(self) -> None:
        """Raise ``DownloadError`` for a hash that is none, or an address that must not be used."""
        if not re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", self.digest):
            raise DownloadError(f"'{self.digest}' is no hash of '{self.shown}'; write sha256: and 64 hex digits")
        self.check_address(self.url)

    def check_address(self, url: str) -> None:
        """Raise ``DownloadError`` unless ``url``, this one or where it leads, is https, file, or on this machine."""
        parts = urlsplit(url)
        if parts.scheme in ("https", "file") or (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS):
            return
        via = "" if url == self.url else f" leads to '{parts.scheme}://{parts.hostname}', which"
        raise DownloadError(f"'{self.shown}'{via} is neither https nor file; use another address, or {self.by_hand}")

    def broken_by(self, path: Path) -> DownloadError:
        """Return the error that says what ``path`` is instead of the promised file."""
        algorithm, _, wanted = self.digest.partition(":")
        found = hash_file(path, algorithm).partition(":")[2]
        text = f"'{self.shown}' gave {describe(path)}, not the file that was promised"
        return DownloadError(
            f"{text}: {algorithm} {found}, expected {wanted}; check the address and the network, or {self.by_hand}"
        )


def hash_file(path: Path, algorithm: str) -> str:
    """Return the hash of a file's content, as ``sha256:HEX`` or the like."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def describe(path: Path) -> str:
    """Return in words what a file looks like that came instead of another one."""
    with path.open("rb") as file:
        head = file.read(4096).decode("utf-8", "replace").strip()
    if re.search(r"<!doctype html|<html", head, re.IGNORECASE):
        title = re.search(r"<title[^>]*>([^<]{1,80})", head, re.IGNORECASE)
        return "a web page" + (f" titled '{' '.join(title[1].split())}'" if title else "")
    if head.startswith("version https://git-lfs"):
        return "a git-lfs pointer"
    return f"{path.stat().st_size:,} other bytes" if head else "an empty file"
