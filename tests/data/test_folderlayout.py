"""What folders mean: which are classes, which are splits, and where that is not clear."""

from __future__ import annotations

import pytest

from finetune.data.classfolders import count_by_class, explain_unclear, normalise_pattern
from finetune.data.folderlayout import Layout, Unclear, is_plain, read_layout
from finetune.data.folderreading import Tree
from finetune.data.splitfile import find_role


def tree(text: str, name: str = "photos") -> Tree:
    """Return a tree from a line: ``train/a:2 train/b:1`` are two images in ``train/a`` and one in ``train/b``."""
    inside: dict[str, list[str]] = {}
    images = 0
    for word in text.split():
        path, _, number = word.partition(":")
        first, _, rest = path.partition("/")
        if first:
            inside.setdefault(first, []).append(f"{rest}:{number or 1}")
        else:
            images += int(number)
    folders = tuple(tree(" ".join(rest), each) for each, rest in inside.items())
    return Tree(name=name, images=images, folders=folders)


CLEAR = {
    "a b": {"train": "*"},
    "train/a train/b": {"train": "train/*"},
    "train/a train/b val/a test/b": {"train": "train/*", "valid": "val/*", "test": "test/*"},
    "training_set/a training_set/b test_set/a": {"train": "training_set/*", "test": "test_set/*"},
    "flowers-train/a flowers-train/b flowers-val/a": {"train": "flowers-train/*", "valid": "flowers-val/*"},
    "Train_Images/a Train_Images/b Test_Images/a": {"train": "Train_Images/*", "test": "Test_Images/*"},
    "TrainingData/a TrainingData/b ValidationData/b": {"train": "TrainingData/*", "valid": "ValidationData/*"},
    "imagenet_train/a imagenet_train/b imagenet_val/b": {"train": "imagenet_train/*", "valid": "imagenet_val/*"},
    "trn/a trn/b dev/a tst/b": {"train": "trn/*", "valid": "dev/*", "test": "tst/*"},
    "TRAIN/a TRAIN/b TEST2/a": {"train": "TRAIN/*", "test": "TEST2/*"},
    "train/a train/b eval/a": {"train": "train/*", "valid": "eval/*"},
    "train/a train/b val/a eval/b": {"train": "train/*", "valid": "val/*", "test": "eval/*"},
    "train/a train/b holdout/a": {"train": "train/*", "test": "holdout/*"},
    "train/a train/b hold-out/a test/b": {"train": "train/*", "valid": "hold-out/*", "test": "test/*"},
    # classes next to a split folder
    "a b test/a test/b": {"train": "*", "test": "test/*"},
    "cat dog validation/Cat validation/dog": {"train": "*", "valid": "validation/*"},
    "a/x b/y test/a test/b": {"train": "*", "test": "test/*"},
    # splits inside each class
    "a/train a/test b/train b/test": {"train": "*/train", "test": "*/test"},
    "a/train a/val a/test b/Train b/VAL": {"train": "*/train", "valid": "*/val", "test": "*/test"},
    # wrappers and doubled folders
    "dataset/a dataset/b": {"train": "dataset/*"},
    "photos/a photos/b": {"train": "photos/*"},
    "archive/data/a archive/data/b": {"train": "archive/data/*"},
    "images/train/a images/train/b images/test/a": {"train": "images/train/*", "test": "images/test/*"},
    "images/a images/b annotations/xml:0": {"train": "images/*"},
    "data/a/train data/a/test data/b/train data/b/test": {"train": "data/*/train", "test": "data/*/test"},
    "train/train/a train/train/b test/test/a": {"train": "train/train/*", "test": "test/test/*"},
    "seg_train/seg_train/a seg_train/seg_train/b seg_test/seg_test/a seg_pred/seg_pred": {
        "train": "seg_train/seg_train/*",
        "test": "seg_test/seg_test/*",
    },
    "train/images/a train/images/b test/images/a": {"train": "train/images/*", "test": "test/images/*"},
    # a flat folder of images without labels
    "train/a train/b test:9": {"train": "train/*"},
    "train/a train/b unlabeled:9": {"train": "train/*"},
    "train/a train/b val/a photos_2024:9": {"train": "train/*", "valid": "val/*"},
    "labeled/a labeled/b unlabeled:9": {"train": "labeled/*"},
    # images next to a wrapper of splits
    ":1 x/train/a x/train/b x/val/a": {"train": "x/train/*", "valid": "x/val/*"},
    "x/:1 x/train/a x/train/b x/val/a": {"train": "x/train/*", "valid": "x/val/*"},
    # classes that are named like splits, and nested classes
    "bus car train": {"train": "*"},
    "bus car train test": {"train": "*"},
    "bus car test_tubes": {"train": "*"},
    "control test": {"train": "*"},
    "a/x a/y b/z": {"train": "*"},
    "a/a b/b": {"train": "*"},
    "a/:3 a/x b/x": {"train": "*"},
    "dogs/poodle dogs/beagle cats/siamese": {"train": "*"},
}


