"""``report.html`` of runs: what it says, that nothing in it is markup, that it loads nothing, and how large it is."""

from __future__ import annotations

import csv
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune import Callback, Dataset, Finetuner, Run, Samples, hookimpl
from finetune.cli import main
from finetune.model.predictions import HEADER
from finetune.report.records import read_records
from finetune.report.run import render_report
from tests.browser import is_too_wide, needs_browser, open_page
from tests.drawn import folder
from tests.finetuner.small import NANO, tiny_finetuner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = "<script>alert(1)</script>"


class Sections:
    """A plugin that offers a callback."""

    @hookimpl
    def finetune_callbacks(self) -> Iterator[Callback]:
        yield Callback(name="sections", build=lambda options: Adding())


class Adding:
    """A callback that adds a section in every epoch."""

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int) -> None:
        run.add_section("Mine", f"epoch {epoch} & <more>", [["a", "<b>"]])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Finetuner:
    """Return a run with a class that is called like a script."""
    photos = folder(tmp_path_factory.mktemp("photos"), each=12)
    (photos / "red").rename(photos / SCRIPT.replace("/", "∕"))
    ft = Finetuner(**NANO, freeze="none", output=tmp_path_factory.mktemp("runs"), plugins=[Sections()])
    ft.fit(photos, epochs=2, validate={"folds": "off"}, callbacks=[{"use": "sections"}])
    return ft


@pytest.fixture(scope="module")
def page(fitted: Finetuner) -> str:
    assert fitted.run is not None
    return (fitted.run.folder / "report.html").read_text()


def test_a_run_writes_its_report(fitted: Finetuner, page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", page)
    assert "of 7 images that it was not trained on" in text
    for title in ("Data", "Training", "Results on 7 validation images", "Confusion", "Photos", "Calibration", "Repeat"):
        assert title in text
    assert "epochs 1 to 2" in text
    assert "no stage was frozen" in text
    assert page.count("<svg") == 4
    assert page.count("data:image/jpeg") >= 6


def test_everything_is_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "epoch 2 &amp; &lt;more&gt;" in page
    assert "<td>&lt;b&gt;</td>" in page
    assert "epoch 1 &amp;" not in page


def test_it_loads_nothing(page: str) -> None:
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) == []
    assert "default-src 'none'" in page


def test_the_command_writes_it_again(fitted: Finetuner, page: str, tmp_path: Path) -> None:
    assert fitted.run is not None
    assert main(["report", str(fitted.run.folder), "--output", str(tmp_path / "again.html")]) == 0
    again = (tmp_path / "again.html").read_text()
    assert re.sub(r"data:image[^\"]+", "", again) == re.sub(r"data:image[^\"]+", "", page)
    assert main(["report", str(tmp_path)]) == 2


def test_a_frozen_trunk_is_proved(tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path / "runs", freeze="head")
    run = ft.fit(folder(tmp_path / "photos", each=5), epochs=1)
    assert re.search(r"the digests of \d+ frozen arrays were equal", (run.folder / "report.html").read_text())


def test_images_without_files_are_shown(tmp_path: Path) -> None:
    pixels = list(np.random.default_rng(0).integers(0, 256, (30, 20, 20, 3)).astype(np.uint8))
    labels = [i % 3 for i in range(30)]
    samples = Samples(images=pixels, labels=labels, classes=("a", "b", "c"))
    data = Dataset(name="arrays", build=lambda options, split: samples if split == "train" else None)
    run = tiny_finetuner(tmp_path, freeze="none").fit(data, epochs=1, validate={"folds": "off"})
    assert "data:image/jpeg" in (run.folder / "report.html").read_text()


