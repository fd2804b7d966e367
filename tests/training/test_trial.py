"""The trial of images: which are chosen, that all failures are reported together, and that chance hides none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.catalogue import Catalogue
from finetune.components import ImageSpec, NoOptions, Samples
from finetune.data.labelled import Part
from finetune.data.loading import Data, load
from finetune.data.looks import ROW
from finetune.errors import PluginError
from finetune.plugins import Plugins
from finetune.recipe.models import DatasetSection
from finetune.training import trial
from finetune_plugins import albumentations

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ImageSpec(size=32, resize=36)
ODD = {"a/strip.png": ("RGB", (300, 40)), "b/grey.png": ("L", (64, 64)), "b/low.png": ("RGB", (90, 20))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Return two classes of square photos and a few odd ones, half of all for validation."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    sizes = {f"{name}/{number}.png": ("RGB", (64, 64)) for name in "ab" for number in range(8)} | ODD
    for name, (mode, (width, height)) in sizes.items():
        (root / name).parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(root / name)
    return loaded(root, sorted(sizes))


def loaded(root: Path, names: list[str]) -> Data:
    from finetune.components import Dataset

    images, labels = [root / name for name in names], [int(name[0] == "b") for name in names]
    samples = Samples(images=images, labels=labels, classes=("a", "b"))
    parts = {"train": samples, "valid": Samples(images=samples.images[:3], labels=[0] * 3, classes=samples.classes)}
    source = Dataset(name="small", build=lambda options, split: parts.get(split))
    return load(Catalogue(Plugins()).choose(source, NoOptions()), DatasetSection(use="small"), 1, 0)


def ops(*names: Any) -> tuple[Any, ...]:
    return (albumentations.build(albumentations.Albumentations(ops=names), SPEC),)


def tried(data: Data, transforms: tuple[Any, ...], most: int = 100) -> int:
    return trial.try_images(data, trial.Trial(spec=SPEC, transforms=transforms, seed=1, most=most))


def name_of(part: Part, index: int) -> str:
    return part.describe(index).rpartition("/")[2]


def test_the_unusual_come_first(data: Data) -> None:
    names = [name_of(data.train, index) for index in trial.choose_unusual(data.train, 6)]
    assert {"strip.png", "grey.png", "low.png"} <= set(names)
    assert len(names) == 5


@pytest.mark.parametrize("most", [1, 4, 16])
def test_a_thousand_classes_are_tried_by_a_few_images(most: int) -> None:
    labels = np.repeat(np.arange(1000), 3)
    looks = np.zeros(3000, ROW)
    looks["width"], looks["height"], looks["mode"] = 50, np.arange(3000) + 10, "RGB"
    part = Part(name="train", images=[np.zeros((1, 1, 3), np.uint8)] * 3000, labels=labels, looks=looks)
    chosen = trial.choose_unusual(part, most)
    assert len(chosen) == most
    assert chosen[0] == 0
    unknown = Part(name="train", images=part.images, labels=labels)
    assert len(trial.choose_unusual(unknown, most)) == most


def test_every_class_has_its_extremes() -> None:
    looks = np.zeros(8, ROW)
    looks["mode"] = ["RGB"] * 7 + ["L"]
    looks["width"], looks["height"] = [10, 20, 30, 99, 11, 21, 31, 32], [10, 20, 30, 20, 11, 21, 31, 32]
    part = Part(
        name="train", images=[np.zeros((1, 1, 3), np.uint8)] * 8, labels=np.array([0] * 4 + [1] * 4), looks=looks
    )
    assert set(trial.choose_unusual(part, 100)) == {0, 3, 4, 7}


def test_what_suits_all_images_passes(data: Data) -> None:
    crop = {"RandomCrop": {"height": 40, "width": 40}}
    assert tried(data, ops("HorizontalFlip", {"SmallestMaxSize": {"max_size": 40}}, crop)) > 0
    assert tried(data, ()) > 0


@pytest.mark.parametrize("chance", [1.0, 0.01])
def test_a_crop_larger_than_some_images(data: Data, chance: float) -> None:
    with pytest.raises(PluginError) as caught:
        tried(data, ops({"RandomCrop": {"height": 48, "width": 48, "p": chance}}))
    first, *lines, last = str(caught.value).splitlines()
    assert first == "2 images cannot be prepared for the network:"
    assert last == "change augment so that it accepts these images, or leave them out"
    assert all("augment[0] (albumentations) failed on '" in line for line in lines)
    assert any("strip.png': TransformError: RandomCrop on 300x40 pixels: " in line for line in lines)
    assert any("low.png': TransformError: RandomCrop on 90x20 pixels: " in line for line in lines)


def test_a_crop_within_a_choice_is_tried_too(data: Data) -> None:
    crop = {"RandomCrop": {"height": 500, "width": 500, "p": 0.5}}
    with pytest.raises(PluginError, match="RandomCrop on 64x64 pixels"):
        tried(data, ops({"Sequential": {"transforms": [crop], "p": 0.1}}))


def wide_only(pixels: Any, rng: Any) -> Any:
    if pixels.shape[1] > 2 * pixels.shape[0]:
        raise ValueError("too wide")
    return pixels


def wrong_type(pixels: Any, rng: Any) -> Any:
    return pixels / 255.0 if pixels.shape[0] < 30 else pixels


@pytest.mark.parametrize(
    ("transform", "texts"),
    [
        (wide_only, ("wide_only) failed on", "strip.png': ValueError: too wide", "low.png': ValueError: too wide")),
        (wrong_type, ("wrong_type) returned an array of shape 20x90x3 and type float64 for", "low.png'")),
    ],
)
def test_transforms_of_others_are_named_with_the_image(data: Data, transform: Any, texts: tuple[str, ...]) -> None:
    with pytest.raises(PluginError) as caught:
        tried(data, (transform,))
    assert all(text in str(caught.value) for text in texts)


def test_a_trial_changes_nothing_about_the_augmentation(data: Data) -> None:
    transform = ops({"RandomBrightnessContrast": {"p": 0.5}})[0]
    pixels = np.full((20, 20, 3), 90, np.uint8)
    before = [transform(pixels, np.random.default_rng(seed)) for seed in range(8)]
    tried(data, (transform,))
    after = [transform(pixels, np.random.default_rng(seed)) for seed in range(8)]
    np.testing.assert_array_equal(before, after)
    assert not all((each == 90).all() for each in before)
    assert any((each == 90).all() for each in before)
