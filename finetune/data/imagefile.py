"""Safe opening of image files: only regular files of known formats and limited size are decoded."""

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
CONTAINERS = (b"mif1", b"msf1")  # also used by AVIF and other formats, which list their compatible brands
HEAD = 64  # bytes that hold the brands
INSTALL = "pip install 'mindspore-finetune[heif]'"
NEEDED = f"is a HEIC photo, which needs the extra `heif`; {INSTALL}, or convert it to JPEG"


class DecoderMissing(Exception):
    """A HEIC photo cannot be decoded on this machine; the text continues a sentence that names the file."""


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
"""Largest image that is decoded, by the size in its header; decoding it to half a gigabyte of RGB takes 1.7 GB."""

# Formats with a signature and a decoder that runs no external program, unlike that of EPS in Pillow.
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


logging.getLogger("PIL").addHandler(logging.NullHandler())  # the error says what Pillow logs of a damaged file
IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class BadImage(DataError):
    """An image that cannot be used; ``reason`` continues the sentence that begins with the file's ``name``.

    ``lasting`` says that the cause is the content, so that the error remains until the file changes.
    """

    def __init__(self, name: Path | str, reason: str, *, lasting: bool = True) -> None:
        self.name, self.reason, self.lasting = str(name), reason, lasting
        super().__init__(f"'{format_path(name)}' {reason}")


class Refused(Exception):
    """A valid image that this project does not support; the text is the reason."""


def format_path(path: Path | str) -> str:
    """Format a file's name for a message: line ends, control and undecodable characters are escaped."""
    return escape_line(str(path))


@contextmanager
def open_image(source: Path | str | Encoded) -> Iterator[Image.Image]:
    """Yield the image in a file, not yet decoded; any error inside the block becomes a ``BadImage``."""
    path = Path(source.name if isinstance(source, Encoded) else source)
    with io.BytesIO(source.data) if isinstance(source, Encoded) else _open_regular(path) as file:
        _drop_warnings()
        # Another library in the process may have set this, which turns truncated files into half-grey images.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            # A file object, not a name: Pillow maps named files into memory, which kills the process if a file shrinks.
            head = file.read(HEAD)
            _check_pixels(count_webp_pixels(head))
            with open_heif(file) if is_heif(head) else Image.open(file, formats=FORMATS) as image:
                _check_pixels(image.width * image.height)
                if odd := bands.find_unsupported(image):
                    raise Refused(odd)
                yield image
        except MemoryError as error:
            raise BadImage(path, "needs more memory than is available", lasting=False) from error
        except BadImage:
            raise
        except DecoderMissing as error:
            raise BadImage(path, str(error), lasting=False) from error
        except Exception as error:  # decoders raise almost anything on damaged files
            if isinstance(error, OSError) and error.errno in DISK:
                raise BadImage(path, _explain_unreachable(path, error), lasting=False) from error
            raise BadImage(path, _explain(error, file)) from error


DISK = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.ENODEV)  # errors of a disk, not of a decoder


def _check_pixels(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError


def count_webp_pixels(head: bytes) -> int:
    """Return the number of pixels of a WebP file from its first 30 bytes (RFC 9649), 0 for any other file.

    The decoder allocates the full canvas when it opens the file, before its size can be checked.
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
    """Open a regular file; its kind is checked first, since opening a named pipe would block forever."""
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
    """Return the kind of a directory entry; empty for a regular file."""
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
    """Explain why Pillow does not decode a file."""
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
    """Describe a file that begins with ``head`` and is not an image."""
    if not head:
        return "is empty"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "is not an image: it is an HTML page"
    if b"<svg" in text:
        return "is an SVG drawing, which has no pixels; convert it to PNG"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "is an AVIF photo, which needs Pillow 11.3 or later; update Pillow, or convert the photo to JPEG"
    for start, what in FOREIGN.items():
        if head.startswith(start):
            return f"is not an image: it is {what}"
    for start, what in SIGNATURES.items():
        if head.startswith(start):
            return f"is truncated or damaged: it starts as a {what} file but does not continue as one"
    return _explain_other(head)


def _explain_other(head: bytes) -> str:
    words = head[:40].decode("utf-8", "ignore").split("\n")[0].strip()
    if words and words.isprintable():
        return f"is not an image: it starts with the text '{words[:30]}'"
    return f"is not an image in a supported format ({', '.join(FORMATS)})"


def _drop_warnings() -> None:
    """Ignore Pillow's warnings from now on; problems that matter are detected separately.

    ``warnings.catch_warnings`` replaces the filters of the entire process and is not thread-safe. Adding a filter for
    every image would reset the record of warnings that are shown once, so that they appear again and again.
    """
    if IGNORE_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=IGNORE_PILLOW[3].pattern)