def test_an_unfinished_run(fitted: Finetuner, tmp_path: Path) -> None:
    assert fitted.run is not None
    copy = shutil.copytree(fitted.run.folder, tmp_path / "copy")
    for name in ("result.json", "predictions.csv"):
        (copy / name).unlink()
    shutil.rmtree(copy / "model")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "phase": 1, "trainable": ["head"], "train_loss": NaN}\n{"epo')
    text = render_report(read_records(copy))
    assert "The run is not finished." in text
    assert "Results on" not in text
    (copy / "metrics.jsonl").write_text("")
    assert "No epoch is recorded." in render_report(read_records(copy))


@pytest.mark.parametrize("damaged", ["result.json", "data.json", "environment.json", "weights.json", "predictions.csv"])
def test_a_damaged_record_does_not_hide_the_rest(fitted: Finetuner, tmp_path: Path, damaged: str) -> None:
    assert fitted.run is not None
    copy = shutil.copytree(fitted.run.folder, tmp_path / "copy")
    (copy / damaged).write_bytes(b"\xff[")
    assert "Repeat this run" in render_report(read_records(copy))


def test_photos_that_are_gone(fitted: Finetuner, tmp_path: Path) -> None:
    assert fitted.run is not None
    copy = shutil.copytree(fitted.run.folder, tmp_path / "copy")
    text = (copy / "predictions.csv").read_text()
    (copy / "predictions.csv").write_text(re.sub(r'^"/[^"]*/', '"/nowhere/', text, flags=re.M))
    assert "data:image/jpeg" not in render_report(read_records(copy))


def write_large(top: Path, classes: int, each: int) -> Path:
    """Write the records of a run with many classes, of which the worst photos exist."""
    (top / "model").mkdir(parents=True)
    names = [f"class {number:04d}" for number in range(classes)]
    (top / "recipe.yaml").write_text("name: large\n")
    (top / "result.json").write_text(json.dumps({"seconds": 10.0, "warnings": []}))
    (top / "model" / "model.json").write_text(json.dumps({"classes": names, "metrics": {}}))
    rng = np.random.default_rng(0)
    photo = top / "photo.jpg"
    Image.fromarray(rng.integers(0, 256, (300, 300, 3)).astype(np.uint8)).save(photo)
    with (top / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number in range(classes * each):
            label = number % classes
            guess = label if rng.random() < 0.8 else int(rng.integers(classes))
            row = [str(photo), "test", names[label], names[guess], round(rng.random(), 4), 0.1, names[0], ""]
            writer.writerow(row)
    return top


@pytest.mark.parametrize(("classes", "most"), [(102, 5), (1000, 10)])
def test_it_stays_small_with_many_classes(tmp_path: Path, classes: int, most: int) -> None:
    text = render_report(read_records(write_large(tmp_path / "run", classes, 8)))
    assert len(text.encode()) < most * 1e6
    assert text.count("data:image/png") == 1


@needs_browser
@pytest.mark.parametrize(("dark", "width"), [(False, 1100), (True, 390)])
def test_a_browser_shows_it(page: str, tmp_path: Path, dark: bool, width: int) -> None:
    (tmp_path / "report.html").write_text(page)
    with open_page(width=width, dark=dark) as (shown, seen):
        shown.goto(f"file://{tmp_path}/report.html")
        first = [row.inner_text() for row in shown.locator("table.sortable tbody tr td:first-child").all()]
        shown.get_by_role("button", name="recall").click()
        shown.get_by_role("button", name="class").click()
        shown.get_by_role("button", name="class").click()
        assert [row.inner_text() for row in shown.locator("table.sortable tbody tr td:first-child").all()] == first[
            ::-1
        ]
        assert not is_too_wide(shown)
        assert all(image.get_attribute("alt") for image in shown.locator("img").all())
        assert shown.pdf()[:5] == b"%PDF-"
    assert seen.messages == []
    assert seen.hosts <= {"file:", "data:"}


@needs_browser
def test_a_thousand_classes_are_shown(tmp_path: Path) -> None:
    (tmp_path / "large.html").write_text(render_report(read_records(write_large(tmp_path / "run", 1000, 3))))
    with open_page() as (shown, seen):
        shown.goto(f"file://{tmp_path}/large.html")
        assert shown.locator("table.sortable tbody tr").count() == 1000
    assert seen.messages == []


def test_an_audit_page_in_a_folder_of_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", each=6)
    shutil.copy(tmp_path / "photos/red/00.jpg", tmp_path / "photos/blue/copy.jpg")
    words: list[Any] = ["audit", "photos", "backbone.use=resnext_nano", "image.size=32", "image.resize=36"]
    assert main(words) == 0
    text = (tmp_path / "runs/audit-001/audit.html").read_text()
    assert "Contradictions" in text
    assert re.search("finetune review .*/audit-001", text)
    assert text.count("data:image/jpeg") >= 2
