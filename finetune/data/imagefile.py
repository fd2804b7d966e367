"""Opening an image file that may be anything: only regular files, known formats and bearable sizes get decoded."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import stat
import warnings
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from PIL import Image, ImageFile, UnidentifiedImageError

from finetune.components import Encoded
from finetune.data import bands
from finetune.errors import DataError, ResourceError
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterator


ENDINGS = (".heic", ".heics", ".heif", ".heifs", ".hif")
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
CONTAINERS = (b"mif1", b"msf1")  # of AVIF and others too; the list of compatible brands tells them apart
HEAD = 64  # bytes that hold the brands
INSTALL = "pip install 'mindspore-finetune[heif]'"
NEEDED = f"is a HEIC photo, which needs the extra `heif`; {INSTALL}, or convert it to JPEG"


class DecoderMissing(Exception):
    """A HEIC photo cannot be decoded on this machine; the text completes a sentence about the file."""


def is_heif(head: bytes) -> bool:
    """Return whether a file that starts with ``head`` is a HEIC photo (ISO/IEC 23008-12, the ``ftyp`` box)."""
    if head[4:8] != b"ftyp":
        return False
    size = max(16, min(int.from_bytes(head[:4], "big"), HEAD))
    compatible = {head[place : place + 4] for place in range(16, size, 4)}
    container = head[8:12] in CONTAINERS and b"avif" not in compatible
    return head[8:12] in BRANDS or bool(compatible.intersection(BRANDS)) or container


@cache
def is_available() -> bool:
    """Return whether HEIC photos can be decoded here, without importing the decoder."""
    return find_spec("pillow_heif") is not None


def open_heif(file: IO[bytes]) -> Image.Image:
    """Return the image in a HEIC file, not yet decoded; raises ``DecoderMissing`` without pillow-heif."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise DecoderMissing(NEEDED) from error
    file.seek(0)
    image: Image.Image = HeifImageFile(file)
    return image


MAX_PIXELS = 178_956_970
"""Largest image that is decoded, by the size in its header; it takes 1.7 GB on the way to half a gigabyte of RGB."""

# Formats with a signature and a decoder that runs no other program; Pillow knows others, such as EPS, that do.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
}

FOREIGN = {
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"8BPS": "a Photoshop file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
}


logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it notes of a damaged file, the error says
IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class BadImage(DataError):
    """An image that cannot be used; ``reason`` completes the sentence that begins with the file's ``name``.

    ``lasting`` says that the reason lies in the content, so that it holds until the file changes.
    """

    def __init__(self, name: Path | str, reason: str, *, lasting: bool = True) -> None:
        self.name, self.reason, self.lasting = str(name), reason, lasting
        super().__init__(f"'{format_path(name)}' {reason}")


class Refused(Exception):
    """An image in order that this project does not take; the text is the reason."""


def format_path(path: Path | str) -> str:
    """Return a file's name for a message: line ends, control and undecodable characters are escaped."""
    return escape_line(str(path))


@contextmanager
def open_image(source: Path | str | Encoded) -> Iterator[Image.Image]:
    """Yield the image in a file, not yet decoded; whatever fails inside the block becomes a ``BadImage``."""
    path = Path(source.name if isinstance(source, Encoded) else source)
    with io.BytesIO(source.data) if isinstance(source, Encoded) else _open_regular(path) as file:
        _drop_warnings()
        # Another library in the process may have turned truncated files into half-grey images for everyone.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            # A file object, not a name: Pillow maps named files into memory, which kills the process if they shrink.
            head = file.read(HEAD)
            _check_pixels(count_webp_pixels(head))
            with open_heif(file) if is_heif(head) else Image.open(file, formats=FORMATS) as image:
                _check_pixels(image.width * image.height)
                if odd := bands.find_unsupported(image):
                    raise Refused(odd)
                yield image
        except MemoryError as error:
            raise BadImage(path, "needs more memory than there is", lasting=False) from error
        except BadImage:
            raise
        except DecoderMissing as error:
            raise BadImage(path, str(error), lasting=False) from error
        except Exception as error:  # decoders raise almost anything on damaged files
            if isinstance(error, OSError) and error.errno in DISK:
                raise BadImage(path, _explain_unreachable(path, error), lasting=False) from error
            raise BadImage(path, _explain(error, file)) from error


DISK = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.ENODEV)  # what a disk says, not a decoder


def _check_pixels(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError


def count_webp_pixels(head: bytes) -> int:
    """Return the pixels of a WebP file by its first 30 bytes (RFC 9649), or 0 if it is none.

    Its decoder allocates the whole canvas when the file is opened, before anyone can ask for its size.
    """
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0
    if head[12:16] == b"VP8X":
        return (int.from_bytes(head[24:27], "little") + 1) * (int.from_bytes(head[27:30], "little") + 1)
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    return (int.from_bytes(head[26:28], "little") & 0x3FFF) * (int.from_bytes(head[28:30], "little") & 0x3FFF)


def _open_regular(path: Path) -> IO[bytes]:
    """Open a file that is one; a named pipe would block for ever, so its kind is asked for first."""
    try:
        kind = _describe_kind(os.stat(path).st_mode)
        if not kind:
            return open(path, "rb")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise ResourceError("too many open files; raise the limit with `ulimit -n`") from error
        raise BadImage(path, _explain_unreachable(path, error), lasting=False) from error
    raise BadImage(path, f"is {kind}, not a file", lasting=False)


def _describe_kind(mode: int) -> str:
    """Return what a directory entry is, or nothing for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    names = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def _explain_unreachable(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _explain(error: Exception, file: IO[bytes]) -> str:
    """Return what is wrong with a file that Pillow does not decode, in plain words."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS // 10**6} million pixels; scale it down"
    if isinstance(error, UnidentifiedImageError | KeyError) and (odd := bands.explain_unreadable(file)):
        return odd
    if isinstance(error, UnidentifiedImageError):
        file.seek(0)
        return explain_unidentified(file.read(512))
    text = " ".join(str(error).split())
    if isinstance(error, EOFError) or "truncated" in text.lower() or "unexpected end of file" in text.lower():
        return "is truncated"
    return f"is damaged: {text or type(error).__name__}"


def explain_unidentified(head: bytes) -> str:
    """Return what a file is that opens with ``head`` and is no image."""
    if not head:
        return "is empty"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "is not an image: it is an HTML page"
    if b"<svg" in text:
        return "is an SVG drawing, not an image of pixels; convert it to PNG"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "is an AVIF photo, which this Pillow cannot read; update to Pillow 11.3 or later, or convert it to JPEG"
    for start, what in FOREIGN.items():
        if head.startswith(start):
            return f"is not an image: it is {what}"
    for start, what in SIGNATURES.items():
        if head.startswith(start):
            return f"is truncated or damaged: it starts like a {what} file and does not go on like one"
    return _explain_other(head)


def _explain_other(head: bytes) -> str:
    words = head[:40].decode("utf-8", "ignore").split("\n")[0].strip()
    if words and words.isprintable():
        return f"is not an image: it starts with the text '{words[:30]}'"
    return f"is not an image, or not in a known format ({', '.join(FORMATS)})"


def _drop_warnings() -> None:
    """Drop Pillow's warnings from now on: what matters in them is found out anyway.

    ``warnings.catch_warnings`` swaps the filters of the whole process and is not made for threads; adding a filter
    anew for each image would make everyone else's warnings of the sort shown once appear again and again.
    """
    if IGNORE_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=IGNORE_PILLOW[3].pattern)
