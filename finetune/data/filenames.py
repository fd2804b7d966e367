"""Names of files and folders: which are images, which are junk, and how they sort."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib import import_module
from mimetypes import MimeTypes
from typing import Literal

from PIL import Image

from finetune.data import heif
from finetune.data.imagefile import FORMATS

Kind = Literal["image", "hidden", "other", "format", "heif"]

# Formats whose endings Pillow calls by another name than the decoder's list: a JPEG with several frames.
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
    """Return the endings of files that the decoder takes, in lower case; HEIC only where pillow-heif is installed."""
    for plugin in PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    formats = {*FORMATS, *SAME_DECODER}
    return frozenset(ending for ending, form in Image.EXTENSION.items() if form in formats)


def kind_of(name: str) -> Kind:
    """Return what a file is, by its name.

    ``format`` is an image that cannot be decoded, ``heif`` one that could be with pillow-heif; ``hidden`` is junk of
    an operating system, a camera or a network drive, and ``other`` everything else.
    """
    if is_hidden(name):
        return "hidden"
    ending = os.path.splitext(name)[1].lower()
    if ending in heif.ENDINGS:
        return "image" if heif.is_available() else "heif"
    if ending in image_endings():
        return "image"
    return "format" if ending in CAMERA or ending in DRAWN else "other"


def is_hidden(name: str) -> bool:
    """Return whether a file or folder was put there by a program, not by a person as data."""
    return name.startswith(".") or name.lower() in JUNK


def is_known_type(name: str) -> bool:
    """Return whether an ending belongs to a known kind of file that is not an image, such as ``.txt`` or ``.mp4``."""
    kind, packed = KNOWN_TYPES.guess_type(name)
    return packed is not None or (kind is not None and not kind.startswith("image/"))


def is_text(name: str) -> bool:
    """Return whether a name consists of characters, not of bytes that are not valid UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts 2 before 10."""
    keys: list[tuple[int, str]] = []
    for i, piece in enumerate(re.split(r"(\d+)", name)):
        number = piece.lstrip("0")
        keys.append((len(number), number) if i % 2 else (0, piece))
    return keys, name
