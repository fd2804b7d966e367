"""The dataset ``folder`` where splits lie elsewhere than in ``train``, ``valid`` and ``test``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from finetune import DataError, Split
from finetune.catalogue import Catalogue
from finetune.data import sources
from finetune.new import recipe as looking
from finetune.plugins import load_plugins
from finetune_plugins.folder import Folder, build
from tests.plugins.test_folder import findings, photos, relative, tree

if TYPE_CHECKING:
    from pathlib import Path

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def everything(root: Path, **options: str) -> dict[str, list[str]]:
    """Return the images of each split."""
    found = {split: build(Folder(root=root, **options), split) for split in SPLITS}  # type: ignore[arg-type]
    return {split: [name for name, _ in relative(samples, root)] for split, samples in found.items() if samples}


def test_usual_names_in_other_words(tmp_path: Path) -> None:
    root = tree(tmp_path, "training_set/a/1.jpg", "training_set/b/2.jpg", "test_set/a/3.jpg")
    assert everything(root) == {
        "train": ["training_set/a/1.jpg", "training_set/b/2.jpg"],
        "test": ["test_set/a/3.jpg"],
    }
    text = "folders are read as train in 'training_set', test in 'test_set'"
    assert findings(photos(root), root) == [("note", ".", text)]
    assert photos(root, "test").findings == ()


def test_a_split_next_to_the_classes(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "b/2.jpg", "test/a/3.jpg", "test/b/4.jpg")
    assert everything(root) == {"train": ["a/1.jpg", "b/2.jpg"], "test": ["test/a/3.jpg", "test/b/4.jpg"]}
    assert photos(root).classes == photos(root, "test").classes == ("a", "b")


def test_splits_inside_each_class_in_any_case(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/train/1.jpg", "a/val/2.jpg", "b/Train/deep/3.jpg", "b/VAL/4.jpg")
    assert everything(root) == {
        "train": ["a/train/1.jpg", "b/Train/deep/3.jpg"],
        "valid": ["a/val/2.jpg", "b/VAL/4.jpg"],
    }
    assert photos(root).classes == ("a", "b")


def test_wrappers_and_junk_next_to_them(tmp_path: Path) -> None:
    root = tree(tmp_path, "photos/a/1.jpg", "photos/b/2.jpg", "__MACOSX/photos/a/._1.jpg", "README.txt")
    assert everything(root) == {"train": ["photos/a/1.jpg", "photos/b/2.jpg"]}
    assert findings(photos(root), root) == [("note", ".", "folders are read as train in 'photos'")]


def test_images_without_labels_are_reported(tmp_path: Path) -> None:
    root = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg", "seg_pred/seg_pred/4.jpg")
    text = "is not used: its images have no labels; `finetune predict` labels them with the trained model"
    assert findings(photos(root), root) == [("warning", "seg_pred", text), ("warning", "test", text)]
    assert build(Folder(root=root), "test") is None


def test_a_flat_folder_named_like_a_split_is_a_class_or_has_no_labels(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "b/2.jpg", "test/3.jpg")
    with pytest.raises(DataError, match="can be read in more than one way"):
        photos(root)
    assert everything(root, train="*") == {"train": ["a/1.jpg", "b/2.jpg", "test/3.jpg"]}
    assert everything(root, train="*", test="test/*") == {"train": ["a/1.jpg", "b/2.jpg"]}
    text = "is not used: its images have no labels; `finetune predict` labels them with the trained model"
    found = build(Folder(root=root, train="*", test="test/*"), "train")
    assert found is not None
    assert findings(found, root) == [("warning", "test", text)]


@pytest.mark.parametrize("link", ["again", "train/again"])
def test_a_link_to_a_folder_that_holds_it_is_not_a_class(tmp_path: Path, link: str) -> None:
    root = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg")
    (root / link).symlink_to(root)
    found = photos(root)
    assert found.classes == ("a", "b")
    assert len(found.images) == 2


def test_what_lies_next_to_class_folders_is_told_apart_as_inside_them(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "b/2.jpg", "notes.txt")
    (root / "gone").symlink_to("nowhere")
    Image.new("RGB", (2, 2)).save(root / "scan", "PNG")
    assert findings(photos(root), root) == [
        ("note", ".", "left out, not images: 'notes.txt'"),
        ("warning", ".", "left out, broken links: 'gone'; restore their targets, or remove them"),
        ("warning", ".", "left out, images whose names have no image ending: 'scan'; rename them"),
    ]


def test_links_to_splits_and_classes(tmp_path: Path) -> None:
    tree(tmp_path / "all", "a/1.jpg", "b/2.jpg")
    root = tree(tmp_path / "root", "training/")
    (root / "training").rmdir()
    (root / "training").symlink_to(tmp_path / "all")
    (root / "held_out").mkdir()
    for name in "ab":
        (root / "held_out" / name).symlink_to(tmp_path / "all" / name)
    assert {split: len(names) for split, names in everything(root).items()} == {"train": 2, "test": 2}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"train": "*", "test": "extra"},
            {"train": ["a/1.jpg", "b/2.jpg"], "test": ["extra/a/3.jpg", "extra/b/4.jpg"]},
        ),
        ({"test": "extra/*"}, {"train": ["a/1.jpg", "b/2.jpg"], "test": ["extra/a/3.jpg", "extra/b/4.jpg"]}),
        ({"train": "*"}, {"train": ["a/1.jpg", "b/2.jpg", "extra/a/3.jpg", "extra/b/4.jpg"]}),
        ({"train": "extra"}, {"train": ["extra/a/3.jpg", "extra/b/4.jpg"]}),
    ],
)
def test_options_decide_what_is_not_clear(
    tmp_path: Path, options: dict[str, str], expected: dict[str, list[str]]
) -> None:
    root = tree(tmp_path, "a/1.jpg", "b/2.jpg", "extra/a/3.jpg", "extra/b/4.jpg")
    with pytest.raises(DataError, match="can be read in more than one way"):
        build(Folder(root=root), "train")
    assert everything(root, **options) == expected


def test_options_win_over_names(tmp_path: Path) -> None:
    root = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "dev/a/4.jpg")
    assert everything(root, valid="dev") == {
        "train": ["train/a/1.jpg", "train/b/2.jpg"],
        "valid": ["dev/a/4.jpg"],
    }
    assert photos(tree(tmp_path / "x", "train/a/1.jpg", "test/b/2.jpg"), "train").classes == ("a",)
    root = tmp_path / "x"
    assert everything(root, train="*") == {"train": ["test/b/2.jpg", "train/a/1.jpg"]}


def test_a_split_inside_a_class_is_not_trained_on(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "a/more/2.jpg", "a/test/3.jpg", "b/4.jpg", "b/test/5.jpg")
    assert everything(root, train="*", test="*/test") == {
        "train": ["a/1.jpg", "a/more/2.jpg", "b/4.jpg"],
        "test": ["a/test/3.jpg", "b/test/5.jpg"],
    }


def test_a_split_elsewhere(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "a/1.jpg", "b/2.jpg")
    tree(tmp_path / "other", "a/3.jpg")
    assert photos(root).classes == ("a", "b")
    found = build(Folder(root=root, train="*", test=str(tmp_path / "other")), "test")
    assert found is not None
    assert found.images == [tmp_path / "other" / "a" / "3.jpg"]


def test_a_test_split_alone_can_be_measured(tmp_path: Path) -> None:
    root = tree(tmp_path, "Test_Images/a/1.jpg", "Test_Images/b/2.jpg")
    assert photos(root, "test").classes == ("a", "b")
    with pytest.raises(DataError, match="has 'Test_Images' but no 'train'"):
        build(Folder(root=root), "train")


def test_another_folder_need_not_have_the_folders_of_the_training_data(tmp_path: Path) -> None:
    root = tree(tmp_path / "new", "a/1.jpg", "b/2.jpg")
    trained_on = {"use": "folder", "root": str(tmp_path / "old"), "train": "*", "test": "extra"}
    catalogue = Catalogue(load_plugins())
    with pytest.raises(DataError, match="cannot be read") as caught:  # found, and then decoded: these are no images
        sources.load_labelled(str(root), {"classes": ["a", "b"], "dataset": trained_on}, catalogue, 1)
    assert "2 photos cannot be read" in str(caught.value)


def test_a_new_recipe_knows_the_splits(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "b/2.jpg", "validation/a/3.jpg", "validation/b/4.jpg")
    seen = looking.look_at_photos(root, Catalogue(load_plugins()))
    assert seen.splits == {"train": 2, "valid": 2}
    assert seen.counts == {"a": 1, "b": 1}
