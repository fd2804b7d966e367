"""New plugins and recipes: what is written works as it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune import hookimpl, plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.components import Backbone
from finetune.errors import DataError, UsageError
from finetune.new import plugin
from finetune.new import recipe as looking
from finetune.new import recipe as recipes
from finetune.recipe import plan as plans
from finetune.training.prepare import plan_phases
from tests.cli.calling import environment
from tests.clocks import LONGEST
from tests.drawn import folder

pytestmark = pytest.mark.once

KINDS = list(plugin.DRAFTS)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue) -> dict[str, Path]:
    """Return a new package of each kind, beside what an installation would write of it."""
    top = tmp_path_factory.mktemp("packages")
    found = {kind: plugin.write_package(f"my-{kind}", kind, top, catalogue) for kind in KINDS}
    for kind, package in found.items():
        about = package / f"finetune_my_{kind}-0.1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: finetune-my-{kind}\nVersion: 0.1.0\n")
        (about / "entry_points.txt").write_text(f"[finetune]\nmy-{kind} = finetune_my_{kind}\n")
    return found


def with_packages(packages: dict[str, Path], repo: Path) -> dict[str, str]:
    env = environment(repo)
    paths = [*map(str, packages.values()), env.get("PYTHONPATH", "")]
    return {**env, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def test_the_tests_of_new_packages_pass(packages: dict[str, Path], repo: Path, tmp_path: Path) -> None:
    tests = [str(package / "tests") for package in packages.values()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *tests]
    env = with_packages(packages, repo)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout


def test_new_packages_are_listed_and_shown(packages: dict[str, Path], repo: Path, tmp_path: Path) -> None:
    env = with_packages(packages, repo)
    command = [sys.executable, "-m", "finetune", "plugins"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, done.stderr
    for kind in KINDS:
        assert f"my-{kind}" in done.stdout


@pytest.mark.checkout
@pytest.mark.parametrize("kind", KINDS)
def test_new_packages_keep_their_own_rules(kind: str, packages: dict[str, Path], tmp_path: Path) -> None:
    package = shutil.copytree(packages[kind], tmp_path / "package", ignore=shutil.ignore_patterns("*.dist-info"))
    for check in (["ruff", "check", "--no-cache", "."], ["ruff", "format", "--no-cache", "--check", "."]):
        done = subprocess.run([sys.executable, "-m", *check], cwd=package, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.checkout
@pytest.mark.parametrize("kind", KINDS)
def test_new_packages_are_typed(kind: str, packages: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "mypy"]
    done = subprocess.run(command, cwd=packages[kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("Birds", "dataset", "'Birds' is not a valid plugin name; use lower-case letters, digits and '-'"),
        ("class", "dataset", "'class' is a keyword of Python; choose a different"),
        ("../x", "dataset", "is not a valid plugin name"),
        ("folder", "dataset", r"plugin 'folder' \(mindspore-finetune .*\) already offers a dataset named 'folder'"),
        ("birds", "datset", "no kind of plugin named 'datset'; did you mean 'dataset'?"),
    ],
)
def test_names_that_cannot_be(name: str, kind: str, told: str, catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told.replace("?", r"\?")):
        plugin.write_package(name, kind, tmp_path, catalogue)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(catalogue: Catalogue, tmp_path: Path) -> None:
    plugin.write_package("birds", "dataset", tmp_path, catalogue)
    with pytest.raises(UsageError, match="finetune-birds already exists; choose a different name or --output"):
        plugin.write_package("birds", "freezer", tmp_path, catalogue)
    assert [path.name for path in tmp_path.iterdir()] == ["finetune-birds"]


def test_a_recipe_for_photos_passes_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "my photos")
    assert main(["new", "recipe", "my photos"]) == 0
    text = (tmp_path / "my photos.yaml").read_text()
    assert 'root: "my photos"' in text
    assert main(["check", "my photos.yaml", "backbone={use: resnext_nano, weights: none}", "freeze={use: head}"]) == 0
    assert main(["new", "recipe", "my photos"]) == 0  # nobody changed it
    (tmp_path / "my photos.yaml").write_text(f"# Mine.\n{text}")
    assert main(["new", "recipe", "my photos"]) == 2
    assert main(["new", "recipe", "my photos", "--force"]) == 0


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("resnext50", ["backbone: {use: resnext50, weights: auto}", "freeze: {use: stages, train: [last]}"]),
        ("resnext_nano", ["backbone: {use: resnext_nano, weights: auto}", "'fractals'"]),
        ("bare", ["backbone: {use: bare, weights: none}", "offers no weights", "freeze: {use: none}"]),
    ],
)
def test_recipes_for_any_backbone(backbone: str, said: list[str]) -> None:
    catalogue = with_bare_backbone()
    text = recipes.render_recipe(seen(), Path("/data"), catalogue.get(Backbone, backbone))
    for each in said:
        assert each in text
    found = plans.load_plan(values_of(text), [], catalogue)
    assert plan_phases(found)[-1].trainable[-1] == "head"


def with_bare_backbone() -> Catalogue:
    """Return a catalogue with a backbone that offers no weights and has one stage."""

    class Plugin:
        @hookimpl
        def finetune_backbones(self) -> list[Backbone]:
            return [Backbone(name="bare", build=lambda options: {}, stages=("only",), features=8)]

    loaded = plugins.load_plugins()
    loaded.register(Plugin(), plugins.Origin(name="bare", distribution="bare", version="1"))
    return Catalogue(loaded)


def test_the_backbone_of_a_new_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", each=3)
    assert main(["new", "recipe", "photos", "--backbone", "resnext_nano"]) == 0
    assert "backbone: {use: resnext_nano, weights: auto}" in (tmp_path / "photos.yaml").read_text()
    assert "downloads" not in capsys.readouterr().out
    assert main(["new", "recipe", "photos", "--output", "other.yaml", "--backbone", "resnext_nan"]) == 2
    assert "no backbone named 'resnext_nan'; did you mean 'resnext_nano'?" in capsys.readouterr().err
    assert not (tmp_path / "other.yaml").exists()


def test_characters_that_no_comment_may_have(catalogue: Catalogue) -> None:
    more = {"counts": {"a\x1b[31m\nb": 100, "b\x00": 90}, "findings": ("x\x07y",)}
    text = recipes.render_recipe(seen(**more), Path("/data"), catalogue.get(Backbone, "resnext50"))
    assert values_of(text)["freeze"] == {"use": "stages", "train": ["last"]}


def seen(**more: object) -> looking.PhotoFacts:
    said = {
        "section": {"use": "folder", "root": "/data/photos"},
        "counts": {"red": 100, "blue": 90},
        "splits": {"train": 190},
        "sides": (200, 300, 400),
        "sampled": 190,
        "unreadable": (),
    }
    return looking.PhotoFacts(**{**said, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["split: 0.3", "freeze: {use: stages, train: [last]}"]),
        ({"splits": {"train": 190, "valid": 20}}, ["dataset: {use: folder, root: photos}", ", 20 valid"]),
        ({"counts": {"a": 9, "b": 5}}, ["freeze: {use: head}", "out of folds", "dataset: {use: folder, root: photos}"]),
        ({"counts": {"a": 30, "b": 29}}, ["freeze: {use: head}", "# 30 photos per class"]),
        ({"counts": {"a": 30, "b": 30}}, ["freeze: {use: stages, train: [last]}", "split: 0.3"]),
        ({"counts": {"a": 2000, "b": 1000}}, ["freeze: {use: stages, train: [last]}", "split: 0.2"]),
        (
            {"counts": {"a": 400, "b": 40}},
            ["# Some classes have 10 times as many photos", "`loss: {class_weights: auto}`"],
        ),
        ({"sides": (28, 32, 40)}, ["image: {size: 64, resize: 73}", "12 times as fast"]),
        ({"unreadable": ("x",)}, ["# Damaged   1 of 191 photos", "on_bad_image: skip"]),
    ],
)
def test_what_was_seen_decides(more: dict[str, object], expected: list[str], catalogue: Catalogue) -> None:
    text = recipes.render_recipe(seen(**more), Path("/data"), catalogue.get(Backbone, "resnext50"))
    for each in expected:
        assert each in text
    plan = plans.load_plan(values_of(text), [], catalogue)
    assert plan.recipe.dataset.use == "folder"
    said = ("head", "loss", "optimizer", "schedule", "train", "validate", "evaluate", "augment", "callbacks")
    assert {*values_of(text)}.isdisjoint(said), "a run chooses these"


@pytest.mark.parametrize(
    ("counts", "pretrained", "expected"),
    [
        ({"a": 50, "b": 10}, True, 0),  # five times is not unbalanced
        ({"a": 51, "b": 10}, True, 3),
        ({"a": 51, "b": 10}, False, 2),
    ],
)
def test_classes_of_different_sizes_need_only_a_comment(
    counts: dict[str, int], pretrained: bool, expected: int
) -> None:
    lines = recipes.render_balance(seen(counts=counts), pretrained=pretrained)
    assert len(lines) == expected
    assert all(line.startswith("# ") and len(line) <= 120 for line in lines)
    assert ("out of fold" in " ".join(lines)) == (pretrained and expected > 0)


def test_a_head_that_is_fitted_is_judged_by_all_photos(catalogue: Catalogue) -> None:
    few = recipes.render_recipe(seen(counts={"a": 9, "b": 5}), Path("/data"), catalogue.get(Backbone, "resnext50"))
    assert "split" not in values_of(few)["dataset"]  # type: ignore[operator]
    more = recipes.render_recipe(seen(), Path("/data"), catalogue.get(Backbone, "resnext50"))
    assert values_of(more)["dataset"]["split"] == 0.3  # type: ignore[index]


def values_of(text: str) -> dict[str, object]:
    from ruamel.yaml import YAML

    found: dict[str, object] = YAML(typ="safe", pure=True).load(text)
    return found


def test_photos_that_make_no_recipe(tmp_path: Path, catalogue: Catalogue) -> None:
    (tmp_path / "red").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "red" / "1.png")
    with pytest.raises(DataError, match="only one class, 'red'; create a folder for each class"):
        looking.look_at_photos(tmp_path, catalogue)
    with pytest.raises(DataError, match="no data at"):
        looking.look_at_photos(tmp_path / "gone", catalogue)
