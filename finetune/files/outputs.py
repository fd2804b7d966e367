"""Output files of commands: never overwrites a user's file by accident.

An existing file is refused, unless ``force`` is set, or the same command wrote it and it has not changed since. That is
known from the ledger, which has a small file in the cache for each path that was written, with the command and a hash
of the content. If the ledger cannot be read or written, commands only refuse more files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import DataError, FinetuneError, ResourceError, UsageError
from finetune.files import atomic
from finetune.files.atomic import cache_folder, expand_home
from finetune.suggest import did_you_mean
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Sequence


OTHER_DATA = {".csv": "dataset.use=csv reads tables of photos", ".zip": "unpack it first"}


def existing_folder(folder: Path, key: str = "dataset.root") -> Path:
    """Return an existing folder, with ``~/`` expanded; raises ``DataError`` that says which part does not exist.

    ``key`` is the recipe key that names the folder.
    """
    folder = expand_home(folder)
    if os.path.isdir(folder):
        return folder
    if os.path.exists(folder):
        remedy = OTHER_DATA.get(folder.suffix.lower(), f"check {key}")
        raise DataError(f"'{folder}' is a file, not a folder of photos; {remedy}")
    raise DataError(f"no folder '{shorten(folder)}'{explain_missing(folder, key)}")


def existing_file(file: Path, key: str) -> Path:
    """Return an existing file; raises ``DataError`` that says what is wrong with any other path.

    ``key`` is the recipe key that names the file.
    """
    if not os.path.exists(file):
        raise DataError(f"no file '{shorten(file)}'{explain_missing(file, key)}")
    if not os.path.isfile(file):
        kind = "a folder" if os.path.isdir(file) else "a pipe, socket or device"
        raise DataError(f"'{file}' is {kind}, not a file; check {key}")
    return file


def explain_missing(path: Path, key: str) -> str:
    """Return the end of a message about a missing path: which part of it is missing, and the nearest existing name."""
    *_, missing = (part for part in (path, *path.parents) if not os.path.exists(part))
    if os.path.islink(missing):
        return f": '{missing}' is a broken link; check {key}"
    near = ""
    with suppress(OSError):
        near = did_you_mean(missing.name, os.listdir(missing.parent))
    remedy = near if near.startswith("; did") else f"; check {key}"
    return f": '{missing.parent}' has no '{shorten(missing.name)}'{remedy}"


def shorten(name: str | Path) -> str:
    """Return a name cut to 200 characters, for a message."""
    text = str(name)
    return text if len(text) <= 200 else f"{text[:200]}…"


STDOUT = Path("-")
CLI_REMEDY, API_REMEDY = "choose another name or pass --force", "choose another name or pass force=True"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file to write at ``path``, for the command of this name.

    ``force`` replaces an existing file, but never one of ``inputs``, which the command reads. In a folder among
    ``inputs``, every file whose ending is not in ``OUTPUT_ENDINGS`` counts as an input.
    """

    path: Path
    command: str
    force: bool = False
    inputs: Sequence[Path] = ()
    remedy: str = CLI_REMEDY

    @property
    def place(self) -> Path:
        """The path that is written: links are followed, so that a link remains a link."""
        return Path(os.path.realpath(self.path)) if os.path.islink(self.path) else self.path

    def check(self) -> None:
        """Check that the file may be written; called before its content is computed, and again before writing it.

        Raises ``UsageError`` for a file that would be lost, and ``ResourceError`` for a path that cannot be written.
        """
        if self.path == STDOUT or is_stream(self.path):
            return
        name = escape_line(str(self.path))
        if os.path.isdir(self.path):
            raise UsageError(f"'{name}': this is a folder; name a file in it")
        atomic.check_place(self.path)
        if os.path.islink(self.place):
            raise UsageError(f"'{name}': the link leads to itself; choose another name")
        if not os.path.lexists(self.path):
            return
        if is_input(self.path, self.inputs):
            raise UsageError(f"'{name}': the command reads this file; choose another name")
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise ResourceError(f"'{name}': this is a socket or a disk, not a file; choose another name")
        if not self.force and not is_unchanged(self.place, self.command):
            raise UsageError(f"'{name}': the file exists; {self.remedy}")

    def write(self, data: bytes) -> bytes | None:
        """Write the content and record it; return content for standard output, which the caller prints."""
        self.check()
        if self.path == STDOUT:
            return data
        if is_stream(self.path):
            write_to_stream(self.path, data)
            return None
        atomic.write_bytes(self.place, data)
        self.note()
        return None

    def note(self) -> None:
        """Record in the ledger that the command has written the file."""
        record_output(self.place, self.command)


