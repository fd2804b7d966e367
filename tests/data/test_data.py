"""From a dataset to parts: one class map, splits by hash, and every problem in one report."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.catalogue import Catalogue
from finetune.components import Dataset, Finding, NoOptions, Samples, Split
from finetune.data import loading as data
from finetune.errors import DataError, PluginError
from finetune.plugins import Plugins
from finetune.recipe.models import DatasetSection

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

Labelled = Sequence[tuple[Any, int]]

CATALOGUE = Catalogue(Plugins())


def section(**options: Any) -> DatasetSection:
    """Return a dataset section."""
    return DatasetSection.model_validate({"use": "test", **options})


def dataset(**splits: Samples | Callable[[], Any] | None) -> Dataset:
    """Return a dataset component with these splits."""

    def build(options: NoOptions, split: Split) -> Any:
        found = splits.get(split)
        return found() if callable(found) else found

    return Dataset(name="test", build=build)


def load(source: Dataset, *, seed: int = 1, **options: Any) -> data.Data:
    """Load a dataset as a run does."""
    return data.load(CATALOGUE.choose(source, NoOptions()), section(**options), seed, 2)


def arrays(counts: Sequence[int], classes: Sequence[str] | None = None, *, seed: int = 0) -> Samples:
    """Return small random arrays, so many of each class."""
    rng = np.random.default_rng(seed)
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    images = [rng.integers(0, 256, (6, 7, 3), np.uint8) for _ in labels]
    names = tuple(classes or (f"class{i}" for i in range(len(counts))))
    return Samples(images=images, labels=labels, classes=names)


def files(folder: Path, names: Mapping[str, int], classes: tuple[str, ...]) -> Samples:
    """Write one PNG for each name, all different, and return them with their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        rng = np.random.default_rng(zlib.crc32(f"{folder.name}/{name}".encode()))
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(folder / name)
    return Samples(images=[folder / name for name in names], labels=list(names.values()), classes=classes)


def findings(loaded: data.Data, kind: str) -> list[str]:
    """Return the report's findings of a kind, as lines."""
    chosen = [found for found in loaded.report["findings"] if found["kind"] == kind]
    return [f"{found['severity']} {found['split']} {found['subject']} {found['text']}" for found in chosen]


def failure(source: Dataset, **options: Any) -> str:
    """Return the error of a dataset that cannot be used."""
    with pytest.raises(DataError) as caught:
        load(source, **options)
    assert type(caught.value) is DataError
    return str(caught.value)


# Splits


def test_splits_of_the_dataset_are_kept(tmp_path: Path) -> None:
    loaded = load(dataset(train=arrays([5, 6]), valid=arrays([2, 3], seed=1), test=arrays([1, 1], seed=2)))
    assert (len(loaded.train), len(loaded.valid)) == (11, 5)
    assert loaded.test is not None
    assert len(loaded.test) == 2
    assert loaded.classes == ("class0", "class1")
    assert loaded.train.labels.tolist() == [0] * 5 + [1] * 6
    assert loaded.train.labels.dtype == np.int64
    assert loaded.report["split"] == {"method": "dataset"}
    assert loaded.report["counts"]["valid"] == {"class0": 2, "class1": 3}
    assert findings(loaded, "split") == []


def test_a_share_of_each_class_goes_to_validation() -> None:
    loaded = load(dataset(train=arrays([10, 25, 3, 2, 8])), split=0.3)
    assert loaded.report["split"] == {"method": "hash", "share": 0.3, "seed": 1}
    assert loaded.report["images"] == {"train": 29, "valid": 19}
    assert list(loaded.report["counts"]["valid"].values()) == [3, 10, 1, 1, 4]


def test_a_class_with_one_image_stays_in_training() -> None:
    loaded = load(dataset(train=arrays([4, 1])))
    assert loaded.train.labels.tolist().count(1) == 1
    assert 1 not in loaded.valid.labels
    assert findings(loaded, "class") == ["warning valid 'class1' has one photo, which stays in training"]


def test_only_single_images_leave_nothing_to_validate() -> None:
    message = failure(dataset(train=arrays([1, 1, 1])))
    assert "  valid: images: the split has no images to evaluate" in message


def test_copies_of_a_photo_go_to_the_same_side() -> None:
    samples = arrays([20, 20])
    doubled = Samples(images=[*samples.images, *samples.images], labels=[*samples.labels] * 2, classes=samples.classes)
    loaded = load(dataset(train=doubled), split=0.25)
    assert (np.bincount(loaded.valid.labels).tolist(), findings(loaded, "duplicate")) == ([8, 16], [])


