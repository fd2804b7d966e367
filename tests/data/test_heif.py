"""HEIC photos: decoded upright by pillow-heif, told apart from other files, explained where it is missing."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from finetune import DataError, Encoded, ImageSpec, decode
from finetune.data import imagefile
from finetune.data.imagefile import BadImage
from finetune.data.images import read_image
from tests.photos import refused

if TYPE_CHECKING:
    from pathlib import Path

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif, the extra `heif`, is not installed")

HEADER = b"\0\0\0\x18ftypheic\0\0\0\0"


def halves() -> np.ndarray:
    """Return pixels that are red above and blue below."""
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :, 0] = pixels[20:, :, 2] = 255
    return pixels


def written(path: Path, image: Image.Image, **options: object) -> Path:
    """Write a real HEIC file."""
    pillow_heif.from_pillow(image).save(path, quality=95, **options)
    return path


def close(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 12)


def test_it_is_decoded(tmp_path: Path) -> None:
    pixels = decode(written(tmp_path / "a.heic", Image.fromarray(halves())))
    assert pixels.shape == (40, 64, 3)
    assert close(pixels[4, 4], (255, 0, 0))
    assert close(pixels[-4, -4], (0, 0, 255))


def test_the_ending_does_not_matter_and_bytes_are_decoded_too(tmp_path: Path) -> None:
    path = written(tmp_path / "a.heic", Image.fromarray(halves())).rename(tmp_path / "a.jpg")
    assert close(decode(path)[4, 4], (255, 0, 0))
    assert np.array_equal(decode(Encoded(name="a.heic", data=path.read_bytes())), decode(path))


def test_it_is_turned_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decode(written(tmp_path / "a.heic", Image.fromarray(halves()), exif=exif.tobytes()))
    assert pixels.shape == (64, 40, 3)
    assert close(pixels[4, 4], (0, 0, 255))
    assert close(pixels[4, -4], (255, 0, 0))


def test_transparent_parts_and_training_reads(tmp_path: Path) -> None:
    image = Image.fromarray(halves()).convert("RGBA")
    image.putalpha(0)
    path = written(tmp_path / "a.heic", image)
    assert close(decode(path)[4, 4], (255, 255, 255))
    assert np.array_equal(read_image(path, ImageSpec(size=8, resize=8)), decode(path))


def test_pillow_itself_is_left_as_it_was(tmp_path: Path) -> None:
    decode(written(tmp_path / "a.heic", Image.fromarray(halves())))
    assert "HEIF" not in Image.OPEN
    assert ".heic" not in Image.registered_extensions()


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.heic", Image.fromarray(halves()))
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(path) == "is truncated"
    path.write_bytes(HEADER + bytes(40))
    assert refused(path).startswith("is damaged: ")


def test_without_its_decoder_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(HEADER + bytes(40))
    with pytest.raises(DataError, match=r"is a HEIC photo, which needs the extra `heif`; pip install") as caught:
        decode(path)
    assert isinstance(caught.value, BadImage)
    assert not caught.value.lasting  # a scan must look again once it is installed


def test_avif_is_left_to_pillow(tmp_path: Path) -> None:
    file = io.BytesIO()
    try:
        Image.fromarray(halves()).save(file, "AVIF", quality=95)
    except (KeyError, OSError):
        pytest.skip("this Pillow does not write AVIF")
    assert not imagefile.is_heif(file.getvalue()[: imagefile.HEAD])
    path = tmp_path / "a.avif"
    path.write_bytes(file.getvalue())
    assert close(decode(path)[4, 4], (255, 0, 0))


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        *((b"\0\0\0\x18ftyp" + brand + bytes(12), True) for brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc")),
        *((b"\0\0\0\x1cftyp" + brand + bytes(4) + b"heicmiaf", True) for brand in (b"mif1", b"abcd")),
        *((b"\0\0\0\x1cftyp" + brand + bytes(4) + b"mif1avif", False) for brand in (b"avif", b"mif1")),
        *((head, False) for head in (b"", b"\xff\xd8\xff", b"\0\0\0\x18ftypmp42" + bytes(12), b"\0\0\0\x18ftyp")),
    ],
)
def test_what_the_first_bytes_say(head: bytes, answer: bool) -> None:
    assert imagefile.is_heif(head) == answer