@pytest.mark.parametrize("text", CLEAR)
def test_layouts_that_are_clear(text: str) -> None:
    found = read_layout(tree(text))
    assert isinstance(found, Layout), found
    assert dict(found.splits) == CLEAR[text]


UNCLEAR = {
    "a:3 b:2 extra/a extra/b": [{"train": "*", "test": "extra/*"}, {"train": "*"}],
    "control/a control/b test/a test/b": [{"train": "*", "test": "test/*"}, {"train": "*"}],
    "control test/a test/b": [{"train": "*", "test": "test/*"}, {"train": "*"}],
    "bus car train/steam train/diesel": [{"train": "train/*"}, {"train": "*"}],
    "train/day train/night car/day car/night": [{"train": "train/*"}, {"train": "*"}],
    "train/a val/a valid/a": [{"train": "train/*", "valid": "val/*"}, {"train": "train/*", "valid": "valid/*"}],
    "train/a dev/a valid_2/a": [
        {"train": "train/*", "valid": "dev/*"},
        {"train": "train/*", "valid": "valid_2/*"},
        {"train": "*"},
    ],
    "a b test": [{"train": "*", "test": "test/*"}, {"train": "*"}],
    "a b val_images:7": [{"train": "*", "valid": "val_images/*"}, {"train": "*"}],
    "a b Unlabelled:7": [{"train": "*", "test": "Unlabelled/*"}, {"train": "*"}],
    "1/train/a 1/train/b 1/val/a 2/train/a 2/train/b 2/val/b": [
        {"train": "1/train/*", "valid": "1/val/*"},
        {"train": "2/train/*", "valid": "2/val/*"},
        {"train": "*/train", "valid": "*/val"},
    ],
    "a/train a/test b": [{"train": "*/train", "test": "*/test"}, {"train": "*"}],
    "a/:3 a/test b/:3 b/test": [{"train": "*", "test": "*/test"}, {"train": "*"}],
}


@pytest.mark.parametrize("text", UNCLEAR)
def test_layouts_that_are_not_clear(text: str) -> None:
    found = read_layout(tree(text))
    assert isinstance(found, Unclear), found
    assert [dict(each.splits) for each in found.readings] == UNCLEAR[text]


def test_an_unclear_tree_is_explained_with_counts_and_recipe_lines() -> None:
    photos = tree("a:3 b:2 extra/a extra/b:4")
    found = read_layout(photos)
    assert isinstance(found, Unclear)
    assert explain_unclear(found, photos, "my photos").splitlines() == [
        "'my photos' can be read in more than one way",
        "  train 2 classes (a 3, b 2); test 2 classes (a 1, b 4)",
        '    dataset: {use: folder, root: \'my photos\', train: "*", test: "extra/*"}',
        "  train 3 classes (a 3, b 2, extra 5)",
        "    dataset: {use: folder, root: 'my photos', train: \"*\"}",
        "add the line that you mean to the recipe",
    ]


