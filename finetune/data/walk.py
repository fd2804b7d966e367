"""Walk of a folder: lists the images below it in natural order, and what was skipped and why."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from mimetypes import MimeTypes
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from finetune.data import imagefile
from finetune.data.imagefile import FORMATS, NEEDED, BadImage, is_heif, open_image

if TYPE_CHECKING:
    from collections.abc import Collection


Kind = Literal["image", "hidden", "other", "format", "heif"]

# Pillow's name for a JPEG with several frames, which the decoder's list contains as JPEG.
SAME_DECODER = ("MPO",)
PLUGINS = ("Avif", "Bmp", "Gif", "Ico", "Jpeg", "Jpeg2K", "Mpo", "Png", "Ppm", "Tiff", "WebP")
CAMERA = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
DRAWN = (".avif", ".bpg", ".dds", ".exr", ".fits", ".hdr", ".jxl", ".jxr", ".psd", ".svg", ".tga", ".wdp", ".xcf")
JUNK = (
    *("__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    *("$recycle.bin", "recycler", "system volume information", "lost+found", "found.000"),
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "@tmp"),
    *("network trash folder", "temporary items", "thumbnails.db", "picasa.ini", "zbthumbnail.info"),
)
KNOWN_TYPES = MimeTypes(filenames=())


@cache
def image_endings() -> frozenset[str]:
    """Return the file endings that the decoder supports, in lower case; HEIC only if pillow-heif is installed."""
    for plugin in PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    formats = {*FORMATS, *SAME_DECODER}
    return frozenset(ending for ending, form in Image.EXTENSION.items() if form in formats)


def classify_name(name: str) -> Kind:
    """Return the kind of a file, by its name.

    ``format`` is an image that cannot be decoded, ``heif`` one that needs pillow-heif, ``hidden`` a system file of an
    operating system, a camera or a network drive, and ``other`` anything else.
    """
    if is_hidden(name):
        return "hidden"
    ending = os.path.splitext(name)[1].lower()
    if ending in imagefile.ENDINGS:
        return "image" if imagefile.is_available() else "heif"
    if ending in image_endings():
        return "image"
    return "format" if ending in CAMERA or ending in DRAWN else "other"


def is_hidden(name: str) -> bool:
    """Return whether a file or folder belongs to the system or a program, and is not data of the user."""
    return name.startswith(".") or name.lower() in JUNK


def is_known_type(name: str) -> bool:
    """Return whether an ending belongs to a known kind of file that is not an image, such as ``.txt`` or ``.mp4``."""
    kind, packed = KNOWN_TYPES.guess_type(name)
    return packed is not None or (kind is not None and not kind.startswith("image/"))


def is_text(name: str) -> bool:
    """Return whether a name is valid Unicode, without undecodable bytes."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts 2 before 10."""
    keys: list[tuple[int, str]] = []
    for i, piece in enumerate(re.split(r"(\d+)", name)):
        number = piece.lstrip("0")
        keys.append((len(number), number) if i % 2 else (0, piece))
    return keys, name


Reason = Literal["hidden", "other", "link", "format", "heif", "ending", "dangling", "folder", "damaged"]

WHY: dict[Reason, str] = {
    "hidden": "is hidden or belongs to the system",
    "other": "is not an image",
    "link": "is a link to a folder that is already read, or that contains this one",
    "format": "is an image in an unsupported format; convert it to JPEG or PNG",
    "heif": NEEDED,
    "ending": "is an image, but its name does not have the ending of one; rename it",
    "dangling": "is a broken link; restore its target, or remove it",
    "folder": "cannot be read; check its permissions",
    "damaged": "cannot be decoded",
}
HARMLESS: tuple[Reason, ...] = ("hidden", "other", "link")
PREFIX = 64  # bytes that are enough to recognise an image


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file or folder that was skipped; ``text`` continues a sentence that begins with ``path``."""

    path: str
    reason: Reason
    text: str

    @property
    def may_be_image(self) -> bool:
        """Whether an image may be missing from the result because of this."""
        return self.reason not in HARMLESS


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """The images below a folder in natural order, and everything that was skipped."""

    images: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def find_images(folder: str | Path, *, without: Collection[str] = ()) -> FoundImages:
    """Return the images below a folder at any depth, by their names; none of them is opened.

    Links are followed, except back to a folder above, and each real folder is read once. ``without`` are folders to
    skip. A file with the ending of an image counts as an image, even if it is a broken link: decoding reports that.
    """
    top = str(folder)
    images: list[str] = []
    skipped: list[Skipped] = []
    above: set[str] = set()  # real folders that were read, and all that hold them
    waiting, links = [top], list[str]()
    while waiting or links:
        if not waiting:  # links come last, so that the result does not depend on their names
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
            text = f"cannot be read: {error.strerror}; check its permissions"
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
    return FoundImages(images=tuple(map(Path, images)), skipped=tuple(skipped))


def classify(entry: os.DirEntry[str]) -> Literal["image", "folder"] | Reason:
    """Classify an entry of a folder: an image by its name, a folder to read, or the reason to skip it."""
    kind = classify_name(entry.name)
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
        with open_image(entry.path):
            return True
    except (OSError, BadImage):
        return False


def accepts(name: str, head: bytes) -> bool:
    """Return whether a file that starts with ``head`` may have this Pillow format."""
    _, accept = Image.OPEN.get(name, (None, None))
    return accept is not None and accept(head) is True


def skip(path: str, reason: Reason) -> Skipped:
    return Skipped(path=path, reason=reason, text=WHY[reason])


def add_with_parents(folder: str, folders: set[str]) -> None:
    """Add a real folder and all folders above it."""
    while folder not in folders:
        folders.add(folder)
        folder = os.path.dirname(folder)


def list_folder(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder in natural order."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: natural_key(entry.name))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_visible_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder of the user, not of the system or a program."""
    return not is_hidden(entry.name) and is_folder(entry)
