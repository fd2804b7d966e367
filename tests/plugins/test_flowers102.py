"""The dataset ``flowers102``: sorted into folders, as distributed, and fetched from a server."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from finetune import DataError, DownloadError, Samples, decode
from finetune_plugins import flowers102
from finetune_plugins.flowers102 import Flowers102, build, read_flower_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune import Split

LABELS = (3, 3, 1, 1, 3, 1, 77, 77, 77)
SPLITS = {"trnid": (1, 4, 9), "valid": (6, 2, 7), "tstid": (8, 3, 5)}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the three files as they are distributed, nine tiny photos in all."""
    folder = tmp_path_factory.mktemp("distributed")
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as archive:
        for i in range(1, len(LABELS) + 1):
            data = io.BytesIO()
            Image.new("RGB", (20, 16), (20 * i, 0, 0)).save(data, "JPEG")
            info = tarfile.TarInfo(f"jpg/image_{i:05d}.jpg")
            info.size = data.tell()
            data.seek(0)
            archive.addfile(info, data)
    savemat(folder / "imagelabels.mat", {"labels": np.array(LABELS, np.uint8)})
    savemat(folder / "setid.mat", {key: np.array(ids, np.uint16) for key, ids in SPLITS.items()})
    return folder


@pytest.fixture
def root(distributed: Path, tmp_path: Path) -> Path:
    """Return a copy of these files to change."""
    for file in distributed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def server(distributed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of a server of these files, whose hashes are made the known ones."""
    monkeypatch.delenv("FINETUNE_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for file in distributed.iterdir():
        digest = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
        monkeypatch.setitem(flowers102.HASHES, file.name, digest)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(distributed)))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def read(root: Path | None, split: Split = "train", **options: Any) -> Samples:
    samples = build(Flowers102(root=root, **options), split)
    assert samples is not None
    return samples


def pairs(samples: Samples) -> list[tuple[str, str]]:
    images = [image for image in samples.images if isinstance(image, Path)]
    return [(image.name, samples.classes[label]) for image, label in zip(images, samples.labels, strict=True)]


ROSE, ORCHID, BELLS = "passion flower", "pink primrose", "canterbury bells"


def check(root: Path | None, **options: Any) -> None:
    train = read(root, **options)
    assert train.classes == (ORCHID, BELLS, ROSE)
    assert pairs(train) == [("image_00001.jpg", BELLS), ("image_00004.jpg", ORCHID), ("image_00009.jpg", ROSE)]
    valid = pairs(read(root, "valid", **options))
    assert valid == [("image_00002.jpg", BELLS), ("image_00006.jpg", ORCHID), ("image_00007.jpg", ROSE)]
    assert [name for name, _ in pairs(read(root, "test", **options))] == [f"image_0000{i}.jpg" for i in (3, 5, 8)]
    assert train.findings == ()
    assert decode(train.images[0]).shape == (16, 20, 3)


def test_as_distributed(root: Path) -> None:
    check(root)
    before = (root / "102flowers" / "jpg" / "image_00001.jpg").stat().st_mtime_ns
    (root / "102flowers.tgz").unlink()
    check(root)
    assert (root / "102flowers" / "jpg" / "image_00001.jpg").stat().st_mtime_ns == before


def test_unpacked_by_the_user(root: Path) -> None:
    with tarfile.open(root / "102flowers.tgz") as archive:
        archive.extractall(root, filter="data")
    (root / "102flowers.tgz").unlink()
    check(root)
    assert not (root / "102flowers").exists()


def test_fetched(server: str, tmp_path: Path) -> None:
    check(tmp_path / "new", download=True, url=server)
    names = ["102flowers", "102flowers.tgz", "imagelabels.mat", "setid.mat"]
    assert sorted(os.listdir(tmp_path / "new")) == names


def test_fetched_into_the_cache(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    check(None, download=True, url=server + "/")
    assert (tmp_path / "home" / "flowers102" / "setid.mat").is_file()


def test_what_is_there_is_not_fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    check(root, download=True)
    (root / "setid.mat").unlink()
    with pytest.raises(DownloadError, match=r"setid.mat' is needed, but FINETUNE_OFFLINE is set; unset it, or put"):
        read(root, download=True)


def test_another_file_than_the_known_one(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(flowers102.HASHES, "setid.mat", "sha256:" + "0" * 64)
    with pytest.raises(DownloadError, match=r"/setid.mat' returned .* other bytes instead of the expected file"):
        read(tmp_path / "new", download=True, url=server)


def test_a_folder_that_cannot_be_written_to(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FINETUNE_HOME", str(home))
    monkeypatch.setattr(os, "access", lambda path, mode: path != root)  # root, who may write anywhere, runs tests too
    check(root)
    assert not (root / "102flowers").exists()
    assert (home / "flowers102" / "102flowers" / "jpg").is_dir()


def test_missing_files_are_named(root: Path) -> None:
    remedy = "set dataset.download=true, or put the files from https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ in it"
    (root / "setid.mat").unlink()
    (root / "102flowers.tgz").unlink()
    with pytest.raises(DataError) as caught:
        read(root)
    assert str(caught.value) == f"'{root}' lacks 102flowers.tgz, setid.mat; {remedy}"
    with pytest.raises(DataError) as caught:
        read(root / "none")
    assert str(caught.value) == f"no folder '{root / 'none'}': '{root}' has no 'none'; {remedy}"
    (root / "flowers102").mkdir()
    with pytest.raises(DataError, match=r"has no 'flower102'; did you mean 'flowers102'\?"):
        read(root / "flower102")
    with pytest.raises(DataError, match=r"imagelabels.mat' is a file, not a folder; check dataset.root"):
        read(root / "imagelabels.mat")


@pytest.mark.parametrize("data", [b"", b"<html></html>", b"MATLAB 5.0 MAT-file".ljust(200, b" "), None])
def test_damaged_tables(root: Path, data: bytes | None) -> None:
    file = root / "setid.mat"
    file.write_bytes(file.read_bytes()[:-50] if data is None else data)
    with pytest.raises(DataError, match=r"setid.mat' is damaged or has no numbers 'tstid'; delete it and download it"):
        read(root, "test")


def test_tables_that_do_not_belong_together(root: Path) -> None:
    savemat(root / "imagelabels.mat", {"labels": np.array([1, 2, 3], np.uint8)})
    with pytest.raises(DataError, match=r"has imagelabels.mat and setid.mat that do not match; download both"):
        read(root)


def test_missing_photos(root: Path) -> None:
    check(root)
    (root / "102flowers" / "jpg" / "image_00004.jpg").unlink()
    samples = read(root)
    assert [name for name, _ in pairs(samples)] == ["image_00001.jpg", "image_00009.jpg"]
    assert [f.severity for f in samples.findings] == ["error"]
    assert samples.findings[0].text == "lacks 1 of 3 photos; remove the folder and unpack 102flowers.tgz again"


def test_names_beside_the_photos_win(root: Path) -> None:
    (root / "cat_to_name.json").write_text(json.dumps({"1": "Primel", "3": "Glocke", "77": "Passionsblume"}))
    assert read(root).classes == ("Primel", "Glocke", "Passionsblume")
    for text in ("[1]", "{"):
        (root / "cat_to_name.json").write_text(text)
        with pytest.raises(DataError, match=r"cat_to_name.json' does not map numbers to names; fix it or delete it"):
            read(root)


def test_names(tmp_path: Path) -> None:
    names = read_flower_names(tmp_path)
    assert list(names) == [str(i) for i in range(1, 103)]
    assert len(set(names.values())) == 102


def test_sorted_into_folders(tmp_path: Path) -> None:
    for name in ("train/1/a.jpg", "train/10/b.jpg", "train/2/c.jpg", "valid/2/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"photo")
    assert pairs(read(tmp_path)) == [
        *[("a.jpg", "pink primrose"), ("c.jpg", "hard-leaved pocket orchid"), ("b.jpg", "globe thistle")]
    ]
    assert pairs(read(tmp_path, "valid")) == [("d.jpg", "hard-leaved pocket orchid")]
    assert build(Flowers102(root=tmp_path), "test") is None


def test_the_real_photos(flowers: Path) -> None:
    splits: list[Split] = ["train", "valid", "test"]
    train, valid, test = (read(flowers, split) for split in splits)
    assert [len(split) for split in (train, valid, test)] == [6552, 818, 819]
    assert len(train.classes) == 102
    assert train.classes == valid.classes == test.classes
    assert train.classes[:3] == ("pink primrose", "hard-leaved pocket orchid", "canterbury bells")
