"""Tests the dataset ``zip``; install the package first, so that the plugin is found."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
import pytest
from finetune_zip import Zip, build, finetune_datasets
from PIL import Image

from finetune import DataError, Samples
from finetune.testing import check_dataset

if TYPE_CHECKING:
    from pathlib import Path


def photo(colour: tuple[int, int, int], orientation: int = 1) -> bytes:
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (24, 16), colour).save(data, "JPEG", exif=exif)
    return data.getvalue()


def archive(folder: Path, entries: dict[str, bytes]) -> Path:
    with ZipFile(folder / "photos.zip", "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return folder / "photos.zip"


def read(file: Path) -> Samples:
    samples = build(Zip(file=file), "train")
    assert samples is not None
    return samples


def test_folders_are_classes(tmp_path: Path) -> None:
    red, blue = photo((200, 0, 0)), photo((0, 0, 200), orientation=6)
    more = {"photos/notes.txt": b"x", "__MACOSX/photos/rose/._1.jpg": b"x", "loose.jpg": red}
    file = archive(tmp_path, {"photos/rose/1.JPG": red, "photos/daisy/1.jpg": blue, "photos/rose/2.jpg": red, **more})
    samples = read(file)
    assert samples.classes == ("daisy", "rose")
    assert list(samples.labels) == [0, 1, 1]
    shapes = [np.asarray(image).shape for image in samples.images]
    assert shapes == [(24, 16, 3), (16, 24, 3), (16, 24, 3)]
    assert np.asarray(samples.images[0])[..., 2].min() > 150
    assert np.asarray(samples.images[1])[..., 0].min() > 150
    assert build(Zip(file=file), "valid") is None


def test_threads_share_the_archive(tmp_path: Path) -> None:
    file = archive(tmp_path, {f"{c}/{i}.jpg": photo((10 * i, 0, 200 * c)) for c in range(2) for i in range(10)})
    images, expected = read(file).images, [np.asarray(image) for image in read(file).images]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(i for i in range(20) if not np.array_equal(np.asarray(images[i]), expected[i]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_text("<html></html>")
    for name in ("page.zip", "none.zip", "."):
        with pytest.raises(DataError, match=r"cannot be read as a zip archive: .*; check dataset.file"):
            read(tmp_path / name)
    with pytest.raises(DataError, match="has no photos in folders; put one folder for each class into it"):
        read(archive(tmp_path, {"loose.jpg": photo((0, 0, 0)), "rose/notes.txt": b"x"}))


def test_it_keeps_the_contract(finetune_photos: Path, tmp_path: Path) -> None:
    photos = sorted(finetune_photos.rglob("*.jpg"))
    entries = {str(path.relative_to(finetune_photos)): path.read_bytes() for path in photos}
    check_dataset("zip", {"file": archive(tmp_path, entries)})


def test_the_hook_offers_it() -> None:
    (dataset,) = finetune_datasets()
    assert (dataset.name, dataset.options) == ("zip", Zip)
