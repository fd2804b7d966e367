"""Decoding: whatever a file holds becomes upright 8-bit RGB, or an error that names it and says why."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from finetune.components import ImageSpec
from finetune.data.imagefile import FORMATS
from finetune.data.images import decode, fit, normalise, read_image
from finetune.errors import DataError
from tests.photos import photo, refused, saved

if TYPE_CHECKING:
    from pathlib import Path

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


# Colour modes


@pytest.mark.parametrize(("mode", "name"), [("I;16", "a.png"), ("I;16", "a.tif"), ("I;16B", "b.tif")])
def test_16_bit_grey_keeps_its_contrast(tmp_path: Path, mode: str, name: str) -> None:
    values = (RAMP.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2")
    path = saved(tmp_path, Image.fromarray(values), name)
    with Image.open(path) as image:
        assert image.mode == mode
    np.testing.assert_array_equal(decode(path), np.repeat(RAMP[..., None], 3, axis=2))


def test_32_bit_mode_that_holds_16_bits_keeps_its_contrast(tmp_path: Path) -> None:
    values = RAMP.astype(np.int32) * 257
    np.testing.assert_array_equal(decode(saved(tmp_path, Image.fromarray(values), "a.tif"))[..., 0], RAMP)
    path = tmp_path / "ten-bit.pgm"
    path.write_bytes(b"P5 2 1 1023 " + np.array([0, 1023], ">u2").tobytes())
    assert decode(path)[0, :, 0].tolist() == [0, 255]


def test_integers_and_floats_of_unknown_range_are_refused(tmp_path: Path) -> None:
    wide = saved(tmp_path, Image.fromarray(RAMP.astype(np.int32) * 70_000), "wide.tif")
    assert refused(wide) == "holds integers from 0 to 17850000; save it with 8 or 16 bits"
    floats = saved(tmp_path, Image.fromarray(RAMP.astype(np.float32)), "floats.tif")
    assert refused(floats) == "holds real numbers from 0 to 255, not 0 to 1; save it with 8 or 16 bits"
    nan = saved(tmp_path, Image.fromarray(np.full((4, 4), np.nan, np.float32)), "nan.tif")
    assert "NaN" in refused(nan)


def test_floats_from_0_to_1_are_scaled(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP.astype(np.float32) / 255), "unit.tif")
    np.testing.assert_array_equal(decode(path)[..., 1], RAMP)


def test_16_bit_rgb_comes_out_as_its_high_bytes(tmp_path: Path) -> None:
    values = np.zeros((2, 2, 3), ">u2")
    values[0] = 65535
    values[1, 0] = 0x8000
    path = tmp_path / "deep.png"
    path.write_bytes(png(2, 2, 16, 2, b"".join(b"\0" + row.tobytes() for row in values)))
    pixels = decode(path)
    assert pixels[0, 0].tolist() == [255] * 3
    assert pixels[1].tolist() == [[128] * 3, [0] * 3]


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Return a PNG file made by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_shows_the_background(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.new(mode, (8, 8), (0,) * len(mode))
    image.paste((100,) * (len(mode) - 1) + (255,), (0, 0, 4, 8))
    options = {"lossless": True} if suffix == "webp" else {}
    pixels = decode(saved(tmp_path, image, f"a.{suffix}", **options), background=(255, 0, 9))
    assert pixels[0, 7].tolist() == [255, 0, 9]
    assert pixels[0, 0].tolist() == [100, 100, 100]


def test_half_transparent_is_half_way(tmp_path: Path) -> None:
    pixels = decode(saved(tmp_path, Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "a.png"))
    assert np.all(abs(pixels.astype(int) - 127) <= 1)


def test_transparent_palette_entries_and_colours_show_the_background(tmp_path: Path) -> None:
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.putpixel((1, 0), 1)
    for options in ({"transparency": 1}, {"transparency": b"\xff\x00"}):
        pixels = decode(saved(tmp_path, indexed, "p.png", **options), background=(1, 2, 3))
        assert pixels[0].tolist() == [[10, 20, 30], [1, 2, 3]]
    colour = Image.new("RGB", (2, 1), (9, 9, 9))
    colour.putpixel((1, 0), (7, 8, 9))
    pixels = decode(saved(tmp_path, colour, "rgb.png", transparency=(7, 8, 9)), background=(1, 2, 3))
    assert pixels[0].tolist() == [[9, 9, 9], [1, 2, 3]]


def test_transparent_value_of_16_bit_grey_shows_the_background(tmp_path: Path) -> None:
    rows = b"\0" + np.array([257, 514], ">u2").tobytes()
    path = tmp_path / "grey16.png"
    path.write_bytes(png(2, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 514))))
    assert decode(path, background=(1, 2, 3))[0].tolist() == [[1, 1, 1], [1, 2, 3]]


def test_cmyk_is_not_inverted(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for name in ("adobe.jpg", "plain.tif"):
        pixels = decode(saved(tmp_path, cyan, name)).astype(int)
        assert np.all(abs(pixels - [0, 255, 255]) <= 3), name


def test_one_bit_palette_and_grey_become_rgb(tmp_path: Path) -> None:
    dots = Image.fromarray(RAMP > 127)
    assert dots.mode == "1"
    expected = np.where(RAMP > 127, 255, 0)
    for name in ("one.png", "one.tif", "one.bmp"):
        np.testing.assert_array_equal(decode(saved(tmp_path, dots, name))[..., 2], expected)
    np.testing.assert_array_equal(decode(saved(tmp_path, Image.fromarray(RAMP), "grey.png"))[..., 2], RAMP)
    palette = Image.fromarray(photo()).quantize(8)
    np.testing.assert_array_equal(decode(saved(tmp_path, palette, "p.png")), np.array(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], f"a.{suffix}", save_all=True, append_images=frames[1:])
    pixels = decode(path)
    assert abs(pixels.astype(int) - [255, 0, 0]).max() <= 3


# Orientation


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_exactly_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = photo(32, 48)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(turned)), f"a.{suffix}", exif=exif, **options)
    pixels = decode(path)
    assert pixels.shape == upright.shape
    assert abs(pixels.astype(int) - upright).mean() < 3


def test_damaged_exif_and_icc_profiles_do_no_harm(tmp_path: Path) -> None:
    image, exif = Image.fromarray(photo()), b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20)
    for name in ("a.jpg", "a.png", "a.webp"):
        path = saved(tmp_path, image, name, exif=exif, icc_profile=b"not a profile")
        assert decode(path).shape == (40, 60, 3)


# Arrays


def test_arrays_are_checked() -> None:
    pixels = photo()
    assert decode(pixels) is pixels
    for wrong in (pixels[..., 0], pixels.astype(np.float32), pixels[..., :2], pixels[:0], pixels[None]):
        with pytest.raises(DataError, match=r"an array of shape .* and type \w+ is not an image; pass"):
            decode(wrong)  # type: ignore[arg-type]


def test_the_result_can_be_written_to(tmp_path: Path) -> None:
    for name, image in (("a.jpg", Image.fromarray(photo())), ("a.png", Image.fromarray(RAMP))):
        pixels = decode(saved(tmp_path, image, name))
        pixels[0, 0] = 7
        assert pixels.flags.c_contiguous


# Large JPEGs


def test_large_jpegs_are_decoded_at_a_fraction_but_never_too_small(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(photo(1200, 1600)), "a.jpg")
    spec = ImageSpec(size=64, resize=72)
    assert decode(path).shape == (1200, 1600, 3)
    assert read_image(path, spec).shape == (150, 200, 3)
    assert min(read_image(path, ImageSpec(size=224, resize=256)).shape[:2]) >= 512
    close = abs(fit(read_image(path, spec), spec).astype(int) - fit(decode(path), spec))
    assert close.mean() < 1.0


# Fit and normalise


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (300, 500), (1, 1), (33, 1000), (257, 256)])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_fit_gives_the_size_asked_for(height: int, width: int, keep_aspect: bool) -> None:
    spec = ImageSpec(size=56, resize=64, keep_aspect=keep_aspect)
    fitted = fit(photo(height, width), spec)
    assert fitted.shape == (56, 56, 3)
    assert fitted.dtype == np.uint8


def test_fit_equals_scaling_everything_and_cropping() -> None:
    pixels, spec = photo(300, 500), ImageSpec(size=224, resize=256)
    whole = np.array(Image.fromarray(pixels).resize((427, 256), Image.Resampling.BILINEAR))
    assert abs(fit(pixels, spec).astype(int) - whole[16:240, 101:325]).max() <= 1
    stretched = np.array(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR))
    spec = ImageSpec(size=224, resize=256, keep_aspect=False)
    assert abs(fit(pixels, spec).astype(int) - stretched[16:240, 16:240]).max() <= 1


def test_fit_only_crops_what_has_the_right_size() -> None:
    pixels = photo(256, 341)
    np.testing.assert_array_equal(fit(pixels, ImageSpec()), pixels[16:240, 58:282])


def test_a_strip_of_30000_pixels_fits(tmp_path: Path) -> None:
    for size in ((1, 30_000), (30_000, 1)):
        path = saved(tmp_path, Image.new("RGB", size, (10, 20, 30)), "strip.png")
        assert fit(decode(path), ImageSpec())[100, 100].tolist() == [10, 20, 30]


def test_normalise() -> None:
    spec = ImageSpec(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    pixels, out = photo(32, 32), np.full((3, 32, 32), np.nan, np.float32)
    normalise(pixels, spec, out)
    expected = (pixels / 255.0 - spec.mean) / spec.std
    np.testing.assert_allclose(out, expected.transpose(2, 0, 1), atol=1e-5)


def test_real_photos(flowers: Path) -> None:
    paths = sorted((flowers / "train").glob("*/*.jpg"))[::400]
    for path in paths:
        pixels = decode(path)
        with Image.open(path) as image:
            np.testing.assert_array_equal(pixels, np.array(image))
        assert fit(pixels, ImageSpec()).shape == (224, 224, 3)


def test_decoders_of_all_formats_are_there(tmp_path: Path) -> None:
    for kind in FORMATS:
        path = tmp_path / kind
        Image.fromarray(photo(48, 48)).save(path, kind)
        assert decode(path).shape == (48, 48, 3)
