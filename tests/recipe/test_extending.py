"""``extends``: what a recipe takes from another, where its paths start, and what comes out complete."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.errors import RecipeError
from finetune.recipe import bundled, extending
from finetune.recipe.plan import Plan, dump_plan, load_plan
from finetune.recipe.schema import build_json_schema

pytestmark = pytest.mark.once

BASE = """\
name: base
backbone: {use: resnext_nano, weights: none}
dataset: {use: folder, root: photos, split: 0.25}
augment: [{use: albumentations, preset: light}]
freeze: {use: gradual, schedule: {1: head, 4: layer4}, batch_norm: frozen}
optimizer: {lr: 2e-3, betas: [0.8, 0.9]}
train: {epochs: 6, clip_norm: 1.0}
runner: {device: ascend, memory_gb: 30, amp: O2}
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with ``sub/base.yaml``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.yaml").write_text(BASE)
    return tmp_path.resolve()


def extended(catalogue: Catalogue, text: str, *overrides: str, base: str = "sub/base.yaml") -> Plan:
    Path("mine.yaml").write_text(f"extends: {base}\n{text}")
    return load_plan(Path("mine.yaml"), overrides, catalogue)


def refused(catalogue: Catalogue, file: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as error:
        load_plan(Path(file), overrides, catalogue)
    return error.value.mistakes


def test_sections_are_merged_key_by_key(catalogue: Catalogue) -> None:
    recipe = extended(catalogue, "train: {epochs: 4, ema: 0.9}\nseed: 7\nfreeze: {schedule: {1: all}}").recipe
    assert (recipe.train.epochs, recipe.train.clip_norm, recipe.train.ema, recipe.seed) == (4, 1.0, 0.9, 7)
    assert recipe.dataset.split == 0.25
    assert (recipe.freeze.batch_norm, recipe.freeze.given) == ("frozen", {"schedule": {"1": "all"}})


def test_lists_are_replaced(catalogue: Catalogue) -> None:
    assert [dict(each.given)["preset"] for each in extended(catalogue, "seed: 1").recipe.augment] == ["light"]
    assert extended(catalogue, "augment: []\ncallbacks: [{use: checkpoint}]").recipe.augment == ()


@pytest.mark.parametrize("text", ["freeze: {use: head}", "freeze: {use: stages, train: [layer4]}"])
def test_another_component_leaves_the_options_of_the_base_behind(catalogue: Catalogue, text: str) -> None:
    recipe = extended(catalogue, text).recipe
    assert "schedule" not in recipe.freeze.given
    assert recipe.freeze.batch_norm == "frozen", "a key of the engine, whatever is used"


def test_the_same_component_keeps_them(catalogue: Catalogue) -> None:
    text = "freeze: {use: gradual}\noptimizer: {use: adamw, lr: 1e-4}\nrunner: {device: ascend}"
    recipe = extended(catalogue, text).recipe
    assert recipe.freeze.given == {"schedule": {"1": "head", "4": "layer4"}}
    assert recipe.optimizer.model_dump()["betas"] == (0.8, 0.9), "adamw is what the base says by saying nothing"
    assert recipe.runner.model_dump()["memory_gb"] == 30


def test_so_do_sections_of_the_engine(catalogue: Catalogue) -> None:
    recipe = extended(catalogue, "optimizer: {use: sgd}\nrunner: {device: cpu, threads: 2}").recipe
    assert recipe.optimizer.model_dump() == {
        **dict(use="sgd", lr="auto", momentum=0.9, weight_decay=1e-4, layer_decay=1.0),
    }
    assert (recipe.runner.device, recipe.runner.amp, recipe.runner.model_dump()["threads"]) == ("cpu", "O2", 2)


def test_it_is_what_the_same_overrides_make(catalogue: Catalogue, folder: Path) -> None:
    text = "freeze: {use: stages, train: [layer4]}\ntrain: {epochs: 4}\nrunner: {device: cpu}\naugment: []"
    overrides = [
        *("freeze.use=stages", "freeze.train=[layer4]", "train.epochs=4", "runner.device=cpu", "augment=[]"),
        *("name=mine", f"output={folder}/runs"),
    ]
    assert extended(catalogue, text) == load_plan(Path("sub/base.yaml"), overrides, catalogue)


def test_overrides_come_last(catalogue: Catalogue) -> None:
    assert extended(catalogue, "train: {epochs: 4}", "train.epochs=2", "seed=3").recipe.train.epochs == 2
    assert refused(catalogue, "mine.yaml", "extends=flowers") == (
        "override 'extends=flowers': extends: cannot be set by an override; write 'extends' in a recipe file",
    )


def test_paths_start_where_they_are_written(catalogue: Catalogue, folder: Path) -> None:
    plan = extended(catalogue, "seed: 1")
    assert plan.recipe.dataset.given["root"] == str(folder / "sub" / "photos")
    assert plan.recipe.output == folder / "runs"
    plan = extended(catalogue, "dataset: {root: here}\noutput: out")
    assert (plan.recipe.dataset.given["root"], plan.recipe.output) == (str(folder / "here"), folder / "out")


def test_a_recipe_has_a_name_of_its_own(catalogue: Catalogue) -> None:
    assert extended(catalogue, "seed: 1").recipe.name == "mine"
    assert extended(catalogue, "name: other").recipe.name == "other"


def test_a_bundled_recipe_by_name_has_no_folder_of_its_own(catalogue: Catalogue, folder: Path) -> None:
    plan = extended(catalogue, "train: {epochs: 4}", base="folder")
    assert plan.recipe.dataset.given["root"] == str(folder / "photos")
    plan = load_plan({"extends": "folder", "dataset": {"root": "x"}}, [], catalogue)
    assert plan.recipe.dataset.given["root"] == str(folder / "x")


def test_standard_input_may_extend(catalogue: Catalogue, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"extends: sub/base.yaml\ntrain: {epoch: 4}")))
    with pytest.raises(RecipeError, match=r"^<stdin>:2:9: train.epoch: unknown key 'epoch'"):
        load_plan("-", [], catalogue)


