"""TIFF, JPEG and JPEG 2000 files with other bands than grey, RGB or CMYK: what they are and what to do is reported."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.data.images import decode
from tests.data import tiffs
from tests.photos import photo, refused, saved

if TYPE_CHECKING:
    from pathlib import Path

RGB = photo(12, 9)
EXPORT = "export the three colour bands as RGB with 8 bits"


def bands(count: int, kind: str = "u1") -> np.ndarray[Any, Any]:
    """Return small values (12, 9, count)."""
    values = np.random.default_rng(count).random((12, 9, count))
    return values.astype(kind) if kind[0] == "f" else (values * 100).astype(kind)


@pytest.mark.parametrize(
    "how",
    [{}, {"planar": True}, {"big_endian": True}, {"big": True}, {"tile": 16}, {"tile": 16, "planar": True}],
    ids=str,
)
def test_rgb_is_read_however_it_is_stored(tmp_path: Path, how: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode(tiffs.write(tmp_path / "a.tif", RGB, **how)), RGB)


@pytest.mark.parametrize("extra", [1, 2])
@pytest.mark.parametrize("count", [2, 4])
def test_declared_transparency_is_obeyed(tmp_path: Path, extra: int, count: int) -> None:
    values = np.full((12, 9, count), 100, np.uint8)
    values[..., -1] = 255
    values[0, 0] = 0
    path = tiffs.write(tmp_path / "a.tif", values, 1 if count == 2 else 2, (extra,))
    pixels = decode(path, background=(1, 2, 3))
    assert pixels[0, 0].tolist() == [1, 2, 3]
    assert pixels[1, 1].tolist() == [100, 100, 100]


def test_16_bits_of_rgb_are_scaled(tmp_path: Path) -> None:
    pixels = decode(tiffs.write(tmp_path / "a.tif", RGB.astype(np.uint16) * 257))
    np.testing.assert_array_equal(pixels, RGB)


NEAR_INFRARED = f"red, green and blue, and one that is not declared as transparency, such as near infrared; {EXPORT}"
NO_COLOURS = f"bands, none of which is declared as red, green or blue; {EXPORT}"
ODD: dict[str, tuple[np.ndarray[Any, Any], dict[str, Any], str]] = {
    "a fourth band": (bands(4), {"extra": (0,)}, f"has 4 bands: {NEAR_INFRARED}"),
    "a fourth band, undeclared": (bands(4), {}, f"has 4 bands: {NEAR_INFRARED}"),
    "a fourth band in its own plane": (bands(4), {"extra": (0,), "planar": True}, f"has 4 bands: {NEAR_INFRARED}"),
    "a fourth band of 16 bits": (bands(4, "u2"), {"extra": (0,)}, f"has 4 bands: {NEAR_INFRARED}"),
    "one behind the transparency": (bands(5), {"extra": (2, 0)}, f"has 5 bands: {NEAR_INFRARED}"),
    "five bands": (bands(5), {"photometric": 1, "extra": (0,) * 4}, f"has 5 {NO_COLOURS}"),
    "five bands in a BigTIFF": (bands(5), {"photometric": 1, "extra": (0,) * 4, "big": True}, f"has 5 {NO_COLOURS}"),
    "thirteen of 16 bits": (bands(13, "u2"), {"photometric": 1, "planar": True}, f"has 13 {NO_COLOURS}"),
    "three that are no colours": (bands(3), {"photometric": 1, "extra": (0, 0)}, f"has 3 {NO_COLOURS}"),
    "grey and a mask": (
        bands(2),
        {"photometric": 1, "extra": (0,)},
        "has 2 bands: grey, and one that is not declared as transparency, such as a mask; "
        "export it as RGB or grey with 8 bits",
    ),
    "inks and a spot colour": (
        bands(5),
        {"photometric": 5, "extra": (0,)},
        "has 5 bands: CMYK, and one that is not declared as transparency, such as a spot colour; "
        "export it as RGB or grey with 8 bits",
    ),
    "floats": (bands(3, "f4"), {}, "holds real numbers of 32 bits in 3 bands; save it as RGB with 8 bits"),
    "doubles": (
        bands(1, "f8"),
        {"photometric": 1},
        "holds real numbers of 64 bits in 1 band; save it with 8 or 16 bits",
    ),
    "signed bytes": (
        bands(1, "i1"),
        {"photometric": 1},
        "holds signed 8-bit integers; save it with unsigned integers",
    ),
    "signed words": (
        bands(1, "i2"),
        {"photometric": 1},
        "holds signed 16-bit integers; save it with unsigned integers",
    ),
    "signed colours": (
        bands(3, "i2"),
        {},
        "holds signed integers of 16 bits in 3 bands; save it as RGB with 8 bits",
    ),
    "0 is white": (
        bands(1, "u2"),
        {"photometric": 0},
        "holds grey values of more than 8 bits in which 0 is white; save it so that 0 is black",
    ),
    "12 bits": (bands(1), {"photometric": 1, "bits": 12}, "holds 12-bit grey values; save it with 8 or 16 bits"),
    "a sensor": (
        bands(1, "u2"),
        {"photometric": 32803},
        "holds raw data of a camera's sensor; export it as RGB with 8 bits",
    ),
    "LERC": (
        RGB,
        {"more": {259: 34887}},
        "is compressed with LERC, which Pillow does not read; save it with LZW or without compression",
    ),
    "an unknown compression": (
        RGB,
        {"more": {259: 65000}},
        "is compressed with method 65000, which Pillow does not read; save it with LZW or without compression",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_about_a_tiff_is_reported(tmp_path: Path, what: str) -> None:
    values, how, reason = ODD[what]
    assert refused(tiffs.write(tmp_path / "a.tif", values, **how)) == reason


@pytest.mark.parametrize("length", [9, 60, 150, 300])
@pytest.mark.parametrize("photometric", [1, 2])
def test_a_cut_tiff_is_called_damaged_and_nothing_else(tmp_path: Path, length: int, photometric: int) -> None:
    path = tiffs.write(tmp_path / "a.tif", RGB if photometric == 2 else RGB[..., :1], photometric)
    path.write_bytes(path.read_bytes()[:length])
    assert "bands" not in refused(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_compressed_rgb_is_read(tmp_path: Path, compression: str) -> None:
    pixels = decode(saved(tmp_path, Image.fromarray(RGB), "a.tif", compression=compression)).astype(int)
    assert np.abs(pixels - RGB).mean() < (8 if compression == "jpeg" else 1e-9)


def jpeg(path: Path, *, bits: int = 8, count: int = 3) -> Path:
    """Write a JPEG whose frame says this, after a comment."""
    frame = struct.pack(">BHHB", bits, 8, 8, count) + bytes([1, 0x11, 0]) * count
    comment = b"\xff\xfe\x00\x06text"
    path.write_bytes(b"\xff\xd8" + comment + b"\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9")
    return path


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"count": 2}, "is a JPEG with 2 bands; save it as RGB"),
        ({"count": 5}, "is a JPEG with 5 bands; save it as RGB"),
        ({"bits": 12}, "is a JPEG with 12 bits; save it with 8 bits"),
    ],
    ids=str,
)
def test_odd_jpegs_are_told_apart_from_damaged_ones(tmp_path: Path, said: dict[str, int], reason: str) -> None:
    assert refused(jpeg(tmp_path / "a.jpg", **said)) == reason


def test_a_jpeg_2000_of_many_bands(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RGB), "a.j2k")
    content = path.read_bytes()
    assert decode(path).shape == RGB.shape
    path.write_bytes(content[:40] + struct.pack(">H", 7) + content[42:])
    assert refused(path) == f"has 7 bands; {EXPORT}"


def test_grey_with_transparency_in_a_png_stays_grey(tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (90, 255))
    image.putpixel((1, 0), (0, 0))
    assert decode(saved(tmp_path, image, "a.png"), background=(1, 2, 3)).tolist() == [[[90, 90, 90], [1, 2, 3]]]
