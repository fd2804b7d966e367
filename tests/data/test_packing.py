"""Packing photos: what a pack holds, what cannot be packed, and what a pack that died or found no room leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.cli import main
from finetune.data.pack import mindrecords, packing, writer
from finetune.data.pack.packed import read_pack
from finetune.errors import ResourceError
from tests.cli.calling import command, environment
from tests.clocks import LONGEST
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Samples

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return photos of three classes, in two splits."""
    folder(tmp_path / "photos" / "train", each=6)
    folder(tmp_path / "photos" / "valid", each=2, seed=1)
    return tmp_path / "photos"


def packed(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Return what ``finetune pack`` answers, its exit code beside it."""
    code = main(["pack", *map(str, words), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return {"code": code, **found}


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the error of a pack that cannot be, with its exit code."""
    found = packed(capsys, *words)
    return f"{found['code']} {found['error']['message']}"


def held(samples: Samples | None) -> list[tuple[str, bytes, str]]:
    """Return name, content and class of each photo of a pack."""
    assert samples is not None
    images: Any = samples.images
    return [
        (image.name, image.data, samples.classes[label]) for image, label in zip(images, samples.labels, strict=True)
    ]


def test_a_pack_holds_every_photo_as_it_is(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = packed(capsys, photos, tmp_path / "out", "--file-gb", "0.001")
    assert (found["code"], found["photos"]) == (0, {"train": 18, "valid": 6})
    for split in ("train", "valid"):
        files = sorted((photos / split).rglob("*.jpg"), key=lambda path: (path.parent.name, path.name))
        wanted = [(str(file.relative_to(photos)), file.read_bytes(), file.parent.name) for file in files]
        assert sorted(held(read_pack(tmp_path / "out", split))) == sorted(wanted)  # type: ignore[arg-type]
    assert read_pack(tmp_path / "out", "test") is None


def test_files_are_of_bounded_size(tmp_path: Path) -> None:
    sizes = np.array([5, 5, 5, 20, 1, 1], np.int64)
    assert [*writer.divide_photos(sizes, 10)] == [range(2), range(2, 3), range(3, 4), range(4, 6)]
    assert [*writer.divide_photos(sizes[:0], 10)] == []


@pytest.mark.parametrize(("largest", "total", "page"), [(1, 1, 1 << 22), ((1 << 22) - 8, 1, 1 << 22)])
def test_pages_take_the_largest_photo(largest: int, total: int, page: int) -> None:
    assert mindrecords.choose_page_size(np.array([largest, total])) == page
    assert mindrecords.choose_page_size(np.array([largest + (1 << 22), total])) == 1 << 23
    assert mindrecords.choose_page_size(np.array([mindrecords.LARGEST_PHOTO])) == mindrecords.LARGEST_PAGE


def test_mindspore_reads_the_files(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed(capsys, photos, tmp_path / "out")
    code = f"""
import mindspore.dataset as ds
from pathlib import Path
rows = [*ds.MindDataset({str(tmp_path / "out" / "train-00000.mindrecord")!r}, shuffle=False).create_dict_iterator(
    num_epochs=1, output_numpy=True)]
assert len(rows) == 18
for row in rows:
    assert row["data"].tobytes() == (Path({str(photos)!r}) / str(row["path"])).read_bytes()
    assert 0 <= int(row["label"]) < 3
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LONGEST)


def test_a_pack_is_the_same_again_and_from_itself(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data, out in ((photos, "first"), (photos, "second"), (tmp_path / "first", "third")):
        assert packed(capsys, data, tmp_path / out)["code"] == 0
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()
        if file.name != "pack.json":  # which says what was packed
            assert file.read_bytes() == (tmp_path / "third" / file.name).read_bytes()


def test_files_get_the_modes_of_new_files(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o022)
    try:
        packed(capsys, photos, tmp_path / "out")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()} == {0o644}


def test_odd_names_of_folders_and_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = folder(tmp_path / "é ' \"; 中", each=2)
    (top / "red" / "00.jpg").rename(top / "red" / 'it\'s "ü"; --.jpg')
    assert packed(capsys, top, tmp_path / "p a'c ü")["code"] == 0
    assert 'red/it\'s "ü"; --.jpg' in {name for name, *_ in held(read_pack(tmp_path / "p a'c ü", "train"))}


def test_tables_and_recipes_are_packed(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = photos / "table.csv"
    table.write_text("path,label\ntrain/red/00.jpg,a\nvalid/red/00.jpg,b\n")
    assert packed(capsys, table, tmp_path / "one")["photos"] == {"train": 2}
    assert [name for name, *_ in held(read_pack(tmp_path / "one", "train"))] == ["train/red/00.jpg", "valid/red/00.jpg"]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("dataset: {use: folder, root: photos}\n")
    assert packed(capsys, recipe, tmp_path / "two")["photos"] == {"train": 18, "valid": 6}


# Photos that cannot be used


def test_bad_photos_end_it_or_are_left_out(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "train" / "red" / "00.jpg").write_bytes(b"\xff\xd8\xffno")
    text = said(capsys, photos, tmp_path / "out")
    assert text.startswith("3 dataset 'folder' cannot be used")
    assert "00.jpg: is truncated or damaged" in text
    assert not [*tmp_path.glob("*out*")]
    found = packed(capsys, photos, tmp_path / "out", "--on-bad-image", "skip")
    assert found["photos"]["train"] == 17
    samples = read_pack(tmp_path / "out", "train")
    assert samples is not None
    assert [(each.severity, "00.jpg" in each.subject) for each in samples.findings] == [("warning", True)]


def test_what_a_page_cannot_hold(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = photos / "train" / "red" / "00.jpg"
    Image.effect_noise((300, 300), 90).save(large, quality=100)
    monkeypatch.setattr(mindrecords, "LARGEST_PHOTO", large.stat().st_size - 1)
    assert "00.jpg: has more than" in said(capsys, photos, tmp_path / "out")
    assert packed(capsys, photos, tmp_path / "out", "--on-bad-image", "skip")["photos"]["train"] == 17


def test_drawn_images_are_not_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "drawn.yaml").write_text("dataset: {use: shapes}\n")
    assert "3 dataset 'shapes' returns arrays" in said(capsys, tmp_path / "drawn.yaml", tmp_path / "out")


def test_photos_that_change_meanwhile(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def enough(*_: object) -> None:
        (photos / "train" / "red" / "01.jpg").write_bytes(b"other")

    monkeypatch.setattr(packing, "check_free_space", enough)
    assert "01.jpg' changed while packing" in said(capsys, photos, tmp_path / "out")
    (photos / "train" / "red" / "01.jpg").unlink()
    folder(photos / "train", each=6)
    monkeypatch.setattr(packing, "check_free_space", lambda *_: (photos / "train" / "red" / "01.jpg").unlink())
    assert "01.jpg' can no longer be read" in said(capsys, photos, tmp_path / "out")
    assert not [*tmp_path.glob("*out*")]


# Where it goes


def test_what_is_there_already_stays(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert packed(capsys, photos, out)["code"] == 0  # an empty folder is as good as none
    assert "2" in said(capsys, photos, out)[:1]
    assert "already is a pack; remove it" in said(capsys, photos, out)
    (tmp_path / "file").write_text("mine")
    assert "already exists; name a new folder" in said(capsys, photos, tmp_path / "file")
    assert "is in the folder of the photos" in said(capsys, photos, photos)
    assert "is in the folder of the photos" in said(capsys, photos, photos / "packed")
    assert "is not valid UTF-8" in said(capsys, photos, tmp_path / "\udcff")


def test_a_disk_without_room_is_seen_at_once(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    text = said(capsys, photos, tmp_path / "out")
    assert text.startswith(f"7 cannot write '{tmp_path / 'out'}': the pack takes")
    assert "free some space" in text


def test_a_place_that_takes_no_files(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert said(capsys, photos, tmp_path / "file" / "out").startswith("7 cannot write")
    assert said(capsys, photos, "/proc/out").startswith("7 cannot write")


def test_a_writer_that_fails(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    with pytest.raises(ResourceError, match=r"cannot write '.*there': MindRecord's writer failed \(.*already exist"):
        mindrecords.write_rows(tmp_path / "there", [[{"data": b"a", "label": 0, "path": "a", "digest": ""}]], 1 << 22)


def test_what_was_written_is_read_back(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = mindrecords.read_places
    monkeypatch.setattr(mindrecords, "read_places", lambda path, page: places(path, page) + np.array([1, 0]))
    assert "7 'train-00000.mindrecord' was written incorrectly; check the disk" in said(
        capsys, photos, tmp_path / "out"
    )
    monkeypatch.setattr(mindrecords, "read_places", lambda path, page: places(path, page)[1:])
    assert "was written incorrectly" in said(capsys, photos, tmp_path / "out")

    def torn(path: Path, page: int) -> Any:
        mindrecords.locate_index(path).write_bytes(b"no database" * 1000)
        return places(path, page)

    monkeypatch.setattr(mindrecords, "read_places", torn)
    assert "mindrecord.db' is damaged" in said(capsys, photos, tmp_path / "out")
    assert not [*tmp_path.glob("*out*")]


# Killed, stopped, or two at once


SLOW = """
import sys, time
from finetune.machine import interrupts
interrupts.listen()
from finetune.cli import main
from finetune.data.pack import writer
real = writer.describe_file
def describe_file(path):
    print("writing", flush=True)
    time.sleep(100)
    return real(path)
writer.describe_file = describe_file
sys.exit(main(sys.argv[1:]))
"""


def begun(repo: Path, photos: Path, out: Path) -> subprocess.Popen[str]:
    """Return a process that packs and waits in the middle."""
    line = [sys.executable, "-c", SLOW, "pack", str(photos), str(out)]
    process = subprocess.Popen(
        line, env=environment(repo), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    while "writing" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_a_killed_pack_leaves_none(
    photos: Path, tmp_path: Path, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    process = begun(repo, photos, out)
    assert "another process is packing into" in said(capsys, photos, out)
    process.kill()
    process.communicate()
    assert not out.exists()
    assert (tmp_path / ".out.packing").is_dir()
    assert packed(capsys, photos, out)["code"] == 0
    assert not (tmp_path / ".out.packing").exists()
    assert len(held(read_pack(out, "train"))) == 18


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_pack_leaves_nothing(photos: Path, tmp_path: Path, repo: Path, signum: int, code: int) -> None:
    process = begun(repo, photos, tmp_path / "out")
    process.send_signal(signum)
    process.communicate(timeout=LONGEST)
    assert process.returncode == code
    assert not [*tmp_path.glob("*out*")]


def test_the_command_says_how_far_it_is(photos: Path, tmp_path: Path, repo: Path) -> None:
    line = command("pack", photos, tmp_path / "out")
    done = subprocess.run(line, env=environment(repo), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0
    assert "train-00000.mindrecord: 18 photos" in done.stderr
    said = "".join(done.stdout.split())  # long paths are broken to fit the screen
    assert f"dataset:{{use:mindrecord,root:{tmp_path / 'out'}}}" in said
