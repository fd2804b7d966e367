"""Deprecated keys of a recipe: accepted, reported, and never together with the new name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune import Finetuner, plugins
from finetune.catalogue import Catalogue
from finetune.errors import RecipeError
from finetune.recipe import plan as plans
from finetune.training import older

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "backbone: {use: resnext_nano}\ndataset: {use: shapes}\n"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


def test_an_old_key_in_a_file_means_the_new_one(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(f"{SMALL}trunk: {{engine: mindspore}}\n")
    plan = plans.load_plan(file, [], catalogue)
    assert plan.recipe.inference.engine == "mindspore"
    assert plan.notes[0] == f"{file}:3:1: trunk: deprecated key; write 'inference'"
    assert "inference:\n  engine: mindspore" in plans.dump_plan(plan)
    assert "trunk" not in plans.dump_plan(plan)


def test_a_new_key_is_not_reported(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(f"{SMALL}inference: {{engine: mindspore}}\n")
    assert not [note for note in plans.load_plan(file, [], catalogue).notes if "deprecated" in note]


def test_an_old_key_in_an_override(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(f"{SMALL}inference: {{engine: mindspore}}\n")
    plan = plans.load_plan(file, ["trunk.precision=fp32"], catalogue)
    assert (plan.recipe.inference.engine, plan.recipe.inference.precision) == ("mindspore", "fp32")
    assert plan.notes[0] == "override 'trunk.precision=fp32': deprecated key; write 'inference'"
    assert plans.load_plan(file, ["~trunk"], catalogue).recipe.inference.engine == "auto"


def test_both_names_are_a_mistake(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "both.yaml"
    file.write_text(f"{SMALL}trunk: {{engine: mindspore}}\ninference: {{engine: auto}}\n")
    with pytest.raises(RecipeError, match=r":3:1: trunk: deprecated name of 'inference', .* remove 'trunk'"):
        plans.load_plan(file, [], catalogue)


def test_a_base_with_the_old_key(tmp_path: Path, catalogue: Catalogue) -> None:
    (tmp_path / "base.yaml").write_text(f"{SMALL}trunk: {{engine: mindspore}}\n")
    own = tmp_path / "own.yaml"
    own.write_text("extends: base.yaml\ninference: {precision: fp32}\n")
    plan = plans.load_plan(own, [], catalogue)
    assert (plan.recipe.inference.engine, plan.recipe.inference.precision) == ("mindspore", "fp32")
    assert "base.yaml:3:1: trunk: deprecated key" in plan.notes[0]


def test_an_old_key_with_a_wrong_value_is_reported_by_its_place(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"{SMALL}trunk: {{engine: tensorflow}}\n")
    with pytest.raises(RecipeError, match=r"wrong.yaml:3:9: inference.engine: .*tensorflow"):
        plans.load_plan(file, [], catalogue)


def test_a_keyword_in_python(catalogue: Catalogue) -> None:
    sections: dict[str, Any] = {"trunk": {"engine": "mindspore"}}
    with pytest.warns(DeprecationWarning, match="'trunk' is deprecated; write 'inference'"):
        finetuner = Finetuner("resnext_nano", progress=False, **sections)
    assert finetuner.sections["inference"] == {"engine": "mindspore"}
    assert finetuner.sections == Finetuner("resnext_nano", progress=False, inference={"engine": "mindspore"}).sections
    recipe = {"dataset": {"use": "shapes"}, "backbone": {"use": "resnext_nano"}, **finetuner.sections}
    assert plans.load_plan(recipe, [], catalogue).recipe.inference.engine == "mindspore"


def test_a_recorded_recipe_is_read_with_the_new_key() -> None:
    state = {"recipe": {"trunk": {"engine": "auto"}, "image": {"size": 96}, "head": {"use": "linear"}}}
    completed = older.complete_state(state)["recipe"]
    assert completed["inference"] == {"engine": "auto"}
    assert "trunk" not in completed
    assert "trunk" in state["recipe"]
