"""Files and folders that a user names: which must be there, and from where on a path is wrong."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from finetune.errors import DataError
from finetune.files.home import expand_home
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

OTHER_DATA = {".csv": "dataset.use=csv reads tables of photos", ".zip": "unpack it first"}


def existing_folder(folder: Path, key: str = "dataset.root") -> Path:
    """Return a folder that exists, with ``~/`` expanded; raises ``DataError`` that says from where on it is wrong.

    ``key`` is the recipe's key that names it.
    """
    folder = expand_home(folder)
    if os.path.isdir(folder):
        return folder
    if os.path.exists(folder):
        remedy = OTHER_DATA.get(folder.suffix.lower(), f"check {key}")
        raise DataError(f"'{folder}' is a file, not a folder of photos; {remedy}")
    raise DataError(f"no folder '{shorten(folder)}'{explain_missing(folder, key)}")


def existing_file(file: Path, key: str) -> Path:
    """Return a file that can be read; raises ``DataError`` that says what is wrong with it.

    ``key`` is the recipe's key that names it.
    """
    if not os.path.exists(file):
        raise DataError(f"no file '{shorten(file)}'{explain_missing(file, key)}")
    if not os.path.isfile(file):
        kind = "a folder" if os.path.isdir(file) else "a pipe, socket or device"
        raise DataError(f"'{file}' is {kind}, not a file; check {key}")
    return file


def explain_missing(path: Path, key: str) -> str:
    """Return from where on a path does not exist, with the nearest name that does, as the end of a message."""
    *_, missing = (part for part in (path, *path.parents) if not os.path.exists(part))
    if os.path.islink(missing):
        return f": '{missing}' is a link that leads nowhere; check {key}"
    near = ""
    with suppress(OSError):
        near = did_you_mean(missing.name, os.listdir(missing.parent))
    remedy = near if near.startswith("; did") else f"; check {key}"
    return f": '{missing.parent}' has no '{shorten(missing.name)}'{remedy}"


def shorten(name: str | Path) -> str:
    """Return a name cut to 200 characters, for a message."""
    text = str(name)
    return text if len(text) <= 200 else f"{text[:200]}…"