def check_all(outputs: Sequence[Output]) -> None:
    """Check that several different files of one command may be written; raises the errors of ``Output.check``."""
    seen: set[str] = set()
    for output in outputs:
        output.check()
        place = os.path.realpath(output.path)
        if place in seen:
            raise UsageError(f"'{escape_line(str(output.path))}': two outputs have this name; choose a different one")
        seen.add(place)


def is_input(path: Path, inputs: Sequence[Path]) -> bool:
    """Return whether an existing file is one of ``inputs``, by any of its names, or is in one of their folders."""
    try:
        own = os.stat(path)
    except OSError:  # a broken link
        return False
    above = {_identify(folder) for folder in Path(os.path.realpath(path)).parents}
    for each in inputs:
        try:
            other = os.stat(each)
        except OSError:
            continue
        if os.path.samestat(own, other):
            return True
        if stat.S_ISDIR(other.st_mode) and path.suffix not in OUTPUT_ENDINGS and _identify(each) in above:
            return True
    return False


OUTPUT_ENDINGS = (".csv", ".svg", ".json", ".yaml", ".yml")
"""Endings of files that are not photos, which a command may replace in a folder of photos."""


def _identify(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def parse_output(text: str) -> Path:
    """Parse a path of the command line; every name of standard output becomes ``-``, while ``./-`` is a file."""
    if text == "-" or _find_descriptor(Path(text)) == 1:
        return STDOUT
    return Path(text).absolute() if Path(text) == STDOUT else Path(text)


def _find_descriptor(path: Path) -> int | None:
    """Return the descriptor that a path such as ``/dev/stdout`` or ``/dev/fd/63`` refers to, otherwise None."""
    name = os.path.normpath(path)
    if name in ("/dev/stdout", "/dev/stderr"):
        return 1 if name == "/dev/stdout" else 2
    found = re.fullmatch(r"(?:/dev/fd|/proc/self/fd)/(\d{1,6})", name)
    return int(found[1]) if found else None


def is_stream(path: Path) -> bool:
    """Return whether a path is a pipe, a terminal or ``/dev/null``, so that writing to it replaces nothing."""
    if _find_descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def write_to_stream(path: Path, data: bytes) -> None:
    """Write to a pipe or a device; raises ``ResourceError`` for a pipe without a reader."""
    name = escape_line(str(path))
    try:
        number = _find_descriptor(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK) if number is None else os.dup(number)
        with open(descriptor, "wb") as file:
            os.set_blocking(descriptor, True)
            file.write(data)
    except OSError as error:
        reason = "no process reads this pipe; start its reader first" if error.errno == 6 else error.strerror
        raise ResourceError(f"'{name}': {reason}") from error


def record_output(place: Path, command: str) -> None:
    """Record in the ledger what a command has written; if that fails, the file counts as the user's."""
    with suppress(FinetuneError, OSError):
        entry = {"path": str(resolve_folder(place)), "command": command, "blake2b": hash_file(place)}
        atomic.write_json(_locate_entry(place), entry)


def is_unchanged(place: Path, command: str) -> bool:
    """Return whether a file is still as the command wrote it."""
    try:
        entry = json.loads(_locate_entry(place).read_text(encoding="utf-8"))
        return bool(entry == {"path": str(resolve_folder(place)), "command": command, "blake2b": hash_file(place)})
    except (FinetuneError, OSError, ValueError):
        return False


def resolve_folder(place: Path) -> Path:
    """Return the absolute path of a file, with the links in its folder resolved."""
    return Path(os.path.realpath(place.parent)) / place.name


def hash_file(place: Path) -> str:
    with place.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _locate_entry(place: Path) -> Path:
    key = hashlib.blake2b(os.fsencode(resolve_folder(place)), digest_size=16).hexdigest()
    return cache_folder() / "outputs" / f"{key}.json"
