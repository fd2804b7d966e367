"""What Finetuner.fit and fine_tune take: folders, tables, arrays, components, recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from finetune import Finetuner, plugins
from finetune.catalogue import Catalogue
from finetune.errors import WeightsError
from finetune.recipe import keywords
from finetune.recipe import plan as plans
from tests.drawn import folder
from tests.finetuner.small import pixels, planned, tiny_finetuner, weights

if TYPE_CHECKING:
    from finetune import Dataset


def test_fit_learns_from_a_folder(fitted: Finetuner, photos: Path) -> None:
    run = fitted.run
    assert run is not None
    assert run.result is not None
    assert run.classes == ("blue", "green", "red")
    assert [line["epoch"] for line in fitted.history] == [1, 2]
    assert fitted.history[1]["train_loss"] < fitted.history[0]["train_loss"]
    assert [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()] == fitted.history
    assert planned(run)["dataset"]["root"] == str(photos)


def test_fit_takes_a_table(table: Path, photos: Path, tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path, freeze="head")
    run = ft.fit(str(table), epochs=1)
    assert run.images == {"train": 30, "valid": 6}
    assert ft.evaluate(photos)["images"] == 6  # a folder, though the table has a root, too


def test_fit_takes_arrays(paths: list[Path], tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path, freeze="head")
    run = ft.fit((np.stack(pixels(paths)), np.repeat([1, 2, 10], 12)), epochs=1)
    assert run.classes == ("1", "2", "10")
    assert sum(run.images.values()) == 36
    shifted = ft.evaluate((pixels(paths), [1] * 12 + [2] * 12 + [10] * 12))
    assert (shifted["images"], shifted["trained_on"]) == (run.images["valid"], 0)
    assert [each["class"] for each in shifted["per_class"]] == ["1", "2", "10"]


def test_fit_takes_a_component_and_its_options(component: Dataset, paths: list[Path], tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path, freeze="head")
    run = ft.fit(component, epochs=1, dataset={"each": 8, "split": 0.25})
    assert sum(run.images.values()) == 24
    assert ft.evaluate(component)["images"] == run.images["valid"]


def test_fit_takes_a_section_of_a_recipe(photos: Path, tmp_path: Path) -> None:
    run = tiny_finetuner(tmp_path, freeze="head").fit({"use": "folder", "root": str(photos), "split": 0.5}, epochs=1)
    assert sum(run.images.values()) == 36
    assert 10 <= run.images["valid"] <= 26


def test_fit_takes_a_recipe_which_speaks_first(recipe: Path, tmp_path: Path) -> None:
    ft = Finetuner(output=tmp_path, progress=False, optimizer="sgd")
    run = ft.fit(recipe, epochs=1, loss={"class_weights": {"red": 2.0}}, train={"accumulate": 2}, name="own")
    said = planned(run)
    assert said["seed"] == 5
    assert said["freeze"]["use"] == "gradual"
    assert (said["train"]["epochs"], said["train"]["batch_size"], said["train"]["accumulate"]) == (1, 8, 2)
    assert said["loss"] == {"use": "cross_entropy", "label_smoothing": 0.1, "class_weights": {"red": 2.0}}
    assert said["optimizer"]["use"] == "sgd"
    assert run.folder == tmp_path / "own-001"
    assert sum(run.images.values()) == 36
    assert 10 <= run.images["valid"] <= 26


def test_what_is_given_stands_above_a_recipe(recipe: Path) -> None:
    ft = Finetuner(seed=7, freeze="none", weights="some.safetensors", device="cpu", callbacks=["tensorboard"])
    plan, _ = ft._plan(recipe, keywords.merge_sections(ft.sections, {"seed": 8}))
    said = plan.recipe.model_dump(mode="json")
    assert said["seed"] == 8
    assert said["freeze"] == {"use": "none", "batch_norm": "auto"}
    assert said["backbone"]["use"] == "resnext_nano"
    assert said["backbone"]["weights"] == str(Path.cwd() / "some.safetensors")
    assert said["runner"]["device"] == "cpu"
    assert [each["use"] for each in said["callbacks"]] == ["tensorboard"]


def test_what_is_left_out_is_as_in_a_recipe(photos: Path, tmp_path: Path) -> None:
    ft = Finetuner()
    said = ft._plan(photos, ft.sections)[0].recipe
    file = tmp_path / "run.yaml"
    file.write_text(f"dataset: {{use: folder, root: {photos}}}\noutput: {Path.cwd() / 'runs'}\n")
    assert said == plans.load_plan(file, [], Catalogue(plugins.load_plugins())).recipe


def test_every_fit_starts_from_the_same_weights(photos: Path, tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path, freeze="head")
    first, second = ft.fit(photos, epochs=1), ft.fit(photos, epochs=1)
    assert weights(first) == weights(second)
    assert first.folder != second.folder


def test_fit_after_load_starts_from_those_weights(loaded: Finetuner, photos: Path, tmp_path: Path) -> None:
    before = loaded.embed(sorted(photos.rglob("*.jpg")))
    ft = Finetuner.load(loaded.model.folder, progress=False)  # type: ignore[union-attr, arg-type]
    run = ft.fit(photos, epochs=1, freeze="head", output=tmp_path, train={"batch_size": 8})
    assert planned(run)["image"]["size"] == "auto"
    assert ft.model is not None
    assert (ft.model.image.size, ft.model.image.resize) == (32, 36)
    assert run.weights["reinitialised"] == ["head.fc.weight", "head.fc.bias"]
    assert np.array_equal(before, ft.embed(sorted(photos.rglob("*.jpg"))))


def test_a_kept_head_needs_the_same_classes(loaded: Finetuner, photos: Path, tmp_path: Path) -> None:
    keep = {"keep_pretrained": True}
    assert loaded.model is not None
    ft = Finetuner.load(loaded.model.folder, progress=False, head=keep, freeze="head", output=tmp_path)  # type: ignore[arg-type]
    assert ft.fit(photos, epochs=1, optimizer={"lr": 1e-9}).weights["reinitialised"] == []
    assert ft.history[0]["val_accuracy"] >= 0.5
    others = folder(tmp_path / "others", each=3)
    (others / "red").rename(others / "amber")
    with pytest.raises(WeightsError, match=r"has 3 classes, but none named 'amber'; set head={"):
        ft.fit(others, epochs=1)
    assert ft.run is not None
    again = Finetuner.load(ft.run.folder, progress=False, freeze="head", output=tmp_path)
    for head in ({}, {"head": "linear"}):
        run = again.fit(others, epochs=1, **head)
        assert run.weights["reinitialised"] == ["head.fc.weight", "head.fc.bias"]
        assert "amber" in run.classes
