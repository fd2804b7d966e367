"""Walk of a folder: which files are images, what is junk, what was skipped and why."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune import find_images
from finetune.data import imagefile, walk
from finetune.data.images import decode
from finetune.data.walk import classify_name, image_endings, is_hidden
from tests.photos import photo, saved

PHOTO = Image.fromarray(photo(16, 24))
FORMATS = {
    **{ending: "L" for ending in ("pgm", "pnm", "jp2", "j2k")},
    **{ending: "RGB" for ending in ("jpg", "jpe", "jfif", "png", "apng", "bmp", "gif", "webp", "tif", "tiff", "ppm")},
    **{"pbm": "1", "ico": "RGBA", "jpx": "RGB"},
}
JUNK = (
    *("@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", ".AppleDouble", "#recycle", "lost+found", ".Trash-1000"),
    *("System Volume Information", "@Recycle", ".@__thumb", "@__thumb", "Network Trash Folder", ".ipynb_checkpoints"),
)


def skipped(folder: Path) -> list[tuple[str, str]]:
    return [(os.path.relpath(each.path, folder), each.reason) for each in find_images(folder).skipped]


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder).images]


def test_every_ending_that_the_decoder_takes_is_found_and_decoded(tmp_path: Path) -> None:
    for ending, mode in FORMATS.items():
        saved(tmp_path, PHOTO.convert(mode), f"x.{ending}")
    PHOTO.save(tmp_path / "x.mpo", "MPO", save_all=True, append_images=[PHOTO])
    (tmp_path / "Y.JPG").write_bytes((tmp_path / "x.jpg").read_bytes())
    found = find_images(tmp_path)
    assert len(found.images) == len(FORMATS) + 2
    assert found.skipped == ()
    assert all(decode(path).shape[2] == 3 for path in found.images)
    assert {f".{ending}" for ending in FORMATS} | {".mpo"} <= image_endings()


@pytest.mark.parametrize("junk", JUNK)
def test_folders_of_programs_are_junk(tmp_path: Path, junk: str) -> None:
    (tmp_path / junk).mkdir()
    saved(tmp_path / junk, PHOTO, "x.jpg")
    saved(tmp_path, PHOTO, "a.jpg")
    assert names(tmp_path) == ["a.jpg"]
    assert skipped(tmp_path) == [(junk, "hidden")]


@pytest.mark.parametrize("name", ["Thumbs.db", ".DS_Store", "._a.jpg", "desktop.ini", "Icon\r", "Picasa.ini"])
def test_files_of_programs_are_junk(name: str) -> None:
    assert is_hidden(name)
    assert classify_name(name) == "hidden"


def test_ordinary_names_are_not_junk() -> None:
    assert not any(map(is_hidden, ["@home", "#1.jpg", "recycling", "~a.jpg", "thumbs", "_x", "$5.jpg", "MACOSX"]))


def test_what_is_skipped_has_a_reason(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.tar.jpg_large", "no ending"):
        (tmp_path / name).write_bytes(b"")
        PHOTO.save(tmp_path / name, "JPEG")
    for name in ("x.dng", "x.CR3", "x.svg", "x.txt", "x.mp4", "BMW notes", "P5 of the plan", "empty"):
        (tmp_path / name).write_text("" if name == "empty" else name)
    (tmp_path / "album").symlink_to("gone")
    (tmp_path / "list.csv").symlink_to("gone.csv")
    (tmp_path / "z.jpg").symlink_to("gone.jpg")
    assert names(tmp_path) == ["a.jpg", "z.jpg"]
    assert dict(skipped(tmp_path)) == {
        **{"b.tar.jpg_large": "ending", "no ending": "ending", "album": "dangling"},
        **{"x.dng": "format", "x.CR3": "format", "x.svg": "format"},
        **{name: "other" for name in ("x.txt", "x.mp4", "BMW notes", "P5 of the plan", "empty", "list.csv")},
    }
    missing = {os.path.basename(each.path) for each in find_images(tmp_path).skipped if each.may_be_image}
    assert missing == {"b.tar.jpg_large", "no ending", "album", "x.dng", "x.CR3", "x.svg"}


def test_links_are_followed_once_and_never_back(tmp_path: Path) -> None:
    for name in ("top/1.jpg", "top/sub/2.jpg", "other/3.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PHOTO.save(path)
    top = tmp_path / "top"
    (top / "up").symlink_to("..")
    (top / "again").symlink_to("sub")
    (top / "elsewhere").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(top)
    assert names(top) == ["1.jpg", "elsewhere/3.jpg", "sub/2.jpg"]
    assert sorted(skipped(top)) == [("again", "link"), ("elsewhere/back", "link"), ("up", "link")]


def test_many_links_take_no_longer_than_their_number(tmp_path: Path) -> None:
    folders = [tmp_path / f"{number}" for number in range(30)]
    for folder in folders:
        folder.mkdir()
        PHOTO.save(folder / "x.png")
    for folder in folders:
        for other in folders:
            (folder / f"to {other.name}").symlink_to(other)
    found = find_images(tmp_path)
    assert len(found.images) == 30
    assert len(found.skipped) == 900


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    saved(tmp_path, PHOTO, "a.jpg")
    scandir = os.scandir

    def refuse(path: str | Path) -> os._ScandirIterator[str]:  # root, who may read everything, runs tests too
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    (only,) = find_images(tmp_path).skipped
    assert (only.path, only.text) == (
        str(tmp_path / "secret"),
        "cannot be read: Permission denied; check who may read it",
    )
    assert only.may_be_image


def test_heic_without_its_decoder_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagefile, "is_available", lambda: False)
    for name in ("a.heic", "b.HEIF", "c.hif"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    assert skipped(tmp_path) == [("a.heic", "heif"), ("b.HEIF", "heif"), ("c.hif", "heif")]
    (first, *_) = find_images(tmp_path).skipped
    assert "pip install 'mindspore-finetune[heif]'" in first.text
    assert walk.classify_name("a.jpg") == "image"


def test_folders_are_left_out_on_request(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/test/2.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PHOTO.save(path)
    found = walk.find_images(tmp_path / "a", without=[str(tmp_path / "a" / "test")])
    assert [path.name for path in found.images] == ["1.png"]


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    pixels = Image.fromarray(np.zeros((2, 2, 3), np.uint8))
    for name in ("10.png", "9.png", "b.png", "B.png", "1.png"):
        pixels.save(tmp_path / name)
    assert names(tmp_path) == ["1.png", "9.png", "10.png", "B.png", "b.png"]