def test_a_flat_folder_named_like_a_split_is_explained() -> None:
    photos = tree("a:3 b:2 test:7")
    found = read_layout(photos)
    assert isinstance(found, Unclear)
    assert explain_unclear(found, photos, "photos").splitlines()[1:3] == [
        "  train 2 classes (a 3, b 2); test 7 images without labels, not used",
        '    dataset: {use: folder, root: photos, train: "*", test: "test/*"}',
    ]


def test_images_of_splits_inside_a_class_are_counted_once() -> None:
    photos = tree("a/:3 a/test:2 b/:4 b/x:1")
    layout = Layout(splits={"train": "*", "test": "*/test"})
    assert count_by_class(layout, "train", photos) == {"a": 3, "b": 5}
    assert count_by_class(layout, "test", photos) == {"a": 2}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ("2023/cat 2023/dog 2024/cat 2024/dog", {"train": "2023/*", "valid": "2024/*"}),
        ("set1/a set1/b set1/c set2/a set2/b", {"train": "set1/*", "valid": "set2/*"}),
        ("x/one/a x/one/b x/two/a x/two/b", {"train": "x/one/*", "valid": "x/two/*"}),
        ("f1/a f1/b f2/a f2/b f3/a f3/b", {"train": "f1/*", "valid": "f2/*", "test": "f3/*"}),
    ],
)
def test_folders_that_hold_the_same_may_be_splits_or_classes(folders: str, splits: dict[str, str]) -> None:
    found = read_layout(tree(folders))
    assert isinstance(found, Unclear)
    prefix = "x/" if folders.startswith("x/") else ""
    assert [dict(each.splits) for each in found.readings] == [splits, {"train": f"{prefix}*"}]


@pytest.mark.parametrize("folders", ["a/x b/x", "a/x a/y b/p b/q", "a/:1 a/x a/y b/x b/y", "a/x a/y a/z b/x b/p b/q"])
def test_nested_folders_of_different_names_are_parts_of_their_class(folders: str) -> None:
    assert read_layout(tree(folders)) == Layout(splits={"train": "*"})


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(("train", "train"), ("Training_Set", "train"), ("x-train", "train"), ("trainset", "train"), ("TRN", "train")),
        *(("tEsT", "test"), ("vAlIdAtIoN", "valid")),
        *(("trainImages", "train"), ("train2017", "train"), ("trainval", "train"), ("train_val", "train")),
        *(("val", "valid"), ("Validation Images", "valid"), ("imagenet_val", "valid"), ("dev", "valid")),
        *(("test2", "test"), ("TestData", "test"), ("testing", "test"), ("my.tst", "test"), ("held out", "holdout")),
        *(("eval", "eval"), ("train_test", None), ("trainer", None), ("contest", None), ("valley", None)),
        *(("latest", None), ("device", None), ("interval", None), ("strain", None), ("", None), ("培训", None)),
    ],
)
def test_names_of_splits(name: str, role: str | None) -> None:
    assert find_role(name) == role


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        *(("train", "train/*"), ("train/", "train/*"), ("./train/*", "train/*"), ("*", "*"), (".", "*")),
        *(("*/train", "*/train"), ("/data/train", "/data/train/*"), ("a/*/b", "a/*/b")),
    ],
)
def test_patterns(given: str, pattern: str) -> None:
    assert normalise_pattern(given) == pattern


@pytest.mark.parametrize("given", ["*/*", "**", "a*/b*", "*.jpg/*"])
def test_patterns_with_several_stars(given: str) -> None:
    with pytest.raises(ValueError, match=r"use .\*. once"):
        normalise_pattern(given)


def test_usual_names_need_no_note() -> None:
    assert is_plain(Layout(splits={"train": "Training/*", "valid": "val/*", "test": "test/*"}))
    assert not is_plain(Layout(splits={"train": "train_set/*"}))
    assert not is_plain(Layout(splits={"train": "*", "test": "test/*"}))