def test_a_chain(catalogue: Catalogue, folder: Path) -> None:
    Path("sub/middle.yaml").write_text("extends: base.yaml\nseed: 5\ntrain: {epochs: 5}\ndataset: {root: middle}\n")
    recipe = extended(catalogue, "train: {batch_size: 4}", base="sub/middle.yaml").recipe
    assert (recipe.seed, recipe.train.epochs, recipe.train.batch_size, recipe.train.clip_norm) == (5, 5, 4, 1.0)
    assert recipe.dataset.given["root"] == str(folder / "sub" / "middle")


def test_mistakes_name_the_file_that_they_are_in(catalogue: Catalogue) -> None:
    Path("sub/middle.yaml").write_text("extends: base.yaml\ntrain: {batch_size: x}\n")
    Path("mine.yaml").write_text("extends: sub/middle.yaml\nsead: 1\nbackbone: {use: resnext5}\n")
    Path("sub/base.yaml").write_text(BASE.replace("split: 0.25", "split: 25"))
    assert refused(catalogue, "mine.yaml", "seed=x") == (
        "mine.yaml:2:1: sead: unknown key 'sead'; did you mean 'seed'?",
        "mine.yaml:3:12: backbone.use: no backbone named 'resnext5'; did you mean 'resnext50'?",
        "sub/middle.yaml:2:9: train.batch_size: expected a whole number or 'auto', got 'x'",
        "sub/base.yaml:3:38: dataset.split: must be less than 1, got 25",
        "override 'seed=x': seed: expected a whole number, got 'x'",
    )


