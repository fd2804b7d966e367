"""What a fitted Finetuner does: predict, evaluate, embed, save, load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import finetune
from finetune import Finetuner
from finetune.data.images import fit, read_image
from tests.drawn import COLOURS, folder
from tests.finetuner.small import NANO, pixels, tiny_finetuner

if TYPE_CHECKING:
    from pathlib import Path

    from finetune import Dataset


def test_predict_takes_paths_arrays_and_pillow_images(fitted: Finetuner, paths: list[Path]) -> None:
    from_paths = fitted.predict([str(path) for path in paths], top=2)
    assert [each.path for each in from_paths] == [str(path) for path in paths]
    assert all(len(each.top) == 2 and each.top[0] == (each.label, each.probability) for each in from_paths)
    assert np.mean([each.label == path.parent.name for each, path in zip(from_paths, paths, strict=True)]) > 0.6
    for images in (pixels(paths), np.stack(pixels(paths)), [Image.open(path) for path in paths]):
        assert [each.top for each in fitted.predict(images, top=2)] == [each.top for each in from_paths]  # type: ignore[arg-type]
    assert fitted.predict(pixels(paths[:1]))[0].path == "images[0]"
    assert sum(probability for _, probability in fitted.predict(paths[:1], top=9)[0].top) == pytest.approx(1.0)


def test_evaluate_takes_what_fit_takes(
    fitted: Finetuner, photos: Path, paths: list[Path], table: Path, recipe: Path, component: Dataset
) -> None:
    names = [path.parent.name for path in paths]
    numbers = np.array([("blue", "green", "red").index(name) for name in names])
    every = [None, photos, f"{photos}/", table, recipe, component, (paths, names)]
    found = [fitted.evaluate(data) for data in (*every, {"use": "folder", "root": str(photos)})]
    assert fitted.run is not None
    assert {(each["images"], each["trained_on"], each["accuracy"], round(each["loss"], 5)) for each in found} == {
        (fitted.run.images["valid"], 0, found[0]["accuracy"], round(found[0]["loss"], 5))
    }
    assert [each["class"] for each in found[0]["per_class"]] == sorted(COLOURS)
    whole = fitted.evaluate((np.stack(pixels(paths)), numbers))
    assert whole["images"] == 36
    assert whole["accuracy"] == np.mean([p.label == n for p, n in zip(fitted.predict(paths), names, strict=True)])


def test_evaluate_prefers_the_test_split(fitted: Finetuner, tmp_path: Path) -> None:
    for name, each in (("train", 3), ("test", 2)):
        folder(tmp_path / name, each=each)
    found = fitted.evaluate(tmp_path)
    assert (found["part"], found["images"]) == ("test", 6)


def test_embed_gives_features_of_any_form_of_image(fitted: Finetuner, paths: list[Path]) -> None:
    features = fitted.embed(paths)
    assert (features.shape, features.dtype) == ((36, 512), np.float32)
    assert np.array_equal(features, fitted.embed(pixels(paths)))
    assert np.array_equal(features, fitted.embed([Image.open(path) for path in paths]))
    assert np.allclose(features, fitted.embed(ready(fitted, paths)), atol=1e-5)


def ready(ft: Finetuner, paths: list[Path]) -> np.ndarray:
    """Return images as the network takes them, made by hand."""
    assert ft.model is not None
    spec = ft.model.image
    images = np.stack([fit(read_image(path, spec), spec) for path in paths]).astype(np.float32) / 255.0
    return ((images - np.float32(spec.mean)) / np.float32(spec.std)).transpose(0, 3, 1, 2)


def test_embed_before_fit_uses_the_pretrained_network(fitted: Finetuner, paths: list[Path], tmp_path: Path) -> None:
    ft = Finetuner(**NANO, freeze="head", output=tmp_path)
    features = ft.embed(paths[:5])
    assert (features.shape, features.dtype) == ((5, 512), np.float32)
    assert np.array_equal(features, ft.embed(pixels(paths[:5])))
    assert np.allclose(features, ft.embed(ready(fitted, paths[:5])), atol=1e-5)
    assert not np.allclose(features, fitted.embed(paths[:5]), atol=1e-3)


def test_saved_and_loaded_it_predicts_the_same(
    fitted: Finetuner, loaded: Finetuner, paths: list[Path], tmp_path: Path
) -> None:
    target = fitted.save(tmp_path / "model")
    assert {path.name for path in target.iterdir()} == {
        "weights.safetensors",
        "reference.safetensors",
        "model.json",
        "README.md",
    }
    expected = fitted.predict(paths)
    assert loaded.predict(paths) == expected
    assert Finetuner.load(str(target)).predict(paths) == expected
    assert loaded.history == []


def test_it_shows_itself(fitted: Finetuner, tmp_path: Path) -> None:
    assert repr(tiny_finetuner(tmp_path, seed=3)).startswith("<Finetuner: not fitted, {'backbone': {'use': 'tiny', ")
    assert fitted.model is not None
    score = fitted.model.about["metrics"]["val_accuracy"]
    shown = f"<Finetuner: resnext_nano, 3 classes, val_accuracy {score:.4f}, {fitted.model.folder}>"
    assert repr(fitted) == shown
    assert len(repr(fitted.run)) < 300
    assert len(repr(fitted.model)) < 350


def test_the_package_offers_it() -> None:
    assert finetune.Finetuner is Finetuner
