"""``predict`` on folders: what is labelled, what is named as skipped, and how it ends; names with a tilde."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finetune import DataError, Finetuner
from finetune.cli import main
from tests.faults.data_makers import encoded, put, trained

PNG = encoded("PNG")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of photos and everything else that people have there."""
    monkeypatch.chdir(tmp_path)
    for name in ("1.png", "10.png", "2.png", "sub/a.PGM", "sub/@eaDir/x.png", "__MACOSX/x.png", ".thumbnails/x.png"):
        put(tmp_path / "photos" / name, encoded("PPM") if name.endswith("PGM") else PNG)
    for name in ("notes.txt", "Thumbs.db", "raw.dng", "scan"):
        put(tmp_path / "photos" / name, PNG if name == "scan" else b"x")
    put(tmp_path / "elsewhere" / "linked.png", PNG)
    for name, target in (("album", "../elsewhere"), ("gone", "nowhere"), ("gone.jpg", "nowhere"), ("up", "..")):
        (tmp_path / "photos" / name).symlink_to(target)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = main(["predict", str(trained()), *words, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out.splitlines()[-1]), said.err


def test_what_is_skipped_is_named_after_the_rest_is_labelled(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, said = answer(capsys, "photos", "--csv", "labels.csv")
    assert code == 3
    names = ["1.png", "2.png", "10.png", "album/linked.png", "sub/a.PGM"]
    assert [each["path"] for each in found["predictions"]] == [f"photos/{name}" for name in names]
    assert {os.path.basename(each["path"]): each["reason"].partition(";")[0] for each in found["skipped"]} == {
        "gone.jpg": "is a link to a file that does not exist",
        "gone": "is a broken link",
        "raw.dng": "is an image in an unsupported format",
        "scan": "is an image, but its name does not have the ending of one",
    }
    assert found["ignored"] == {"hidden": 4, "other": 1, "link": 1}
    assert "4 of 9 photos could not be labelled" in found["error"]["message"]
    assert "'photos/raw.dng' is an image in an unsupported format" in said
    assert "ignored: 1 not images, 4 hidden or system files, 1 links to folders" in said
    assert len(Path("labels.csv").read_text().splitlines()) == 6


def test_junk_and_texts_alone_are_no_failure(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("raw.dng", "scan", "gone", "gone.jpg"):
        (here / "photos" / name).unlink()
    code, found, _ = answer(capsys, "photos")
    assert (code, found["skipped"]) == (0, [])
    assert len(found["predictions"]) == 5


def test_a_file_that_is_named_is_tried_whatever_its_ending(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = answer(capsys, "photos/scan")
    assert (code, len(found["predictions"])) == (0, 1)


def test_python_labels_folders_and_lists_what_it_skipped(here: Path) -> None:
    tuner = Finetuner.load(trained(), progress=False)
    found = tuner.predict("photos")
    assert [Path(each.path).name for each in found] == ["1.png", "2.png", "10.png", "linked.png", "a.PGM"]
    assert {Path(each.path).name for each in found.skipped} == {"gone", "gone.jpg", "raw.dng", "scan"}
    assert tuner.predict(["photos/1.png"]).skipped == ()
    with pytest.raises(DataError, match=r"notes.txt' is not an image"):
        tuner.predict(["photos", "photos/notes.txt"])


def test_names_that_begin_with_a_tilde(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("~a.png", "~x/~b.png", "~root/c.png"):
        put(here / "tilde" / name, PNG)
    os.chdir(here / "tilde")
    code, found, _ = answer(capsys, "~a.png", "~x", "~x/~b.png")
    assert code == 0
    assert [each["path"] for each in found["predictions"]] == ["~a.png", "~x/~b.png", "~x/~b.png"]
    code, found, _ = answer(capsys, ".")
    assert code == 0
    assert [Path(each["path"]).name for each in found["predictions"]] == ["~a.png", "c.png", "~b.png"]
    assert len(Finetuner.load(trained(), progress=False).predict(["~a.png", "~x"])) == 2
