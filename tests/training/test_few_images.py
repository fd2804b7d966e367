"""Data that is hard to fit a head to: one image a class, unbalanced classes, one colour, no finite features."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.errors import DataError
from finetune.weights.formats import tensorfile
from tests.cli.calling import call_in_process
from tests.drawn import COLOURS, folder
from tests.training import nano

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


def noise(root: Path, counts: dict[str, int], *, seed: int = 3) -> Path:
    """Write so many images of noise of each class."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def mixed(root: Path, *, each: int, rare: int) -> Path:
    """Draw photos of a common and of a rare class that cannot always be told apart."""
    rng = np.random.default_rng(7)
    for name, count, level in (("common", each, 118), ("rare", rare, 138)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            shade = rng.normal(level, 12)
            pixels = np.clip(rng.normal(shade, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
    return root


@pytest.mark.parametrize("counts", [{"a": 1, "b": 1}, {f"c{number:02d}": 1 for number in range(30)}])
def test_one_image_of_each_class_is_fitted_and_not_judged(counts: dict[str, int], tmp_path: Path) -> None:
    made = nano.run(nano.recipe(noise(tmp_path / "photos", counts), tmp_path))
    assert (
        "head fitted: L2 strength 0.03; its accuracy cannot be estimated: too few classes have two different images"
        in made.said
    )
    assert made.result["validation"] == {"method": "folds", "folds": min(5, len(counts))}
    assert (made.result["best"], made.result["warnings"]) == (None, [])
    (line,) = made.run.history
    assert not [name for name in line if name.startswith("val_")]
    assert line["train_loss"] < np.log(len(counts)) / 4
    done = call_in_process("eval", made.run.folder)
    assert done.returncode == 2
    said = "out_of_fold.csv: the run had too few images to estimate its accuracy; pass the data to evaluate on"
    assert said in done.stderr
    named = json.loads(call_in_process("predict", made.run.folder, tmp_path / "photos", "--json").stdout)
    assert all(f"/{each['label']}/" in each["path"] for each in named["predictions"])


def test_a_class_of_one_image_is_never_judged_right(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", each=6)
    for path in sorted((root / "red").iterdir())[1:]:
        path.unlink()
    made = nano.run(nano.recipe(root, tmp_path))
    assert made.result["validation"]["images"] == 13
    assert made.result["validation"]["accuracy"] <= round(12 / 13, 6)
    assert (
        "evaluate.metric=auto chose macro_f1: the most common class has 6 times as many images as the rarest"
        in made.said
    )
    assert made.result["best"]["val_macro_f1"] == made.run.history[0]["val_macro_f1"] <= 2 / 3


def test_images_of_one_colour_are_guessed_and_that_is_said(tmp_path: Path) -> None:
    for place, name in enumerate(COLOURS):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4 + 2 * (name == "red")):
            pixels = np.full((40, 40, 3), 128, np.uint8)
            pixels[0, 0] = (place, number, 0)  # too little to be seen, and enough to be another file
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    made = nano.run(nano.recipe(tmp_path / "photos", tmp_path))
    (warning,) = made.result["warnings"]
    assert "is not better than always predicting 'red' (0.429); check the labels" in warning
    assert f"warning: {warning}" in made.said


def test_weights_whose_features_overflow(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", each=4)
    made = nano.run(nano.recipe(root, tmp_path))
    saved = tensorfile.read_tensors(made.run.folder / "model" / "weights.safetensors").tensors
    gamma = "layer4.0.down_sample.bn.gamma"
    large = saved | {gamma: np.full_like(saved[gamma], 3e38)}
    tensorfile.write_tensors(tmp_path / "large.safetensors", large, {})
    backbone = {"use": "resnext_nano", "weights": str(tmp_path / "large.safetensors")}
    what = nano.recipe(root, tmp_path, backbone=backbone, inference={"engine": "mindspore"})
    with pytest.raises(
        DataError, match=r"the features of 12 images are not finite \(/.*/blue/00\.jpg, .*, …\); check these images"
    ):
        nano.run(what)


def test_unbalanced_classes_choose_their_weights_by_macro_f1(tmp_path: Path) -> None:
    root = mixed(tmp_path / "photos", each=36, rare=6)
    made = nano.run(nano.recipe(root, tmp_path))
    chosen, compared = (made.result["fitted"][name] for name in ("class_weights", "compared"))
    error = compared["standard_error"]
    scores = f"{compared['sqrt']:.3f} with square-root weights and {compared['none']:.3f} without"
    (line,) = [line for line in made.said if line.startswith("loss.class_weights")]
    assert line == (
        f"loss.class_weights=measured chose {chosen}: macro-F1 out of fold {scores} "
        f"(standard error of the difference {error:.3f})"
    )
    assert chosen == ("none" if compared["none"] - compared["sqrt"] > error else "sqrt")
    assert f"class_weights: {chosen}\n" in (made.run.folder / "recipe.yaml").read_text()
    for weights in ("none", "sqrt"):
        other = nano.run(nano.recipe(root, tmp_path, loss={"class_weights": weights}))
        assert not [line for line in other.said if line.startswith("loss.class_weights")]
        assert other.result["fitted"]["macro_f1"] == pytest.approx(compared[weights], abs=1e-6)
        assert "compared" not in other.result["fitted"]
    again = nano.run(made.run.folder / "recipe.yaml")
    assert again.weights == made.weights


def test_label_smoothing_makes_the_fitted_head_less_sure(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", each=5)
    plain = nano.run(nano.recipe(root, tmp_path))
    smooth = nano.run(nano.recipe(root, tmp_path, loss={"label_smoothing": 0.3}))
    # The least that a loss against labels of 0.8, 0.1 and 0.1 can be.
    least = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    assert smooth.run.history[0]["train_loss"] >= least - 1e-6
    assert plain.run.history[0]["train_loss"] < 0.2
    assert surest(smooth, root) < 0.999


def surest(made: nano.Made, root: Path) -> float:
    """Return the highest probability that a model gives to any image."""
    answer: dict[str, Any] = json.loads(call_in_process("predict", made.run.folder, root, "--json").stdout)
    return max(each["probability"] for each in answer["predictions"])
