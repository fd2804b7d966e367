"""Folders and files as people leave them: which hold photos, in which order, and what is in the way."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from finetune import DataError, did_you_mean

PHOTOS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
UNREADABLE = (".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw")
SYSTEM = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "lost+found")


def existing(root: Path, key: str = "dataset.root") -> Path:
    """Return a folder that exists; raises ``DataError`` that says from where on the path is wrong."""
    root = root.expanduser()
    if os.path.isdir(root):
        return root
    if os.path.exists(root):
        known = {".csv": "dataset.use=csv reads tables of photos", ".zip": "unpack it first"}
        remedy = known.get(root.suffix.lower(), f"check {key}")
        raise DataError(f"'{root}' is a file, not a folder of photos; {remedy}")
    raise DataError(f"no folder '{shortened(root)}'{misspelt(root, key)}")


def regular(file: Path, key: str) -> Path:
    """Return a file that can be read; raises ``DataError`` that says what is wrong with it."""
    if not os.path.exists(file):
        raise DataError(f"no file '{shortened(file)}'{misspelt(file, key)}")
    if not os.path.isfile(file):
        kind = "a folder" if os.path.isdir(file) else "a pipe, socket or device"
        raise DataError(f"'{file}' is {kind}, not a file; check {key}")
    return file


def misspelt(path: Path, key: str) -> str:
    """Return from where on a path does not exist, with the nearest name that does."""
    *_, missing = (part for part in (path, *path.parents) if not os.path.exists(part))
    if os.path.islink(missing):
        return f": '{missing}' is a link that leads nowhere; check {key}"
    near = ""
    with suppress(OSError):
        near = did_you_mean(missing.name, (entry.name for entry in listed(missing.parent)))
    remedy = near if near.startswith("; did") else f"; check {key}"
    return f": '{missing.parent}' has no '{shortened(missing.name)}'{remedy}"


def shortened(name: str | Path) -> str:
    """Return a name of which a message shows no more than a line."""
    text = str(name)
    return text if len(text) <= 200 else f"{text[:200]}…"


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders right below a folder, in natural order."""
    return [Path(entry.path) for entry in listed(folder) if is_folder(entry) and not is_hidden(entry.name)]


def listed(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds in natural order, whatever order the file system has."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: natural(entry.name))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link to itself leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def kind(name: str) -> Literal["photo", "hidden", "other", "unreadable"]:
    """Return what a file is, by its name."""
    ending = os.path.splitext(name)[1].lower()
    if is_hidden(name):
        return "hidden"
    return "photo" if ending in PHOTOS else "unreadable" if ending in UNREADABLE else "other"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that no person put there as data."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_text(name: str) -> bool:
    """Whether a name is made of characters, not of bytes that mean none."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts 2 before 10."""
    keys: list[tuple[int, str]] = []
    for i, piece in enumerate(re.split(r"(\d+)", name)):
        number = piece.lstrip("0")
        keys.append((len(number), number) if i % 2 else (0, piece))
    return keys, name
