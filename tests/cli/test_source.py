"""Which recipe and which run the words of a command line mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import source
from finetune.cli.source import RecipeArguments
from finetune.errors import UsageError
from finetune.recipe import bundled


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


@pytest.mark.parametrize(
    ("words", "recipe", "changes"),
    [
        (None, None, ()),
        ([], None, ()),
        (["mine.yaml"], "mine.yaml", ()),
        (["mine.yaml", "train.epochs=2", "~augment"], "mine.yaml", ("train.epochs=2", "~augment")),
        (["train.epochs=2", "name=x"], None, ("train.epochs=2", "name=x")),
        (["augment[0].preset=light"], None, ("augment[0].preset=light",)),
        (["~augment"], None, ("~augment",)),
        (["~/mine.yaml", "a=b"], "~/mine.yaml", ("a=b",)),
        (["-", "a=b"], "-", ("a=b",)),
        (["runs/a=b/recipe.yaml"], "runs/a=b/recipe.yaml", ()),
    ],
)
def test_the_recipe_is_told_from_the_changes(
    words: list[str] | None, recipe: str | None, changes: tuple[str, ...]
) -> None:
    assert source.parse_words(words) == RecipeArguments(recipe=recipe, changes=changes)


def test_a_file_may_have_a_name_like_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=1.yaml").touch()
    assert source.parse_words(["lr=1.yaml"]).recipe == "lr=1.yaml"


def test_a_file_goes_before_a_bundled_recipe_and_that_before_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(source.find_source("quickstart"), dict)
    Path("quickstart").mkdir()
    assert isinstance(source.find_source("quickstart"), dict)
    Path("quickstart").rmdir()
    Path("quickstart").touch()
    assert source.find_source("quickstart") == Path("quickstart")


def test_paths_of_a_bundled_recipe_start_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue
) -> None:
    (tmp_path / "bundled").mkdir()
    recipe = tmp_path / "bundled" / "mine.yaml"
    recipe.write_text("dataset: {use: folder, root: photos}\noutput: results\n")
    monkeypatch.setattr(bundled, "list_recipes", lambda: {"mine": recipe})
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    plan = source.parse_words(["mine"]).plan(catalogue)
    assert (plan.recipe.name, plan.recipe.output) == ("mine", here / "results")
    assert source.parse_words(["mine"]).plan(catalogue, output=Path("1")).recipe.output == here / "1"
    as_file = source.parse_words([str(recipe)]).plan(catalogue)
    assert as_file.recipe.output == tmp_path / "bundled" / "results"


def run_folder(path: Path, *, checkpoint: bool = False, finished: bool = False) -> Path:
    (path / "checkpoints").mkdir(parents=True)
    (path / "recipe.yaml").write_text("dataset: {use: folder, root: /photos}\n")
    if checkpoint:
        (path / "checkpoints" / "step-1.safetensors").touch()
    if finished:
        (path / "result.json").write_text("{}")
    return path


def test_auto_means_the_newest_run_that_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("dataset: {use: folder, root: photos}\n")
    asked = source.parse_words(["mine.yaml"])

    def resumed(**more: Path) -> Path | None:
        return source.find_run_to_resume("auto", asked, catalogue, more.get("output"))

    assert resumed() is None
    second = run_folder(tmp_path / "runs" / "mine-002", checkpoint=True)
    run_folder(tmp_path / "runs" / "mine-001", finished=True)
    run_folder(tmp_path / "runs" / "mine-0x9", checkpoint=True)
    run_folder(tmp_path / "runs" / "mine-other-009", checkpoint=True)
    run_folder(tmp_path / "runs" / "mine-003")
    assert resumed() == second
    tenth = run_folder(tmp_path / "runs" / "mine-1000", finished=True)
    assert resumed() == tenth
    assert resumed(output=tmp_path / "elsewhere") is None


def test_a_run_to_resume_must_be_one(tmp_path: Path, catalogue: Catalogue) -> None:
    folder = run_folder(tmp_path / "x-001")
    asked = source.parse_words(["train.epochs=3"])
    assert source.find_run_to_resume(str(folder), asked, catalogue, None) == folder
    assert asked.plan(catalogue, folder=folder).recipe.train.epochs == 3
    assert source.find_run_to_resume(None, asked, catalogue, None) is None
    with pytest.raises(UsageError, match="it has no recipe"):
        source.find_run_to_resume(str(tmp_path), asked, catalogue, None)
