"""Files that may be anything: what is no image, damaged or too large is refused, with the reason in plain words."""

from __future__ import annotations

import io
import os
import resource
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from finetune.data.imagefile import FORMATS, MAX_PIXELS, count_webp_pixels, explain_unidentified, open_image
from finetune.data.images import decode
from finetune.errors import DataError
from tests.photos import photo, refused, saved

pytestmark = pytest.mark.once


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Return a PNG file made by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, I am text\nand more", "is not an image: it starts with the text 'hello, I am text'"),
        (b"\xef\xbb\xbf <!DOCTYPE html><html>404</html>", "is not an image: it is an HTML page"),
        (b"<?xml version='1.0'?><svg></svg>", "is an SVG drawing, which has no pixels; convert it to PNG"),
        (b"%PDF-1.7\n", "is not an image: it is a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not an image: it is a PostScript document"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is not an image: it is a Git LFS pointer; fetch the file itself with `git lfs pull`",
        ),
        (b"\xff\xd8\xff\xe0", "is truncated or damaged: it starts as a JPEG file but does not continue as one"),
        (bytes(100), f"is not an image in a supported format ({', '.join(FORMATS)})"),
    ],
)
def test_reasons_in_plain_words(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    assert refused(path) == reason


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(photo()), "a.png")
    assert decode(path.rename(tmp_path / "a.jpg")).shape == (40, 60, 3)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refused(tmp_path / "pipe.jpg") == "is a named pipe, not a file"
    (tmp_path / "folder.jpg").mkdir()
    assert refused(tmp_path / "folder.jpg") == "is a directory, not a file"
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    assert refused(tmp_path / "dangling.jpg") == "is a link to a file that does not exist"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert refused(tmp_path / "loop.jpg").startswith("cannot be read: ")
    assert refused(tmp_path / "missing.jpg") == "does not exist"
    assert refused(tmp_path / ("x" * 300)).startswith("cannot be read: ")
    assert refused(Path("/dev/null")) == "is a device, not a file"


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert refused(Path("socket.jpg")) == "is a socket, not a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(photo()), "a.png")
    path.chmod(0)
    assert refused(path) == "cannot be read: permission denied"


@pytest.mark.parametrize("name", ["new\nline.jpg", "\x1b[31mred.jpg", "rtl\u202egpj.jpg", os.fsdecode(b"caf\xe9.jpg")])
def test_names_in_messages_can_be_printed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text")
    with pytest.raises(DataError) as caught:
        decode(tmp_path / name)
    assert str(caught.value).isprintable()
    str(caught.value).encode()


def test_odd_names_are_no_hindrance(tmp_path: Path) -> None:
    for name in ("new\nline.jpg", "🌻.jpg", "x" * 251 + ".jpg", os.fsdecode(b"caf\xe9.jpg")):
        data = io.BytesIO()
        Image.fromarray(photo()).save(data, "JPEG")
        (tmp_path / name).write_bytes(data.getvalue())
        assert decode(tmp_path / name).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "ICO"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path, kind: str) -> None:
    data = io.BytesIO()
    Image.fromarray(photo(64, 64)).save(data, kind)
    whole, path = data.getvalue(), tmp_path / "x.jpg"
    path.write_bytes(whole)
    assert decode(path).shape[2] == 3
    for end in np.linspace(0, len(whole) - 40, 40).astype(int):
        path.write_bytes(whole[:end])
        assert refused(path)


def test_truncated_files_are_refused_even_if_a_library_allowed_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = saved(tmp_path, Image.fromarray(photo()), "a.jpg")
    path.write_bytes(path.read_bytes()[:-200])
    assert refused(path) == "is truncated"


def test_damage_inside_a_png_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(photo(200, 200)), "a.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    assert refused(path).startswith("is damaged: ")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
)
def test_damaged_files_raise_nothing_but_data_errors(
    tmp_path: Path, kind: str, edits: list[tuple[float, bytes]]
) -> None:
    data = io.BytesIO()
    Image.fromarray(photo(24, 24)).save(data, kind)
    content = bytearray(data.getvalue())
    for place, new in edits:
        at = int(place * (len(content) - 1))
        content[at : at + len(new)] = new
    path = tmp_path / "x"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            pixels = decode(path)
        except DataError:
            return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3


@given(st.binary(max_size=64))
def test_every_beginning_has_a_reason(head: bytes) -> None:
    assert explain_unidentified(head).isprintable()


def test_bombs_are_refused_by_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60_000, 60_000, 8, 2, b""))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(path) == "has more than 178 million pixels; scale it down"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refused(path) == "has more than 178 million pixels; scale it down"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # kB


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
def test_a_webp_bomb_is_refused_before_its_canvas_is_allocated(tmp_path: Path, options: dict[str, object]) -> None:
    path = saved(tmp_path, Image.fromarray(photo(30, 50)), "a.webp", **options)
    data = bytearray(path.read_bytes())
    assert count_webp_pixels(bytes(data[:30])) == 30 * 50
    start = {b"VP8X": 24, b"VP8L": 21, b"VP8 ": 26}[bytes(data[12:16])]
    data[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert refused(path) == "has more than 178 million pixels; scale it down"


def test_large_images_within_the_bound_give_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    assert 89_478_485 < 10_000 * 10_000 < MAX_PIXELS  # Pillow warns from the first number on
    path.write_bytes(png(10_000, 10_000, 8, 2, b""))
    with open_image(path) as image:
        assert image.size == (10_000, 10_000)
