"""Checks from plugins: what they see, what they may return, and where their findings appear."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Audit, AuditedImages, Finetuner, ImageFinding, PluginError, hookimpl
from finetune.testing import ContractError, check_audit
from tests.drawn import folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NANO: dict[str, Any] = {
    **{"backbone": "resnext_nano", "image": {"size": 32, "resize": 36}},
    **{"device": "cpu", "progress": False, "runner": {"mode": "pynative"}},
}


class Offer:
    """A plugin with one check."""

    def __init__(self, check: Callable[[AuditedImages], object]) -> None:
        self.check = check

    @hookimpl
    def finetune_audits(self) -> Iterator[Audit]:
        yield Audit(name="mine", build=lambda options: self.check)  # type: ignore[arg-type,return-value]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"), each=5)


def run_audit(photos: Path, output: Path, check: Callable[[AuditedImages], object], **more: Any) -> dict[str, Any]:
    ft = Finetuner(**NANO, output=output, plugins=[Offer(check)], audit=[{"use": "mine"}], **more)
    return ft.audit(photos)


def read(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {Path(row["path"]).parent.name + "/" + Path(row["path"]).name: row for row in csv.DictReader(file)}


def test_findings_are_listed_and_proposed(photos: Path, tmp_path: Path) -> None:
    def check(images: AuditedImages) -> Iterator[ImageFinding]:
        assert images.features.shape == (len(images), 512)
        assert images.classes == ("blue", "green", "red")
        assert {images.classes[label] for label in images.labels} == set(images.classes)
        for index, path in enumerate(images.paths):
            assert images.read(index).shape == (40, 40, 3)
            if path.endswith("01.jpg"):
                yield ImageFinding(image=index, text="has a <watermark>", exclude="red" in path)
            if path.endswith("green/02.jpg"):
                yield ImageFinding(image=index, text="is blue", relabel="blue")

    report = run_audit(photos, tmp_path, check)
    top = Path(report["folder"])
    assert report["found"]["checks"] == {"mine": 4}
    images = read(top / "images.csv")
    assert "mine: has a <watermark>" in images["red/01.jpg"]["reasons"]
    corrections = read(top / "corrections.csv")
    assert corrections["red/01.jpg"]["action"] == "exclude"
    assert (corrections["green/02.jpg"]["action"], corrections["green/02.jpg"]["label"]) == ("relabel", "blue")
    assert "green/01.jpg" not in corrections
    page = (top / "audit.html").read_text()
    assert "has a &lt;watermark&gt;" in page
    assert "Found by the check &#39;mine&#39;" in page


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        ("a string", "returned 'a string', which is not a finding; yield finetune.ImageFinding"),
        (ImageFinding(image=99, text="x"), "returned a finding about image 99 of 15"),
        (ImageFinding(image=0, text="x", relabel="dog"), "relabels an image as 'dog', which is not a class"),
    ],
)
def test_wrong_findings_name_the_plugin(photos: Path, tmp_path: Path, finding: object, text: str) -> None:
    with pytest.raises(PluginError, match=f"the check of audit 'mine'.*{text}"):
        run_audit(photos, tmp_path, lambda images: [finding])


def test_a_check_that_fails_names_the_plugin(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"the check of audit 'mine'.*ZeroDivisionError"):
        run_audit(photos, tmp_path, lambda images: [1 // 0])


def test_a_recipe_without_checks_does_not_mention_them(photos: Path, tmp_path: Path) -> None:
    ft = Finetuner(**NANO, output=tmp_path)
    run = ft.fit(photos, epochs=0)
    assert "audit" not in (run.folder / "recipe.yaml").read_text()
    report = json.loads((Path(ft.audit(photos)["folder"]) / "audit.json").read_text())
    assert report["found"]["checks"] == {}


def test_the_bundled_check_keeps_its_contract() -> None:
    check_audit("small_images")
    check_audit("small_images", {"least": 40, "exclude": True})


def broken(check: Callable[[AuditedImages], object]) -> Audit:
    return Audit(name="bad", build=lambda options: check)  # type: ignore[arg-type,return-value]


def change(images: AuditedImages) -> list[ImageFinding]:
    images.features[:] = 0
    return []


def few(images: AuditedImages) -> list[ImageFinding]:
    return [ImageFinding(image=3, text=images.paths[3])]


class Counting:
    """A check that remembers how often it was called."""

    calls = 0

    def __call__(self, images: AuditedImages) -> list[ImageFinding]:
        self.calls += 1
        return [ImageFinding(image=0, text=str(self.calls))]


@pytest.mark.parametrize(
    ("check", "rule"),
    [
        (lambda images: ["x"], "findings"),
        (lambda images: [ImageFinding(image=8, text="x")], "findings"),
        (lambda images: [ImageFinding(image=0, text="x", relabel="x")], "findings"),
        (lambda images: [1 // 0], "findings"),
        (change, "images"),
        (few, "few"),
        (Counting(), "repeat"),
        (3, "build"),
    ],
)
def test_broken_checks_break_their_rule(check: Any, rule: str) -> None:
    with pytest.raises(ContractError) as found:
        check_audit(broken(check))
    assert [name for name, _ in found.value.broken] == [rule]
