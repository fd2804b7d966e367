"""Tests the dataset ``zip``; install the package first, so that the plugin is found."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from zipfile import ZipFile

import pytest
from finetune_zip import Zip, build, finetune_datasets, read_path
from PIL import Image

from finetune import DataError, Samples
from finetune.testing import check_dataset


def photo(colour: tuple[int, int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(data, "JPEG")
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
    red, blue = photo((200, 0, 0)), photo((0, 0, 200))
    more = {"photos/notes.txt": b"x", "__MACOSX/photos/rose/._1.jpg": b"x", "loose.jpg": red}
    file = archive(tmp_path, {"photos/rose/1.JPG": red, "photos/daisy/1.jpg": blue, "photos/rose/2.jpg": red, **more})
    samples = read(file)
    assert samples.classes == ("daisy", "rose")
    assert list(samples.labels) == [0, 1, 1]
    assert [(image.name, image.data) for image in samples.images] == [
        ("photos/daisy/1.jpg", blue),
        ("photos/rose/1.JPG", red),
        ("photos/rose/2.jpg", red),
    ]
    assert build(Zip(file=file), "valid") is None


def test_threads_share_the_archive(tmp_path: Path) -> None:
    file = archive(tmp_path, {f"{c}/{i}.jpg": photo((10 * i, 0, 200 * c)) for c in range(2) for i in range(10)})
    images, expected = read(file).images, [image.data for image in read(file).images]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(i for i in range(20) if images[i].data != expected[i])

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


def test_it_reads_zip_files() -> None:
    assert read_path(Path("photos.ZIP")) == {"file": "photos.ZIP"}
    assert read_path(Path("photos.csv")) is None
