"""The command: its files, the same bytes every time, and a run with the corrections that it proposes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.cli import main
from tests.drawn import COLOURS, folder

NANO = ("backbone.use=resnext_nano", "image.size=32", "image.resize=36")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return photos in three classes, one of which is also in another class, and one lies in a wrong folder."""
    monkeypatch.chdir(tmp_path)
    root = folder(tmp_path / "photos", each=14)
    shutil.copy(root / "red" / "03.jpg", root / "green" / "copy.jpg")
    shutil.move(root / "blue" / "05.jpg", root / "red" / "moved.jpg")
    return root


def audit(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["audit", *words, *NANO, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def read(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_it_finds_what_is_wrong_and_a_run_corrects_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = audit("photos", capsys=capsys)
    images = {row["path"]: row for row in read(f"{report['folder']}/images.csv")}
    assert list(next(iter(images.values()))) == [
        *("path", "split", "label", "suggested", "label_score", "wrong_label", "duplicate_of", "outlier", "quality"),
        "reasons",
    ]
    assert len(images) == report["images"] == 43
    moved = images[str(photos / "red" / "moved.jpg")]
    assert (moved["label"], moved["suggested"], moved["wrong_label"]) == ("red", "blue", "true")
    assert moved["reasons"].startswith("looks like 'blue'; its nearest images are labelled 'blue', 'blue', 'blue'")
    copy = images[str(photos / "red" / "03.jpg")]
    assert copy["duplicate_of"] == str(photos / "green" / "copy.jpg")
    assert "which is labelled 'green'" in copy["reasons"]
    assert report["found"]["contradictions"] == 1
    corrections = {row["path"]: (row["action"], row["label"]) for row in read(f"{report['folder']}/corrections.csv")}
    assert corrections[str(photos / "red" / "moved.jpg")] == ("relabel", "blue")
    assert corrections[str(photos / "green" / "copy.jpg")] == ("exclude", "")
    assert report["proposed"] == len(corrections)

    file = f"dataset.corrections={report['folder']}/corrections.csv"
    (photos.parent / "corrected.yaml").write_text("dataset: {use: folder, root: photos}\n")
    assert main(["run", "corrected.yaml", *NANO, file]) == 0
    about = json.loads((photos.parent / "runs" / "corrected-001" / "data.json").read_text())
    assert about["counts"]["train"] == dict.fromkeys(sorted(COLOURS), 14)
    assert (photos / "green" / "copy.jpg").exists()


def test_the_files_are_the_same_bytes_every_time(photos: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = audit("photos", capsys=capsys)  # with an empty cache
    second = audit("photos", "runner.workers=0", capsys=capsys)
    for name in ("images.csv", "corrections.csv", "audit.json"):
        assert Path(first["folder"], name).read_bytes() == Path(second["folder"], name).read_bytes(), name


def test_a_table_and_a_recipe(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{path.relative_to(photos.parent)},{path.parent.name}" for path in sorted(photos.rglob("*.jpg"))]
    (photos.parent / "t.csv").write_text("\n".join(["path,label", *rows]))
    (photos.parent / "mine.yaml").write_text("dataset: {use: csv, file: t.csv}\noutput: elsewhere\n")
    one, other = audit("t.csv", capsys=capsys), audit("mine.yaml", capsys=capsys)
    assert one["found"] == other["found"]
    assert other["folder"].endswith("elsewhere/audit-001")


def test_what_a_user_sees(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "photos", *NANO, "--output", "audits"]) == 0
    shown = capsys.readouterr().out
    assert "1 picture with different labels, 2 probably wrong" in shown
    assert "audits/audit-001" in shown


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["none"], 2, "no file and no bundled recipe named 'none'"),
        (["single"], 3, "only class; at least two are needed"),
        (["pair"], 3, "2 images are too few to compare; add images"),
    ],
)
def test_what_cannot_be_audited(
    words: list[str], code: int, text: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kept in (("single", {"red": 4}), ("pair", {"red": 1, "blue": 1})):
        for label, count in kept.items():
            (photos.parent / name / label).mkdir(parents=True)
            for path in sorted((photos / label).glob("*.jpg"))[:count]:
                shutil.copy(path, photos.parent / name / label)
    assert main(["audit", *words, *NANO]) == code
    assert text in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_first(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos.parent / "afile").write_text("x")
    assert main(["audit", "photos", *NANO, "--output", "afile"]) != 0
    said = capsys.readouterr().err
    assert "afile is a file; choose another with --output" in said
    assert "measuring the images" not in said


def test_an_audit_that_fails_leaves_no_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "photos", "backbone.use=resnext_nano", "backbone.weights=nowhere.safetensors"]) != 0
    assert not list(photos.parent.glob("runs/*"))
    assert "nowhere.safetensors" in capsys.readouterr().err