def test_a_share_that_is_not_used_is_mentioned() -> None:
    loaded = load(dataset(train=arrays([3, 3]), valid=arrays([1, 1], seed=1)), split=0.5)
    assert findings(loaded, "split") == ["note valid dataset.split not used: the dataset has a validation split"]


# Classes


def test_labels_are_matched_by_the_name_of_the_class() -> None:
    train = arrays([2, 2, 2], ["ant", "bee", "cow"])
    valid = arrays([1, 2], ["cow", "ant"], seed=1)
    loaded = load(dataset(train=train, valid=valid))
    assert loaded.valid.labels.tolist() == [2, 0, 0]
    assert findings(loaded, "class") == ["warning valid 'bee' has no images in this split"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Rose", "; did you mean 'rose', which differs in upper and lower case?"),
        ("rose ", "; did you mean 'rose', which differs in spaces at the start or end?"),
        ("cafe\u0301", "; did you mean 'caf\u00e9', which is written with other Unicode characters (NFC and NFD)?"),
        (" CAFE\u0301", "; did you mean 'caf\u00e9', which differs in upper and lower case, spaces or Unicode form?"),
        ("rosa", "; did you mean 'rose'?"),
        ("xyz", ""),
    ],
)
def test_a_class_that_training_does_not_know(name: str, hint: str) -> None:
    train, valid = arrays([2, 2], ["rose", "caf\u00e9"]), arrays([2, 1], ["rose", name], seed=1)
    message = failure(dataset(train=train, valid=valid))
    assert message.splitlines() == [
        "dataset 'test' cannot be used",
        "1 problem with a class:",
        f"  valid: '{name}': is not a class of the training split{hint} (1 image)",
        "add training images to every class, and use the same class names in all splits",
    ]


def test_an_unknown_class_without_images_is_only_mentioned() -> None:
    loaded = load(dataset(train=arrays([2, 2]), valid=arrays([1, 1, 0], seed=1)))
    assert findings(loaded, "class") == [
        "warning valid 'class2' is not a class of the training split; did you mean 'class1'? (0 images)"
    ]


def test_classes_without_images_and_single_classes_are_errors() -> None:
    assert "  train: 'class1': has no training images" in failure(dataset(train=arrays([3, 0, 3])))
    assert "  train: 'class0': is the only class; at least two are needed" in failure(dataset(train=arrays([3])))
    assert "  train: images: the training split has no images" in failure(dataset(train=arrays([0, 0])))
    assert "  train: images: the training split has no images" in failure(dataset(train=arrays([])))


def test_an_empty_validation_split_is_an_error() -> None:
    message = failure(dataset(train=arrays([2, 2]), valid=arrays([0, 0])))
    assert "  valid: images: the split has no images to evaluate" in message


def test_names_that_look_alike_are_mentioned() -> None:
    loaded = load(dataset(train=arrays([2, 2], ["rose", "Rose"])))
    assert findings(loaded, "class") == [
        "warning train 'Rose' looks like 'rose', which differs in upper and lower case (2 images and 2)"
    ]


def test_imbalance_is_measured() -> None:
    loaded = load(dataset(train=arrays([50, 4]), valid=arrays([1, 1], seed=1)))
    assert loaded.report["imbalance"] == 12.5
    assert findings(loaded, "class") == [
        "warning train 'class0' has 12.5 times as many images as 'class1'; judge by macro_f1 and each class's recall"
    ]


# Bad images


def test_all_bad_images_are_listed_before_training(tmp_path: Path) -> None:
    train = files(tmp_path / "train", {f"{i}.png": i % 2 for i in range(60)}, ("a", "b"))
    valid = files(tmp_path / "valid", {"x.png": 0, "y.png": 1}, ("a", "b"))
    for i in range(25):
        (tmp_path / "train" / f"{i}.png").write_text("oops")
    (tmp_path / "valid" / "x.png").unlink()
    lines = failure(dataset(train=train, valid=valid)).splitlines()
    assert lines[:2] == ["dataset 'test' cannot be used", "26 images cannot be read:"]
    assert lines[2] == f"  train: {tmp_path}/train/0.png: is not an image: it starts with the text 'oops'"
    assert lines[21:] == [
        f"  train: {tmp_path}/train/19.png: is not an image: it starts with the text 'oops'",
        "  … and 6 more",
        "repair or remove these files, or skip them with dataset.on_bad_image=skip",
    ]


