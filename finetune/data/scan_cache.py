"""What earlier scans found, by path, size and times of change."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import __version__ as pillow_version

from finetune.data import heif
from finetune.data.looks import Look, parse
from finetune.errors import FinetuneError
from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RULES = 3  # raise when decoding takes or refuses other files than before
SPARE_LINES = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scan found about one file as it was: the hash of its content and its look, or why it cannot be used.

    The look is missing where an older version wrote the verdict.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    digest: str | None
    reason: str | None
    look: Look | None = None


class ScanCache:
    """Verdicts on the files below ``root``, one JSON line each in a file of ``folder``; the last line on a path counts.

    Lines are appended in blocks, so that a killed scan keeps what it did. A line that cannot be read is ignored, and
    so is a folder that cannot be written: losing the cache costs time only.
    """

    def __init__(self, folder: Path, root: str) -> None:
        name = hashlib.blake2b(
            f"{RULES}\0{pillow_version}\0{heif.is_available()}\0{root}".encode("utf-8", "surrogateescape"),
            digest_size=16,
        )
        self.path = folder / f"{name.hexdigest()}.jsonl"
        self.lines = 0
        self.verdicts = dict(self._read())

    def _read(self) -> Iterable[tuple[str, Verdict]]:
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file:
            for line in file:
                self.lines += 1
                if (entry := _parse(line)) is not None:
                    yield entry

    def add(self, found: dict[str, Verdict]) -> None:
        """Remember verdicts, now and for the next scan."""
        self.verdicts.update(found)
        self.lines += len(found)
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # Whatever a killed writer left unfinished ends here.
                file.write(b"\n" + _lines(found))

    def tidy(self, used: Iterable[str]) -> None:
        """Write the file anew with the verdicts in use if most of its lines are on files that changed or went."""
        keep = {path: self.verdicts[path] for path in used if path in self.verdicts}
        if self.lines > 2 * len(keep) + SPARE_LINES:
            with suppress(OSError, FinetuneError):
                atomic.write_bytes(self.path, _lines(keep))


def _lines(found: dict[str, Verdict]) -> bytes:
    rows = ([path, v.size, v.mtime_ns, v.ctime_ns, v.digest, v.reason, *_look(v)] for path, v in found.items())
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def _look(verdict: Verdict) -> list[list[int | str]]:
    look = verdict.look
    return [] if look is None else [[look.width, look.height, look.mode, look.profile, look.problem]]


def _parse(line: bytes) -> tuple[str, Verdict] | None:
    try:
        path, size, mtime_ns, ctime_ns, digest, reason, *look = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    sound = isinstance(path, str) and all(isinstance(number, int) for number in (size, mtime_ns, ctime_ns))
    if not sound or not isinstance(digest or reason, str):
        return None
    return path, Verdict(size, mtime_ns, ctime_ns, digest, reason, parse(look[0]) if look else None)


def root_of(paths: Iterable[str]) -> str:
    """Return the folder that holds all the files, which names their cache."""
    folders = {os.path.dirname(path) for path in paths}
    return os.path.commonpath(folders) if folders else ""
