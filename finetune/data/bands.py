"""Bands of an image file: explains why a TIFF, JPEG or JPEG 2000 is not read as grey, RGB or CMYK.

Scientific and aerial images often have other numbers of bands, or bands that are not colours. A band that the file
does not declare as transparency is neither used as transparency nor silently dropped: the file is refused, with a
message that says what it holds and how to export its colours.
"""

from __future__ import annotations

import struct
from typing import IO, TYPE_CHECKING, Any

from PIL import TiffImagePlugin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES = 256, 257, 258, 259, 262, 277
PLANAR, EXTRA, FORMAT = 284, 338, 339
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}  # by photometric interpretation
NAMES = {0: "grey", 1: "grey", 2: "red, green and blue", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
ALPHA = (1, 2, 999)  # extra samples that are transparency; CorelDRAW writes 999
KINDS = {1: "unsigned integers", 2: "signed integers", 3: "real numbers", 5: "complex integers", 6: "complex numbers"}
SPECIAL = {32803: "raw data of a camera's sensor", 34892: "raw data of a camera's sensor", 4: "a mask"}
COMPRESSIONS = {
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    50002: "JPEG XL",
    52546: "JPEG XL",
    34892: "lossy JPEG of DNG",
    22610: "JPEG XR",
    34934: "JPEG XR",
}
AS_RGB = "export the three colour bands as RGB with 8 bits"
MOST = 1 << 16  # bytes at the start of a JPEG that are searched for its frame


def find_unsupported(image: Image.Image) -> str:
    """Return why the colours that Pillow reads from an opened image are wrong; empty if they are right."""
    tags = getattr(image, "tag_v2", None)
    return "" if image.format != "TIFF" or tags is None else _explain_undeclared(tags) or _explain_misread(tags)


def explain_unreadable(file: IO[bytes]) -> str:
    """Return what is wrong with the bands of a file that Pillow does not open, and the remedy; empty if unknown."""
    file.seek(0)
    head = file.read(16)
    try:
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _explain_tiff(file)
        if head[:3] == b"\xff\xd8\xff":
            return _explain_jpeg(file)
        if head[4:8] == b"jP  " or head[:4] == b"\xff\x4f\xff\x51":
            return _explain_jpeg2000(file)
    except Exception:  # damaged: the caller says so
        return ""
    return ""


def _explain_tiff(file: IO[bytes]) -> str:
    """Explain why Pillow does not open a TIFF; empty if the file seems to be damaged."""
    tags = _read_first_page(file)
    if not all(isinstance(tags.get(tag), int) for tag in (WIDTH, LENGTH)):
        return ""
    photometric = tags.get(PHOTOMETRIC)
    if photometric in SPECIAL:
        return f"holds {SPECIAL[photometric]}; export it as RGB with 8 bits"
    compression = tags.get(COMPRESSION, 1)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        name = COMPRESSIONS.get(compression, f"method {compression}")
        return f"is compressed with {name}, which Pillow does not read; save it with LZW or without compression"
    return _explain_undeclared(tags) or _explain_unknown(tags)


def _read_first_page(file: IO[bytes]) -> Mapping[int, Any]:
    file.seek(0)
    head = file.read(8)
    if head[2] == 43:  # BigTIFF
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _read_bits(tags: Mapping[int, Any]) -> tuple[int, ...]:
    """Return the number of bits of each sample."""
    given, count = tags.get(BITS, (1,)), tags.get(SAMPLES, 1)
    return tuple(given) * count if len(given) == 1 else tuple(given)[:count]


def _explain_undeclared(tags: Mapping[int, Any]) -> str:
    """Explain bands that are neither colours nor declared as transparency; empty if there are none."""
    photometric, extra = int(tags.get(PHOTOMETRIC, 0)), tuple(tags.get(EXTRA, ()))
    colours, bands = COLOURS.get(photometric, 0), int(tags.get(SAMPLES, 1))
    others = bands - colours - sum(each in ALPHA for each in extra)
    if not colours or others <= 0:
        return ""
    if colours == 1 and bands > 2:
        return f"has {bands} bands, none of which is declared as red, green or blue; {AS_RGB}"
    which = "one that is" if others == 1 else f"{others} that are"
    such = {3: "near infrared", 4: "a spot colour"}.get(colours, "a mask")
    remedy = AS_RGB if colours == 3 else "export it as RGB or grey with 8 bits"
    what = NAMES.get(photometric, f"{colours} colours")
    return f"has {bands} bands: {what}, and {which} not declared as transparency, such as {such}; {remedy}"


def _explain_misread(tags: Mapping[int, Any]) -> str:
    """Explain values that Pillow would read wrongly; empty if there are none."""
    kinds = set(tags.get(FORMAT, (1,)))
    if kinds == {2} and (bits := max(_read_bits(tags))) in (8, 16):
        return f"holds signed {bits}-bit integers; save it with unsigned integers"
    if tags.get(PHOTOMETRIC) == 0 and max(_read_bits(tags)) > 8:
        return "holds grey values of more than 8 bits in which 0 is white; save it so that 0 is black"
    if max(_read_bits(tags)) == 12:
        return "holds 12-bit grey values; save it with 8 or 16 bits"
    return ""


def _explain_unknown(tags: Mapping[int, Any]) -> str:
    """Explain a combination of bits, bands and number type that Pillow does not support.

    Returns an empty string if Pillow supports it, and for a damaged file that does not state it.
    """
    if BITS not in tags or _is_known(tags):
        return ""
    bits, kinds = sorted(set(_read_bits(tags))), sorted(set(tags.get(FORMAT, (1,))))
    if tags.get(SAMPLES, 1) == len(_read_bits(tags)) and bits == [8] and kinds == [1]:
        return f"has {tags.get(SAMPLES, 1)} bands, stored in a way that Pillow does not support; {AS_RGB}"
    what = " and ".join(KINDS.get(kind, "values of an unknown kind") for kind in kinds)
    count = len(_read_bits(tags))
    remedy = {1: "save it with 8 or 16 bits", 3: "save it as RGB with 8 bits"}.get(count, AS_RGB)
    return f"holds {what} of {'/'.join(map(str, bits))} bits in {count} band{'s' * (count != 1)}; {remedy}"


def _is_known(tags: Mapping[int, Any]) -> bool:
    """Return whether Pillow has a mode for the contents of a TIFF."""
    kinds, extra = tuple(sorted(set(tags.get(FORMAT, (1,))))), tuple(tags.get(EXTRA, ()))
    found = (tags.get(PHOTOMETRIC, 0), kinds, _read_bits(tags), extra)
    return any((key[1], key[2], key[4], key[5]) == found for key in TiffImagePlugin.OPEN_INFO)


def _explain_jpeg(file: IO[bytes]) -> str:
    """Explain a frame of a JPEG that no decoder here supports; empty if there is none."""
    file.seek(2)
    while file.tell() < MOST * 64:
        mark, kind, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:
            return ""
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return _explain_frame(file.read(6))
        file.seek(length - 2, 1)
    return ""


def _explain_frame(frame: bytes) -> str:
    bits, _, _, bands = struct.unpack(">BHHB", frame)
    if bands not in (1, 3, 4):
        return f"is a JPEG with {bands} bands; save it as RGB"
    if bits != 8:
        return f"is a JPEG with {bits} bits; save it with 8 bits"
    return ""


def _explain_jpeg2000(file: IO[bytes]) -> str:
    """Explain a JPEG 2000 file with more bands than colours and transparency; empty for any other file."""
    file.seek(0)
    start = file.read(MOST)
    at = start.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(start) < at + 42:
        return ""
    (bands,) = struct.unpack(">H", start[at + 40 : at + 42])
    return f"has {bands} bands; {AS_RGB}" if bands > 4 else ""