def test_bad_images_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    train = files(tmp_path / "train", {f"{i}.png": i % 2 for i in range(10)}, ("a", "b"))
    (tmp_path / "train" / "4.png").write_bytes(b"")
    loaded = load(dataset(train=train), on_bad_image="skip")
    assert len(loaded.train) + len(loaded.valid) == 9
    assert findings(loaded, "image") == [f"warning train {tmp_path}/train/4.png is empty"]
    assert tmp_path / "train" / "4.png" not in [*loaded.train.images, *loaded.valid.images]


def test_leaving_out_all_images_of_a_class_is_an_error(tmp_path: Path) -> None:
    train = files(tmp_path / "train", {"a.png": 0, "b.png": 1, "c.png": 1}, ("a", "b"))
    (tmp_path / "train" / "a.png").write_bytes(b"")
    assert "  train: 'a': has no training images" in failure(dataset(train=train), on_bad_image="skip")


def test_errors_of_all_kinds_come_together(tmp_path: Path) -> None:
    train = files(tmp_path / "train", {"a.png": 0, "b.png": 1, "c.png": 1}, ("a", "b"))
    (tmp_path / "train" / "b.png").write_bytes(b"")
    said = Finding(severity="error", subject="labels.csv", text="row 7 has no label")
    noted = Finding(severity="note", subject="Thumbs.db", text="ignored")
    train = Samples(images=train.images, labels=train.labels, classes=train.classes, findings=(said, noted))
    message = failure(dataset(train=train, valid=arrays([1, 1], ["a", "B"])))
    assert message.splitlines() == [
        "dataset 'test' cannot be used",
        "1 problem reported by the dataset:",
        "  train: labels.csv: row 7 has no label",
        "1 image cannot be read:",
        f"  train: {tmp_path}/train/b.png: is empty",
        "1 problem with a class:",
        "  valid: 'B': is not a class of the training split; did you mean 'b', which differs in upper and lower case? "
        "(1 image)",
        "repair or remove these files, or skip them with dataset.on_bad_image=skip",
        "add training images to every class, and use the same class names in all splits",
    ]


# Duplicates


def test_the_same_photo_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    train = files(tmp_path / "train", {"a.png": 0, "b.png": 1, "c.png": 1}, ("a", "b"))
    valid = files(tmp_path / "valid", {"x.png": 0, "y.png": 1, "z.png": 1}, ("a", "b"))
    (tmp_path / "valid" / "x.png").write_bytes((tmp_path / "train" / "a.png").read_bytes())
    (tmp_path / "valid" / "z.png").write_bytes((tmp_path / "train" / "a.png").read_bytes())
    loaded = load(dataset(train=train, valid=valid))
    assert findings(loaded, "duplicate") == [
        f"warning valid {tmp_path}/valid/x.png leak, the same photo as {tmp_path}/train/a.png in train",
        f"warning valid {tmp_path}/valid/z.png leak, the same photo as {tmp_path}/train/a.png in train; "
        "labelled 'b' here and 'a' there",
    ]


def test_the_same_photo_in_two_classes_is_mentioned() -> None:
    samples = arrays([3, 3])
    train = Samples(images=[*samples.images[:5], samples.images[0]], labels=samples.labels, classes=samples.classes)
    loaded = load(dataset(train=train, valid=arrays([1, 1], seed=3)))
    assert findings(loaded, "duplicate") == [
        "warning train dataset 'test' train[5] the same photo as dataset 'test' train[0] in train; "
        "labelled 'class1' here and 'class0' there"
    ]


def test_the_photo_that_is_twice_among_the_flowers(flowers: Path) -> None:
    def split(name: str) -> Samples:
        paths = sorted((flowers / name / "31").glob("*.jpg")) + sorted((flowers / name / "1").glob("*.jpg"))
        return Samples(images=paths, labels=[int(p.parent.name == "31") for p in paths], classes=("1", "31"))

    loaded = load(dataset(train=split("train"), valid=split("valid")))
    assert findings(loaded, "duplicate") == [
        f"warning valid {flowers}/valid/31/image_08067.jpg leak, "
        f"the same photo as {flowers}/train/31/image_08077.jpg in train"
    ]


