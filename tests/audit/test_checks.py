"""Duplicates, quality, and checks of a data set as a whole."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from finetune.audit import datasets, duplicates, pictures
from finetune.audit.neighbours import find_neighbours
from finetune.components import Encoded
from finetune.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


def photo(seed: int = 0, width: int = 320, height: int = 240) -> Image.Image:
    """Return a picture of coloured patches with fine grain."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    coarse = patches.resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 18, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def encode(image: Image.Image, form: str = "JPEG", **more: Any) -> Encoded:
    data = BytesIO()
    image.save(data, form, **more)
    return Encoded(name=form, data=data.getvalue())


def measure(*images: Image.Image) -> Any:
    return pictures.measure_images([encode(image, "PNG") for image in images], 2)[0]


# Pictures


def test_what_is_odd_about_a_picture() -> None:
    plain = [photo(seed) for seed in range(12)]
    odd = {
        "dark": Image.eval(photo(20), lambda value: value // 6),
        "light": Image.eval(photo(21), lambda value: 244 + value // 24),
        "empty": Image.new("RGB", (320, 240), (90, 120, 40)),
        "blurry": photo(22).filter(ImageFilter.GaussianBlur(12)),
        "odd shape": photo(23, 320, 60),
        "odd size": photo(24, 32, 24),
        "greyscale": photo(25).convert("L").convert("RGB"),
    }
    found = pictures.find_quality_problems(measure(*plain, *odd.values()))
    assert found[:12] == [()] * 12
    for name, problems in zip(odd, found[12:], strict=True):
        assert name in problems, (name, problems)


def test_arrays_and_files_are_measured_alike() -> None:
    image = photo()
    rows, about = pictures.measure_images([np.asarray(image), encode(image, "PNG")], 1)
    assert rows[0].tolist() == rows[1].tolist()
    assert [each.format for each in about] == ["", "PNG"]


def test_the_sides_are_those_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110], exif[0x0132] = 6, "Box 3", "2026:11:30 10:00:00"
    rows, about = pictures.measure_images([encode(photo(), "JPEG", exif=exif)], 1)
    assert (rows[0]["width"], rows[0]["height"]) == (240, 320)
    assert about[0] == pictures.Metadata("JPEG", "Box 3", "2026:11:30")


def test_an_image_that_went_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jpg"):
        pictures.measure_images([tmp_path / "none.jpg"], 2)


# Duplicates


def groups(images: list[Encoded], features: Any = None, hashes: Any = None) -> list[tuple[tuple[int, ...], bool]]:
    rows = pictures.measure_images(images, 1)[0]
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(images), 8)).astype(np.float32) if features is None else features
    found = duplicates.find_duplicates(hashes or [None] * len(images), rows, features)
    return [(group.rows, group.exact) for group in found]


def test_copies_are_found_by_content_and_by_pixels() -> None:
    images = [encode(photo(0), "PNG"), encode(photo(1)), encode(photo(0), "TIFF"), encode(photo(2)), encode(photo(3))]
    assert groups(images) == [((0, 2), True)]
    assert groups(images, hashes=["a", "b", "c", "b", None]) == [((0, 2), True), ((1, 3), True)]


def test_near_copies_need_close_features_and_a_similar_look() -> None:
    images = [encode(photo(seed)) for seed in range(20)]
    images[5] = encode(photo(4).crop((6, 4, 316, 236)), quality=60)
    features = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    assert groups(images, features) == []
    features[5] = features[4] + 0.01
    features[9] = features[8] + 0.01  # close, but they look different
    assert groups(images, features) == [((4, 5), False)]


def test_joined_pairs_are_one_group() -> None:
    assert duplicates.join_pairs([(5, 7), (1, 2), (7, 9), (2, 0)]) == [(0, 1, 2), (5, 7, 9)]


# Data sets


def test_an_image_like_no_other() -> None:
    features = np.random.default_rng(0).normal(1, 0.1, size=(60, 8)).astype(np.float32)
    features[13] = [5, -5] * 4
    assert datasets.find_outliers(find_neighbours(features, 10))[13]
    assert not datasets.find_outliers(find_neighbours(features[:1], 10)).any()


def test_rare_and_confused_classes() -> None:
    assert datasets.find_rare_classes({"a": 100, "b": 120, "c": 3}) == [{"class": "c", "images": 3}]
    labels, predicted = np.array([0] * 10 + [1] * 10 + [2] * 10), np.array([0] * 7 + [1] * 3 + [1] * 9 + [0] + [2] * 10)
    (found,) = datasets.find_confused_classes(labels, predicted, "abc")
    assert found == {"classes": ["a", "b"], "images": 4, "share": 0.2}


def test_series_of_images_depend_on_their_order() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 40)
    drift = np.cumsum(rng.normal(size=(160, 8)), axis=0).astype(np.float32)
    assert datasets.measure_order(find_neighbours(drift, 10), labels) < 0.05  # type: ignore[operator]
    mixed = rng.normal(size=(160, 8)).astype(np.float32)
    assert datasets.measure_order(find_neighbours(mixed, 10), labels) > 0.05  # type: ignore[operator]
    assert datasets.measure_order(find_neighbours(mixed[:3], 10), labels[:3]) is None


def test_a_property_that_gives_the_label_away() -> None:
    labels = np.repeat(np.arange(4), 25)
    rng = np.random.default_rng(0)
    properties = {
        "camera": [f"camera {label}" for label in labels],
        "width": rng.integers(100, 900, 100).tolist(),
        "file": [str(row) for row in range(100)],  # different for every image, which gives nothing away
        "format": ["JPEG"] * 100,
    }
    assert datasets.find_shortcuts(labels, properties) == [{"property": "camera", "accuracy": 1.0, "by_chance": 0.25}]