def test_a_base_at_home(
    catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    (home / "base.yaml").write_text(BASE + "sead: 1\n")
    Path("mine.yaml").write_text("extends: ~/base.yaml\n")
    assert refused(catalogue, "mine.yaml") == (f"{home}/base.yaml:9:1: sead: unknown key 'sead'; did you mean 'seed'?",)


LEADS_NOWHERE: list[tuple[str, str]] = [
    ("god", "no bundled recipe named 'god'; known: "),
    ("sub/bas.yaml", "no file 'sub/bas.yaml' in {folder}; did you mean 'base.yaml'?"),
    ("elsewhere/x.yaml", "no file 'elsewhere/x.yaml' in {folder}; a path is relative to the folder of its recipe"),
    ("sub/", "'sub/' is not a file; name a recipe such as base.yaml"),
    (
        "~nobody-has-this-name/x.yaml",
        "no home folder for '~nobody-has-this-name/x.yaml'; write the full",
    ),
    ("[a.yaml, b.yaml]", "expected the path of a recipe or a name that `finetune ls` lists, got a list; a recipe ext"),
    ("3", "expected the path of a recipe or a name that `finetune ls` lists, got 3"),
    ("", "expected the path of a recipe or a name that `finetune ls` lists, got nothing"),
    (
        "x" * 9000,
        "no bundled recipe named 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; known: csv, ",
    ),
    (
        "x" * 9000 + ".yaml",
        "no file 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxxxxxxxx.yaml' in {folder}; a path",
    ),
    ("/dev/zero", "'/dev/zero' is not a file; name a recipe such as base.yaml"),
    ("there", "no bundled recipe named 'there'; did you mean 'there.yaml'?"),
]


@pytest.mark.parametrize(("base", "message"), LEADS_NOWHERE, ids=[base[:20] or "nothing" for base, _ in LEADS_NOWHERE])
def test_a_base_that_cannot_be_meant(catalogue: Catalogue, folder: Path, base: str, message: str) -> None:
    Path("there.yaml").write_text(BASE)
    Path("mine.yaml").write_text(f"seed: 1\nextends: {base}\n")
    (said,) = refused(catalogue, "mine.yaml")
    assert said.startswith(f"mine.yaml:2:1: extends: {message}".replace("{folder}", str(folder)))


def test_circles_and_long_chains_end(catalogue: Catalogue) -> None:
    Path("a.yaml").write_text("seed: 1\nextends: sub/b.yaml\n")
    Path("sub/b.yaml").write_text("extends: ../a.yaml\n")
    assert refused(catalogue, "a.yaml") == (
        "sub/b.yaml:1:1: extends: '../a.yaml' leads back to itself: a.yaml -> sub/b.yaml -> sub/../a.yaml; "
        "remove 'extends' from one of them",
    )
    for number in range(20):
        Path(f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    (said,) = refused(catalogue, "0.yaml")
    assert said == "7.yaml:1:1: extends: more than 8 recipes extend each other; merge some of them into one"


def test_what_is_written_into_a_run_is_complete(catalogue: Catalogue, tmp_path: Path) -> None:
    plan = extended(catalogue, "train: {epochs: 4}")
    Path("again.yaml").write_text(dump_plan(plan))
    assert "extends" not in dump_plan(plan)
    (tmp_path / "sub" / "base.yaml").unlink()
    assert load_plan(Path("again.yaml"), [], catalogue) == plan


def test_bundled_recipes_extend_bundled_ones_by_name(catalogue: Catalogue) -> None:
    texts = {name: file.read_text() for name, file in bundled.list_recipes().items()}
    bases = {line.split()[1] for text in texts.values() for line in text.splitlines() if line.startswith("extends:")}
    assert bases
    assert bases <= texts.keys()
    assert extending.KEY not in load_plan({"extends": "flowers-ascend"}, [], catalogue).recipe.model_dump()


PARTIAL: list[tuple[dict[str, Any], bool]] = [
    ({"extends": "base.yaml"}, True),
    ({"extends": "base.yaml", "freeze": {"schedule": {"1": "all"}}}, True),
    ({"extends": "base.yaml", "dataset": {"split": 0.1}, "optimizer": {"momentum": 0.5}}, True),
    ({"extends": "base.yaml", "dataset": {"use": "folder"}}, True),
    ({"extends": "base.yaml", "runner": {"memory_gb": 8}, "head": {"hidden": 8}}, True),
    ({"extends": "base.yaml", "dataset": {"use": "folder", "schedule": 1}}, False),
    ({"extends": "base.yaml", "freeze": {"shedule": {"1": "all"}}}, False),
    ({"extends": "base.yaml", "freeze": {"use": "gradual", "train": ["layer4"]}}, False),
    ({"extends": "base.yaml", "train": {"epoch": 1}}, False),
    ({"extends": "base.yaml", "callbacks": [{"keep": 2}]}, False),
    ({"extends": ["a.yaml"]}, False),
    ({"extends": ""}, False),
    ({"freeze": {"schedule": {"1": "all"}}, "dataset": {"use": "folder", "root": "x"}}, False),
]


@pytest.mark.parametrize(("recipe", "valid"), PARTIAL, ids=str)
def test_the_schema_lets_a_base_say_the_rest(catalogue: Catalogue, recipe: dict[str, Any], valid: bool) -> None:
    assert Draft202012Validator(build_json_schema(catalogue)).is_valid(recipe) is valid
