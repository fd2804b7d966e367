"""The JSON schema says the same of a recipe as loading it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import PositiveInt

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.components import Augmentation, Backbone, Callback, Dataset, Freezer, Options
from finetune.errors import PluginError, RecipeError
from finetune.hookspecs import hookimpl
from finetune.recipe import bundled
from finetune.recipe.document import parse_bytes, read_recipe
from finetune.recipe.plan import dump_plan, load_plan
from finetune.recipe.schema import build_json_schema


class Files(Options):
    """Images in folders."""

    root: Path
    """The folder of class folders."""


class Crop(Options):
    use: Literal["crop"] = "crop"
    size: PositiveInt


class Images(Options):
    ops: tuple[Crop, ...] = ()


class Gradual(Options):
    schedule: dict[PositiveInt, str]


def nothing(*_: object) -> Any:
    return None


class Few:
    @hookimpl
    def finetune_backbones(self) -> list[Backbone]:
        return [Backbone(name="resnext50", build=nothing, stages=("stem",), features=8)]

    @hookimpl
    def finetune_datasets(self) -> list[Dataset]:
        return [Dataset(name="folder", options=Files, build=nothing), Dataset(name="shapes", build=nothing)]

    @hookimpl
    def finetune_augmentations(self) -> list[Augmentation]:
        return [Augmentation(name="albumentations", options=Images, build=nothing)]

    @hookimpl
    def finetune_freezers(self) -> list[Freezer]:
        return [Freezer(name="head", build=nothing), Freezer(name="gradual", options=Gradual, build=nothing)]

    @hookimpl
    def finetune_callbacks(self) -> list[Callback]:
        return [Callback(name=name, build=nothing) for name in ("tensorboard", "checkpoint")]


def catalogue_of(*offers: object) -> Catalogue:
    registered = plugins.Plugins()
    for number, offer in enumerate(offers):
        registered.register(offer, plugins.Origin(name=f"few{number}", distribution="tests", version="1"))
    return Catalogue(registered)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return catalogue_of(Few())


@pytest.fixture(scope="module")
def schema(catalogue: Catalogue) -> Draft202012Validator:
    found = build_json_schema(catalogue)
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


FOLDER = {"use": "folder", "root": "photos"}
RIGHT: list[dict[str, Any]] = [
    {"dataset": FOLDER},
    {"dataset": {"use": "shapes", "split": 0.5}},
    {"dataset": FOLDER, "backbone": {"weights": "none"}, "freeze": {"batch_norm": "frozen"}},
    {"dataset": FOLDER, "freeze": {"use": "gradual", "schedule": {"1": "head"}}},
    {"dataset": FOLDER, "augment": [{"use": "albumentations", "ops": [{"size": 3}, {"use": "crop", "size": 4}]}]},
    {"dataset": FOLDER, "head": {"use": "mlp", "hidden": 3}, "optimizer": {"use": "sgd"}, "callbacks": []},
    {"dataset": FOLDER, "image": {"size": 64, "mean": [0, 0, 0], "std": "auto"}, "train": {"ema": None}, "seed": 1},
    {"dataset": FOLDER, "loss": {"class_weights": {"rose": 2.0}}, "schedule": {"use": "step", "every": 2}},
]
WRONG: list[dict[str, Any]] = [
    {},
    {"dataset": {"root": "photos"}},
    {"dataset": {"use": "folder"}},
    {"dataset": {"use": "flowers", "root": "photos"}},
    {"dataset": {**FOLDER, "rot": 1}},
    {"dataset": {**FOLDER, "split": 2}},
    {"dataset": {**FOLDER, "root": 3}},
    {"dataset": FOLDER, "epochs": 3},
    {"dataset": FOLDER, "train": {"epochs": "3"}},
    {"dataset": FOLDER, "train": {"epochs": -1}},
    {"dataset": FOLDER, "train": {"epoch": 1}},
    {"dataset": FOLDER, "freeze": {"use": "gradual"}},
    {"dataset": FOLDER, "freeze": {"schedule": {"1": "head"}}},
    {"dataset": FOLDER, "augment": [{"use": "albumentations", "ops": [{"size": 0}]}]},
    {"dataset": FOLDER, "augment": [{"ops": []}]},
    {"dataset": FOLDER, "callbacks": [{"use": "tensorbord"}]},
    {"dataset": FOLDER, "head": {"use": "mlp", "hiden": 3}},
    {"dataset": FOLDER, "image": {"mean": [0, 0]}},
    {"dataset": FOLDER, "image": {"size": "big"}},
    {"dataset": FOLDER, "name": "a/b"},
]


@pytest.mark.parametrize("recipe", RIGHT, ids=str)
def test_right_recipes(schema: Draft202012Validator, catalogue: Catalogue, recipe: dict[str, Any]) -> None:
    assert list(schema.iter_errors(recipe)) == []
    load_plan(recipe, [], catalogue)


@pytest.mark.parametrize("recipe", WRONG, ids=str)
def test_wrong_recipes(schema: Draft202012Validator, catalogue: Catalogue, recipe: dict[str, Any]) -> None:
    assert not schema.is_valid(recipe)
    with pytest.raises(RecipeError):
        load_plan(recipe, [], catalogue)


def test_documentation_of_keys_is_in_it(catalogue: Catalogue) -> None:
    folder = build_json_schema(catalogue)["$defs"]["dataset.folder"]
    assert folder["description"] == "Images in folders."
    assert folder["properties"]["root"]["description"] == "The folder of class folders."
    assert "held back" in folder["properties"]["split"]["description"]
    assert folder["required"] == ["use", "root"]


def test_a_kind_without_components_allows_nothing() -> None:
    schema = Draft202012Validator(build_json_schema(catalogue_of()))
    schema.check_schema(schema.schema)
    assert not schema.is_valid({"dataset": FOLDER})


def test_names_offered_twice_are_left_out() -> None:
    schema = build_json_schema(catalogue_of(Few(), Few()))
    assert schema["$defs"]["DatasetSection"]["oneOf"] == [False]


def test_options_without_a_schema_name_their_plugin() -> None:
    class Odd(Options):
        call: type

    class Plugin:
        @hookimpl
        def finetune_callbacks(self) -> list[Callback]:
            return [Callback(name="odd", options=Odd, build=nothing)]

    with pytest.raises(PluginError, match=r"plugin 'few0' \(tests 1\) failed in the JSON schema of callback 'odd'"):
        build_json_schema(catalogue_of(Plugin()))


def test_everything_installed_has_a_schema() -> None:
    catalogue = Catalogue(plugins.load_plugins())
    schema = build_json_schema(catalogue)
    Draft202012Validator.check_schema(schema)
    for slot in ("Backbone", "Dataset", "Augment", "Freeze", "Callback"):
        assert schema["$defs"][f"{slot}Section"]["oneOf"] != [False], slot


@pytest.fixture(scope="module")
def installed() -> Draft202012Validator:
    return Draft202012Validator(build_json_schema(Catalogue(plugins.load_plugins())))


@pytest.mark.parametrize("name", bundled.list_recipes())
def test_it_accepts_every_recipe_that_comes_along(installed: Draft202012Validator, name: str) -> None:
    assert [error.message for error in installed.iter_errors(read_recipe(bundled.find_recipe(name)).values)] == []


def test_it_accepts_what_is_written_into_a_run(installed: Draft202012Validator) -> None:
    catalogue = Catalogue(plugins.load_plugins())
    for file in bundled.list_recipes().values():
        whole = parse_bytes(dump_plan(load_plan(file, [], catalogue)).encode(), "recipe.yaml", Path())
        assert [error.message for error in installed.iter_errors(whole.values)] == [], file


def test_every_key_has_a_description(installed: Draft202012Validator) -> None:
    """An editor shows it; for ``use`` and ``device`` it shows that of the component or the device chosen."""
    whole: dict[str, Any] = installed.schema  # type: ignore[assignment]
    models = {"recipe": whole, **whole["$defs"]}
    bare = [name for name, model in models.items() if model.get("type") == "object" and not model.get("description")]
    bare += [
        f"{name}.{key}"
        for name, model in models.items()
        for key, about in model.get("properties", {}).items()
        if key not in ("use", "device") and not about.get("description") and "$ref" not in about
    ]
    assert bare == []


def test_a_third_party_plugin_is_in_it(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repo / "examples" / "finetune-zip"))
    import finetune_zip  # type: ignore[import-not-found]

    schema = build_json_schema(catalogue_of(Few(), finetune_zip))
    file = schema["$defs"]["dataset.zip"]["properties"]["file"]
    assert file["description"] == "The archive, with one folder of photos for each class."
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"dataset": {"use": "zip", "file": "photos.zip"}})
    assert not validator.is_valid({"dataset": {"use": "zip", "fil": "photos.zip"}})
    assert not validator.is_valid({"dataset": {"use": "zip"}})


def test_an_editor_completes_transforms(installed: Draft202012Validator) -> None:
    def valid(*ops: Any) -> bool:
        return installed.is_valid({"dataset": FOLDER, "augment": [{"use": "albumentations", "ops": list(ops)}]})

    assert valid("HorizontalFlip", {"Blur": {"p": 0.5}}, {"ToGray": None})
    assert not valid("HorizontalFlipp")
    assert not valid({"Blurr": {}})
    assert not valid({"Blur": {}, "ToGray": {}})


def test_an_old_key_is_marked_as_deprecated() -> None:
    schema = build_json_schema(Catalogue(plugins.load_plugins()))
    assert schema["properties"]["trunk"]["deprecated"] is True
    assert schema["properties"]["trunk"]["description"] == "Use inference."
    check = Draft202012Validator(schema)
    assert check.is_valid({"dataset": {"use": "shapes"}, "trunk": {"engine": "auto"}})
    assert not check.is_valid({"dataset": {"use": "shapes"}, "trunk": {"engine": 3}})
