"""Decisions of a review: stored at once, taken back, resumed, and refused if they make no sense."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune import DataError, UsageError
from finetune.cli import main
from finetune.review.decisions import Review, lock_review
from tests.drawn import folder


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an audit that finds a copy with another label and a photo in a wrong folder."""
    top = tmp_path_factory.mktemp("audited")
    photos = folder(top / "photos", each=14)
    shutil.copy(photos / "red" / "03.jpg", photos / "green" / "copy.jpg")
    shutil.move(photos / "blue" / "05.jpg", photos / "red" / "moved.jpg")
    words = ["backbone.use=resnext_nano", "image.size=32", "image.resize=36", "--output", str(top)]
    assert main(["audit", str(photos), *words]) == 0
    return top / "audit-001"


@pytest.fixture
def audit(audited: Path, tmp_path: Path) -> Path:
    return shutil.copytree(audited, tmp_path / "audit")


def corrections(audit: Path) -> dict[str, tuple[str, str]]:
    with (audit / "corrections.csv").open(newline="") as file:
        return {Path(row["path"]).name: (row["action"], row["label"]) for row in csv.DictReader(file)}


def find(review: Review, name: str) -> str:
    return next(item.path for item in review.items if item.path.endswith(name))


def test_findings_come_in_order(audit: Path) -> None:
    review = Review(audit)
    kinds = [item.kinds[0] for item in review.items]
    assert kinds[:2] == ["contradiction", "contradiction"]
    moved = next(item for item in review.items if item.path.endswith("moved.jpg"))
    assert (moved.label, moved.suggested) == ("red", "blue")
    assert len(moved.neighbours) == 3
    assert {review.labels[at] for at in moved.neighbours} == {"blue"}
    copy = next(item for item in review.items if item.path.endswith("copy.jpg"))
    assert review.images[copy.neighbours[0]].endswith("03.jpg")


def test_each_decision_is_stored_and_resumed(audit: Path) -> None:
    review = Review(audit)
    review.decide(find(review, "moved.jpg"), "relabel", "blue")
    assert corrections(audit) == {"moved.jpg": ("relabel", "blue")}
    review.decide(find(review, "copy.jpg"), "exclude")
    review.decide(find(review, "red/03.jpg"), "keep")
    assert corrections(audit) == {"moved.jpg": ("relabel", "blue"), "copy.jpg": ("exclude", "")}
    again = Review(audit)
    assert len(again.decided) == 3
    again.decide(find(again, "moved.jpg"), "keep")
    assert corrections(audit) == {"copy.jpg": ("exclude", "")}
    assert again.undo() == find(again, "moved.jpg")
    assert corrections(audit)["moved.jpg"] == ("relabel", "blue")
    while again.undo():
        pass
    assert corrections(audit) == {}
    assert Review(audit).describe()["decided"] == 0


@pytest.mark.parametrize(
    ("action", "label", "text"),
    [
        ("delete", "", "unknown action 'delete'"),
        ("relabel", "", "'' is not another class"),
        ("relabel", "dog", "'dog' is not another class"),
        ("relabel", "red", "'red' is not another class"),
    ],
)
def test_decisions_that_are_refused(audit: Path, action: str, label: str, text: str) -> None:
    review = Review(audit)
    before = (audit / "corrections.csv").read_bytes()
    with pytest.raises(UsageError, match=text):
        review.decide(find(review, "moved.jpg"), action, label)
    with pytest.raises(UsageError, match="no finding about this image"):
        review.decide("/etc/passwd", "exclude")
    assert (audit / "corrections.csv").read_bytes() == before


def test_two_reviewers(audit: Path) -> None:
    with lock_review(audit), pytest.raises(UsageError, match="another `finetune review` is open for this audit"):
        lock_review(audit)
    lock_review(audit).release()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("images.csv", None, UsageError),
        ("images.csv", "path,split\n", DataError),
        ("images.csv", "path,split\na,b,c\n", DataError),
        ("audit.json", None, DataError),
        ("audit.json", "{}", DataError),
        ("audit.json", "[", DataError),
        ("review.json", "{}", DataError),
        ("review.json", '{"decisions": [{"path": "a", "action": "eat", "label": ""}]}', DataError),
    ],
)
def test_damaged_files(audit: Path, name: str, content: str | None, error: type[Exception]) -> None:
    if content is None:
        (audit / name).unlink()
    else:
        (audit / name).write_text(content)
    with pytest.raises(error, match=name if error is DataError else "this is not an audit"):
        Review(audit)


def test_decisions_about_other_images_are_left_out(audit: Path) -> None:
    lines: list[dict[str, Any]] = [{"path": "gone.jpg", "action": "exclude", "label": ""}]
    (audit / "review.json").write_text(json.dumps({"version": 1, "decisions": lines}))
    assert Review(audit).decided == {}


def test_a_folder_that_is_no_audit(tmp_path: Path) -> None:
    assert main(["review", str(tmp_path / "nowhere")]) == 2
    assert main(["review", str(tmp_path)]) == 2


def test_an_edited_file_of_corrections_is_not_overwritten(audit: Path) -> None:
    file = audit / "corrections.csv"
    before = file.read_text()
    file.write_text(before + "mine.jpg,exclude,\n")
    with pytest.raises(UsageError, match=r"corrections.csv was edited, and a decision would overwrite it"):
        Review(audit)
    file.write_text(before)
    review = Review(audit)
    review.decide(find(review, "copy.jpg"), "exclude")
    file.write_text(before)
    with pytest.raises(UsageError, match="was edited"):
        Review(audit)
    file.unlink()
    assert len(Review(audit).decided) == 1


def test_a_decision_that_cannot_be_stored_is_not_made(audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    review = Review(audit)

    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("finetune.files.atomic.write_json", refuse)
    with pytest.raises(OSError, match="no space"):
        review.decide(find(review, "copy.jpg"), "exclude")
    assert review.decided == {}


def test_a_wrong_folder_gets_no_lock(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is not an audit"):
        lock_review(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_images_without_files_are_stored_for_the_review(tmp_path: Path) -> None:
    import numpy as np

    from finetune import Dataset, Finetuner, Samples

    rng = np.random.default_rng(0)
    colours = np.array([[200, 40, 40], [40, 180, 60], [40, 70, 210]])
    labels = [number % 3 for number in range(45)]
    shown = [*labels[:-2], (labels[-2] + 1) % 3, (labels[-1] + 1) % 3]
    images = [np.clip(colours[c] + rng.normal(0, 30, (40, 40, 3)), 0, 255).astype(np.uint8) for c in shown]
    samples = Samples(images=images, labels=labels, classes=("red", "green", "blue"))
    data = Dataset(name="arrays", build=lambda options, split: samples if split == "train" else None)
    ft = Finetuner("resnext_nano", image={"size": 32, "resize": 32}, device="cpu", progress=False, output=tmp_path)
    folder = Path(ft.audit(data)["folder"])
    review = Review(folder)
    wrong = [item for item in review.items if "wrong label" in item.kinds]
    assert wrong
    for item in wrong:
        for number in (item.image, *item.neighbours):
            assert (folder / "images" / f"{number}.jpg").is_file()
        assert (folder / "maps" / f"{item.image}.jpg").is_file()