# Datasets that do not keep their word


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 2, 1]}, "label 2 is 2, but there are 2 classes; labels must be 0 to 1"),
        ({"labels": [0, 1, 0, -1]}, "label 3 is -1, but there are 2 classes; labels must be 0 to 1"),
        ({"labels": [0, 1, -100, 1]}, "label 2 is -100, but there are 2 classes; labels must be 0 to 1"),
        ({"labels": [0, 1, 0]}, "4 images but 3 labels; give one label for each image"),
        ({"labels": [0, 1, 0.5, 1]}, "label 2 is 0.5; labels must be whole numbers, one for each image"),
        ({"labels": [0, 1, float("nan"), 1]}, "label 2 is nan; labels must be whole numbers, one for each image"),
        ({"labels": [0, 1, None, 1]}, "label 2 is None; labels must be whole numbers, one for each image"),
        ({"labels": ["0", "1", "0", "1"]}, "label 0 is '0'; labels must be whole numbers, one for each image"),
        ({"labels": [False, True, False, True]}, "label 0 is False; labels must be whole numbers, one for each image"),
        ({"classes": ("a", "a")}, "two classes named 'a'; class names must differ"),
        ({"classes": ("a", "")}, "the class name '' is empty or not valid Unicode; rename it"),
        ({"classes": ("a", "\udce9")}, r"the class name '\udce9' is empty or not valid Unicode; rename it"),
        ({"classes": ("a", 1)}, "classes must be a tuple of strings, not ('a', 1)"),
        ({"classes": "ab"}, "classes must be a tuple of strings, not 'ab'"),
    ],
)
def test_labels_and_classes_are_checked(change: dict[str, Any], message: str) -> None:
    good = arrays([2, 2], ["a", "b"])
    samples = Samples(**{"images": good.images, "labels": good.labels, "classes": good.classes, **change})
    assert failure(dataset(train=samples)) == f"dataset 'test', split train: {message}"


def test_numpy_labels_are_welcome() -> None:
    good = arrays([2, 2])
    samples = Samples(images=good.images, labels=np.array(good.labels, np.uint8), classes=good.classes)  # type: ignore[arg-type]
    assert load(dataset(train=samples)).train.labels.dtype == np.int64


def test_a_dataset_that_returns_something_else() -> None:
    message = failure(dataset(train=lambda: [1, 2]))
    assert message == "dataset 'test', split train: build returned a list; return finetune.Samples or None"
    assert failure(dataset()) == "dataset 'test' has no training split; `build` must return Samples for 'train'"


def test_a_dataset_that_raises_is_named() -> None:
    def broken() -> Samples:
        raise KeyError("labels")

    with pytest.raises(PluginError, match="dataset 'test', split valid: build failed: KeyError: 'labels'"):
        load(dataset(train=arrays([2, 2]), valid=broken))


def test_an_error_that_the_dataset_means_is_left_alone() -> None:
    def missing() -> Samples:
        raise DataError("no class folder below 'photos'; put one folder per class there")

    assert failure(dataset(train=missing)) == "no class folder below 'photos'; put one folder per class there"


def test_items_that_are_no_images_are_never_skipped() -> None:
    good = arrays([2, 2])
    samples = Samples(images=[*good.images[:3], "d.jpg"], labels=good.labels, classes=good.classes)
    assert failure(dataset(train=samples), on_bad_image="skip").splitlines() == [
        "dataset 'test' train: 1 items are not images; fix the dataset's `build`",
        "  image 3: is a str, not a path or an array",
    ]


# Parts and reports


def test_the_report_is_json(tmp_path: Path) -> None:
    samples = files(tmp_path / "train", {f"{i}.png": i % 2 for i in range(6)}, ("a", "b"))
    report = load(dataset(train=samples)).report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["dataset"] == "test"
    assert report["classes"] == ["a", "b"]


def test_the_fingerprint_follows_contents_labels_and_order(tmp_path: Path) -> None:
    samples = files(tmp_path / "train", {f"{i}.png": i % 2 for i in range(6)}, ("a", "b"))
    valid = arrays([1, 1], ["a", "b"])

    def fingerprint(images: Sequence[Any], labels: Sequence[int]) -> str:
        loaded = load(dataset(train=Samples(images=images, labels=labels, classes=("a", "b")), valid=valid))
        return str(loaded.report["fingerprint"]["train"])

    images, labels = list(samples.images), list(samples.labels)
    first = fingerprint(images, labels)
    assert fingerprint(images, labels) == first
    assert fingerprint(images[::-1], labels) != first
    assert fingerprint(images, labels[::-1]) != first
    Image.new("RGB", (3, 3)).save(images[0])
    assert fingerprint(images, labels) != first
