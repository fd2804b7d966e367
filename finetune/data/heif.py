"""HEIC photos: recognised by their first bytes, decoded by pillow-heif where it is installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

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


def open_image(file: IO[bytes]) -> Image:
    """Return the image in a HEIC file, not yet decoded; raises ``DecoderMissing`` without pillow-heif."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise DecoderMissing(NEEDED) from error
    file.seek(0)
    image: Image = HeifImageFile(file)
    return image
