"""Walk of a folder: the images below it in natural order, and what was skipped and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from finetune.data.filenames import is_hidden, is_known_type, kind_of, natural_key
from finetune.data.heif import NEEDED, is_heif
from finetune.data.imagefile import FORMATS, BadImage, opened

if TYPE_CHECKING:
    from collections.abc import Collection

Reason = Literal["hidden", "other", "link", "format", "heif", "ending", "dangling", "folder", "damaged"]

WHY: dict[Reason, str] = {
    "hidden": "is hidden or belongs to the system",
    "other": "is not an image",
    "link": "is a link to a folder that is read already, or that holds this one",
    "format": "is an image in a format that cannot be read; convert it to JPEG or PNG",
    "heif": NEEDED,
    "ending": "is an image, but its name does not end like one; rename it",
    "dangling": "is a link that leads nowhere; restore what it leads to, or remove it",
    "folder": "cannot be read; check who may read it",
    "damaged": "cannot be decoded",
}
HARMLESS: tuple[Reason, ...] = ("hidden", "other", "link")
PREFIX = 64  # bytes that tell an image from any other file


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file or folder that was skipped; ``text`` completes a sentence that begins with ``path``."""

    path: str
    reason: Reason
    text: str

    @property
    def may_be_image(self) -> bool:
        """Return whether an image may be missing from the result because of this."""
        return self.reason not in HARMLESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The images below a folder in natural order, and everything else that is there."""

    images: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def find_images(folder: str | Path, *, without: Collection[str] = ()) -> Found:
    """Return the images below a folder at any depth, by their names; none of them is opened.

    Links are followed, but each real folder is read once, and a link back up is not. ``without`` are folders to leave
    out. A name that ends like an image's is an image, even if it is a link that leads nowhere: the decoder says so.
    """
    top = str(folder)
    images: list[str] = []
    skipped: list[Skipped] = []
    above: set[str] = set()  # real folders that were read, and all that hold them
    waiting, links = [top], list[str]()
    while waiting or links:
        if not waiting:  # links come last, so that it does not matter how they are called
            path = links.pop(0)
            if os.path.realpath(path) in above:
                skipped.append(skip(path, "link"))
                continue
            waiting.append(path)
        path = waiting.pop()
        add_with_parents(os.path.realpath(path), above)
        try:
            entries = list_folder(path)
        except OSError as error:
            text = f"cannot be read: {error.strerror}; check who may read it"
            skipped.append(Skipped(path=path, reason="folder", text=text))
            continue
        for entry in entries:
            if entry.path in without:
                continue
            kind = classify(entry)
            if kind == "image":
                images.append(entry.path)
            elif kind == "folder":
                (links if entry.is_symlink() else waiting).append(entry.path)
            else:
                skipped.append(skip(entry.path, kind))
    images.sort(key=lambda image: [natural_key(part) for part in image[len(top) :].split(os.sep)])
    return Found(images=tuple(map(Path, images)), skipped=tuple(skipped))


def classify(entry: os.DirEntry[str]) -> Literal["image", "folder"] | Reason:
    """Return what an entry of a folder is: an image by its name, a folder to read, or why it is skipped."""
    kind = kind_of(entry.name)
    if kind in ("image", "hidden"):
        return kind
    if is_folder(entry):
        return "folder"
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "other" if kind == "other" and is_known_type(entry.name) else "dangling"
    return "ending" if kind == "other" and is_image(entry) else kind


def is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether a file is an image by its content, whatever its name says."""
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:
            head = file.read(PREFIX)
        if not (is_heif(head) or any(accepts(name, head) for name in FORMATS)):
            return False
        with opened(entry.path):
            return True
    except (OSError, BadImage):
        return False


def accepts(name: str, head: bytes) -> bool:
    """Return whether a file that starts with ``head`` may be of a format of Pillow's."""
    _, accept = Image.OPEN.get(name, (None, None))
    return accept is not None and accept(head) is True


def skip(path: str, reason: Reason) -> Skipped:
    """Return a skipped file with the usual words."""
    return Skipped(path=path, reason=reason, text=WHY[reason])


def add_with_parents(folder: str, folders: set[str]) -> None:
    """Add a real folder and all that hold it."""
    while folder not in folders:
        folders.add(folder)
        folder = os.path.dirname(folder)


def list_folder(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds in natural order, whatever order the file system has."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: natural_key(entry.name))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or leads to one; a link to itself leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_visible_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder that a person put there."""
    return not is_hidden(entry.name) and is_folder(entry)
