"""The dataset ``mindrecord``: the same as the files were, fast, and never trusted further than its hashes."""

from __future__ import annotations

import json
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.components import Dataset, Encoded, ImageSpec
from finetune.data import loading, sources
from finetune.data.loader import Loader
from finetune.data.pack import packed, packfile
from finetune.data.pack.packed import read_pack
from finetune.errors import DataError, ResourceError
from finetune.features import identity
from finetune.features.features import check_same
from finetune.recipe.models import DatasetSection
from finetune_plugins.mindrecord import MindRecord, build
from tests.drawn import folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.data.loading import Data

pytestmark = pytest.mark.usefixtures("home")
SPEC = ImageSpec(size=32, resize=36)


def tilted(pixels: Any, rng: np.random.Generator) -> Any:
    """Shift colours, as an augmentation would."""
    return (pixels.astype(np.int16) + rng.integers(-30, 30, 3)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return photos, some twice, and their pack beside them."""
    top = tmp_path_factory.mktemp("made")
    folder(top / "photos", each=8)
    shutil.copy(top / "photos" / "red" / "01.jpg", top / "photos" / "red" / "copy.jpg")
    assert main(["pack", str(top / "photos"), str(top / "pack"), "--file-gb", "0.001"]) == 0
    return top


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    """Return a pack of the test's own."""
    return shutil.copytree(made / "pack", tmp_path / "pack")


def data(use: str, root: Path, **section: Any) -> Data:
    """Return the data of a run on a folder."""
    catalogue = Catalogue(plugins.load_plugins())
    component: Any = catalogue.get(Dataset, use)
    chosen = catalogue.choose(component, component.options(root=root))
    return loading.load(chosen, DatasetSection(use=use, **section), 5, 2)


def batches(part: Any, *, train: bool, workers: int = 2, epoch: int = 2) -> list[tuple[bytes, ...]]:
    """Return all batches of an epoch as bytes."""
    loader = Loader(
        part, SPEC, batch_size=5, workers=workers, seed=3, transforms=(tilted,) if train else (), train=train
    )
    found = [
        (each.images.tobytes(), each.labels.tobytes(), each.weights.tobytes(), each.indices.tobytes())
        for each in loader.epoch(epoch)
    ]
    loader.close()
    return found


# The same as the files


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_are_those_of_the_files_to_the_bit(made: Path, workers: int) -> None:
    files, records = data("folder", made / "photos"), data("mindrecord", made / "pack")
    for split in ("train", "valid"):
        of_files, of_records = getattr(files, split), getattr(records, split)
        for train in (True, False):
            assert batches(of_files, train=train, workers=workers) == batches(of_records, train=train, workers=workers)


def test_data_is_that_of_the_files(made: Path) -> None:
    files, records = data("folder", made / "photos"), data("mindrecord", made / "pack")
    assert files.report["fingerprint"] == records.report["fingerprint"]
    assert {key: value for key, value in files.report.items() if key not in ("dataset", "findings")} == {
        key: value for key, value in records.report.items() if key not in ("dataset", "findings")
    }
    assert identity.hash_images(files.train) == identity.hash_images(records.train)
    assert [*files.train.hashes] == [*records.train.hashes]
    assert records.train.describe(0) == "blue/00.jpg"


def test_flowers_are_the_same(flowers: Path, tmp_path: Path) -> None:
    small = tmp_path / "flowers"
    for split in ("train", "valid"):
        for name in ("1", "10", "2"):
            photos = sorted((flowers / split / name).glob("*.jpg"))[:6]
            (small / split / name).mkdir(parents=True)
            for photo in photos:
                shutil.copy(photo, small / split / name)
    assert main(["pack", str(small), str(tmp_path / "pack")]) == 0
    files, records = data("folder", small), data("mindrecord", tmp_path / "pack")
    assert files.classes == records.classes == ("1", "2", "10")
    assert files.report["fingerprint"] == records.report["fingerprint"]
    assert batches(files.train, train=True) == batches(records.train, train=True)
    assert batches(files.valid, train=False) == batches(records.valid, train=False)


def test_bad_photos_left_out_leave_the_same_data(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "green" / "03.jpg").write_bytes(b"no photo")
    assert main(["pack", str(tmp_path / "photos"), str(tmp_path / "pack"), "--on-bad-image", "skip"]) == 0
    files, records = data("folder", tmp_path / "photos", on_bad_image="skip"), data("mindrecord", tmp_path / "pack")
    assert files.report["fingerprint"] == records.report["fingerprint"]
    assert batches(files.train, train=True) == batches(records.train, train=True)
    (told,) = [each for each in records.report["findings"] if "03.jpg" in each["subject"]]
    assert told["severity"] == "warning"


def test_nothing_is_decoded_before_the_run(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("finetune.data.scan.examine", decode)
    assert len(data("mindrecord", made / "pack").train)


def test_another_decoder_looks_at_every_photo(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = data("mindrecord", made / "pack").report["fingerprint"]
    monkeypatch.setattr(packfile, "describe_decoder", lambda: "rules 9, Pillow 99")
    after = data("mindrecord", made / "pack").report
    assert after["fingerprint"] == before
    assert any("pack again to avoid decoding" in each["text"] for each in after["findings"])


def test_photos_are_read_from_many_threads(pack: Path) -> None:
    samples = build(MindRecord(root=pack), "train")
    assert samples is not None
    places = random.Random(0).choices(range(len(samples)), k=2000)
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(samples.images.__getitem__, places)]
    alone = [*samples.images]
    assert found == [alone[place] for place in places]
    assert samples.images[2:5] == alone[2:5]
    assert samples.images[-1] == alone[-1]
    with pytest.raises(IndexError):
        samples.images[len(samples)]
    assert samples.digests is not None
    assert samples.digests[:3] == [*samples.digests][:3]


def test_a_folder_that_is_a_pack_is_taken_for_one(pack: Path, tmp_path: Path) -> None:
    catalogue = Catalogue(plugins.load_plugins())
    assert sources.build_section(pack, catalogue) == {"use": "mindrecord", "root": str(pack)}
    assert sources.build_section(pack, catalogue, {"use": "folder", "root": "elsewhere"})["use"] == "mindrecord"
    assert sources.build_section(tmp_path, catalogue)["use"] == "folder"


# Damage


def test_files_are_hashed_once(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(packed, "hash_file", lambda path: read.append(path) or packed.hash_image(path))  # type: ignore[func-returns-value]
    read_pack(pack, "train")
    assert len(read) == len([*pack.iterdir()]) - 1
    read_pack(pack, "train")
    assert len(read) == len([*pack.iterdir()]) - 1
    os.utime(pack / "train.rows", ns=(1, 1))
    read_pack(pack, "train")
    assert read[-1:] == [str(pack / "train.rows")]
    assert len(read) == len([*pack.iterdir()])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def foldered(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: list[tuple[Callable[[Any], Any], str]] = [
    (flipped, "changed after it was packed"),
    (cut, "bytes instead of"),
    (piped, "is not a regular file"),
    (foldered, "is not a regular file"),
    (lambda file: file.unlink(), "is missing from the pack"),
    (lambda file: (file.unlink(), file.symlink_to(file)), "cannot be read: Too many levels"),
]
FILES = ("train-00000.mindrecord", "train-00000.mindrecord.db", "train.rows", "train.names")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("damage", "text"), DAMAGE, ids=[text[:20] for _, text in DAMAGE])
@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_damage_is_an_error_that_names_the_file(
    pack: Path, name: str, damage: Callable[[Path], None], text: str, known: bool
) -> None:
    if known:
        read_pack(pack, "train")
    damage(pack / name)
    with pytest.raises(DataError) as caught:
        read_pack(pack, "train")
    assert str(caught.value).startswith(f"'{pack / name}' ")
    assert text in str(caught.value)
    assert "; " in str(caught.value)


@pytest.mark.parametrize("name", ["train-00000.mindrecord", "train.names"])
def test_damage_in_the_middle_of_a_run(pack: Path, name: str) -> None:
    part = data("mindrecord", pack).train
    first = batches(part, train=True)
    os.truncate(pack / name, 100)
    with pytest.raises(DataError, match=rf"'{pack / name}' is shorter than it was when packed; copy it again"):
        batches(part, train=True)
    assert first


def test_a_bit_that_changes_in_the_middle_of_a_run(pack: Path) -> None:
    part = data("mindrecord", pack).train
    image = part.images[0]
    assert isinstance(image, Encoded)
    file = pack / "train-00000.mindrecord"
    content = bytearray(file.read_bytes())
    content[content.index(image.data) + len(image.data) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"'{file}' changed after the run started, at '\w+/\d+\.jpg'"):
        batches(part, train=True)
    with pytest.raises(DataError, match="changed after the run started"):
        check_same(part, range(1))
    file.unlink()
    with pytest.raises(DataError, match=rf"'{file}' cannot be read: No such file"):
        batches(part, train=False)


def test_too_many_open_files(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = read_pack(pack, "train")
    assert samples is not None

    def no_more(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(packed.os, "open", no_more)
    with pytest.raises(ResourceError, match="raise the limit"):
        samples.images[0]


def test_a_folder_without_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"no pack at '.*': it has no pack.json; make one with `finetune pack DATA"):
        build(MindRecord(root=tmp_path), "train")
    with pytest.raises(DataError, match="no folder"):
        build(MindRecord(root=tmp_path / "none"), "train")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"backbone: {{use: resnext_nano, weights: none}}\ndataset: {{use: mindrecord, root: {tmp_path}}}\n"
    )
    assert main(["check", str(recipe)]) == 3
    assert "it has no pack.json" in capsys.readouterr().err


INDEXES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda said: said.update(version=2), "has version 2, but this finetune reads version 1; upgrade finetune"),
    (lambda said: said.update(format="other"), "is damaged: not the index of a pack"),
    (lambda said: said["splits"]["train"].update(classes=["a", "b", "c"]), "is damaged: its content has changed"),
]


@pytest.mark.parametrize(("change", "text"), INDEXES)
def test_an_index_that_was_changed(pack: Path, change: Callable[[Any], object], text: str) -> None:
    said = json.loads((pack / "pack.json").read_text())
    change(said)
    (pack / "pack.json").write_text(json.dumps(said))
    with pytest.raises(DataError) as caught:
        read_pack(pack, "train")
    assert text in str(caught.value)


def forged(pack: Path, change: Callable[[Any], object]) -> None:
    """Change an index and give it the checksum that belongs to it."""
    said = json.loads((pack / "pack.json").read_text())
    del said["check"]
    change(said)
    (pack / "pack.json").write_text(json.dumps(said | {"check": packfile.compute_checksum(said)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["splits"]["train"]["rows"].update(name="../../etc/passwd"),
        lambda said: said["splits"]["train"]["rows"].update(bytes=-1),
        lambda said: said["splits"]["train"]["rows"].update(bytes=True),
        lambda said: said["splits"]["train"].pop("rows"),
        lambda said: said.update(more=1),
        lambda said: said.update(splits={"holdout": said["splits"]["train"]}),
        lambda said: said.update(splits=[]),
    ],
)
def test_a_forged_index_leads_nowhere(pack: Path, change: Callable[[Any], object]) -> None:
    forged(pack, change)
    with pytest.raises(DataError, match="entries are missing or invalid"):
        read_pack(pack, "train")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b"{", b"[" * 100_000, b"0" * 50])
def test_an_index_that_is_none(pack: Path, content: bytes) -> None:
    (pack / "pack.json").write_bytes(content)
    with pytest.raises(DataError, match=r"pack.json' is damaged: .*; copy it again, or pack again with"):
        read_pack(pack, "train")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offset", 2**62),
        ("offset", -1),
        ("length", 2**40),
        ("length", -1),
        ("file", 7),
        ("file", -1),
        ("label", 3),
        ("label", -1),
        ("name_end", 2**40),
        ("name_end", -1),
    ],
)
def test_a_forged_table_leads_nowhere(pack: Path, field: str, value: int) -> None:
    table = np.fromfile(pack / "train.rows", packfile.ROW)
    table[field][3] = value
    table.tofile(pack / "train.rows")
    digest = packed.hash_image(str(pack / "train.rows"))
    forged(pack, lambda said: said["splits"]["train"]["rows"].update(blake2b=digest))
    with pytest.raises(DataError, match=r"train.rows' does not match pack.json; copy it again"):
        read_pack(pack, "train")


def test_any_damage_anywhere_is_found(pack: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    files = sorted(pack.iterdir())
    for _ in range(60):
        file = rng.choice(files)
        content = file.read_bytes()
        broken = bytearray(content)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        file.write_bytes(broken)
        with pytest.raises(DataError):
            read_pack(pack, "train")
        file.write_bytes(content)
    assert read_pack(pack, "train") is not None
