"""The dataset ``folder``: which photos are found, in which order, and what is said about the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finetune import DataError, Samples, natural_key
from finetune_plugins.folder import Folder, build

if TYPE_CHECKING:
    from finetune import Split


def tree(root: Path, *names: str) -> Path:
    """Make files, and folders where a name ends with a slash."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"photo")
    return root


def photos(root: Path, split: Split = "train", allow_empty: bool = False) -> Samples:
    samples = build(Folder(root=root, allow_empty=allow_empty), split)
    assert samples is not None
    return samples


def relative(samples: Samples, root: Path) -> list[tuple[str, str]]:
    images = [image for image in samples.images if isinstance(image, Path)]
    pairs = zip(images, samples.labels, strict=True)
    return [(image.relative_to(root).as_posix(), samples.classes[label]) for image, label in pairs]


def findings(samples: Samples, root: Path) -> list[tuple[str, str, str]]:
    return [(f.severity, os.path.relpath(f.subject, root), f.text) for f in samples.findings]


def test_classes_below_root_are_the_training_split(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "rose/2.jpg", "rose/10.JPEG", "rose/1.png", "daisy/a b.webp", "daisy/中文 🌼.tif", "a.b/x.gif"
    )
    samples = photos(root)
    assert relative(samples, root) == [
        *[("a.b/x.gif", "a.b"), ("daisy/a b.webp", "daisy"), ("daisy/中文 🌼.tif", "daisy")],
        *[("rose/1.png", "rose"), ("rose/2.jpg", "rose"), ("rose/10.JPEG", "rose")],
    ]
    assert samples.findings == ()
    assert build(Folder(root=root), "valid") is None
    assert build(Folder(root=root), "test") is None


@pytest.mark.parametrize("valid", ["valid", "val", "Validation"])
def test_folders_of_splits(tmp_path: Path, valid: str) -> None:
    root = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{valid}/a/3.jpg", "test/b/4.jpg", "test/c/5.jpg")
    assert relative(photos(root), root) == [("train/a/1.jpg", "a"), ("train/b/2.jpg", "b")]
    assert relative(photos(root, "valid"), root) == [(f"{valid}/a/3.jpg", "a")]
    assert photos(root, "test").classes == ("b", "c")


def test_a_training_split_alone_and_one_split_given_itself(tmp_path: Path) -> None:
    root = tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg")
    assert photos(root).classes == photos(root / "train").classes == ("a", "b")
    assert build(Folder(root=root), "valid") is None


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert photos(tree(tmp_path, "train/1.jpg", "car/2.jpg", "test/3.jpg")).classes == ("car", "test", "train")


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{i}/x.jpg" for i in (10, 9, 1, 100, 2)))
    assert photos(root).classes == ("1", "2", "9", "10", "100")
    names = ["a", "a1", "a01", "a2", "a10", "b", "1", "", "10", "2", "٣", "9" * 5000]
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


def test_order_does_not_depend_on_the_file_system(tmp_path: Path) -> None:
    names = [f"{c}/{d}/{i}.jpg" for c in "ab" for d in (f"{c}x", f"{c}y", f"{c}x/z") for i in range(3)]
    first = tree(tmp_path / "first", *names)
    second = tree(tmp_path / "second", *reversed(names))
    assert relative(photos(first), first) == relative(photos(second), second)


def test_folders_inside_a_class_are_read(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "a/deep/er/2.jpg", "b/3.jpg", "b/" + "d/" * 200 + "4.jpg")
    assert len(photos(root)) == 4
    assert photos(root).classes == ("a", "b")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    root = tree(
        *(tmp_path, "a/1.jpg", "b/2.jpg", "a/notes.txt", "b/list.csv", "README", "a/.DS_Store", "a/Thumbs.db"),
        *(".ipynb_checkpoints/3.jpg", "__MACOSX/a/._1.jpg", "a/.ipynb_checkpoints/1-checkpoint.jpg", "a/._1.jpg"),
        *("b/IMG_1.DNG", "loose.jpg"),
    )
    samples = photos(root)
    assert relative(samples, root) == [("a/1.jpg", "a"), ("b/2.jpg", "b")]
    assert findings(samples, root) == [
        ("note", ".", "left out, hidden or belonging to the system: '.ipynb_checkpoints' and 5 more"),
        ("note", ".", "left out, not images: 'README' and 2 more"),
        (
            *("warning", "."),
            "left out, images in a format that cannot be read: 'b/IMG_1.DNG'; convert them to JPEG or PNG",
        ),
        ("warning", ".", "left out, images outside the class folders: 'loose.jpg'; move them into one"),
    ]


def test_what_lies_beside_the_splits_is_said_once(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "train/a/1.jpg", "train/b/2.jpg", "valid/a/3.jpg", "extra/a/4.jpg", "x.jpg", "cat_to_name.json"
    )
    text = "is not used; it is next to the folders of the splits"
    assert findings(photos(root), root) == [("warning", "extra", text), ("warning", "x.jpg", text)]
    assert findings(photos(root, "valid"), root) == []


def test_empty_classes(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "b/2.jpg", "c/", "d/deep/notes.txt")
    text = "holds no photo; add some, remove it, or set dataset.allow_empty=true"
    assert findings(photos(root), root)[:2] == [("error", "c", text), ("error", "d", text)]
    allowed = photos(root, allow_empty=True)
    assert allowed.classes == ("a", "b")
    text = "holds no photo; the class is skipped"
    assert findings(allowed, root)[:2] == [("warning", "c", text), ("warning", "d", text)]


def test_links(tmp_path: Path) -> None:
    root = tree(tmp_path / "top" / "root", "a/1.jpg", "a/sub/2.jpg", "b/3.jpg")
    other = tree(tmp_path / "other", "4.jpg", "more/5.jpg")
    (root / "a" / "0 itself").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "above").symlink_to(tmp_path / "top")
    (root / "a" / "again").symlink_to(root / "a" / "sub")
    (root / "a" / "sub" / "round").symlink_to(Path(".."))
    (root / "a" / "nowhere").symlink_to(root / "nowhere")
    (root / "a" / "circle").symlink_to(root / "a" / "circle")
    (root / "b" / "elsewhere").symlink_to(other)
    (other / "more" / "back").symlink_to(other)
    (root / "c").symlink_to(other)
    samples = photos(root)
    assert [name for name, _ in relative(samples, root)] == [
        *("a/1.jpg", "a/sub/2.jpg", "b/3.jpg", "b/elsewhere/4.jpg", "b/elsewhere/more/5.jpg"),
        *("c/4.jpg", "c/more/5.jpg"),
    ]
    text = "left out, links to folders that are read already: 'a/0 itself' and 6 more"
    assert ("note", ".", text) in findings(samples, root)


def test_odd_things_named_like_photos_are_left_to_the_scan(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/folder.jpg/", "b/1.jpg")
    os.mkfifo(root / "a" / "fifo.jpg")
    (root / "a" / "dangling.jpg").symlink_to(root / "nowhere")
    assert [name for name, _ in relative(photos(root), root)][:3] == ["a/dangling.jpg", "a/fifo.jpg", "a/folder.jpg"]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.jpg", "b/2.jpg")
    (root / "a" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    (root / os.fsdecode(b"\xe9")).mkdir()
    found = photos(root).findings
    assert [f.text for f in found] == ["has a name that is not UTF-8; rename it"] * 2
    assert "\udcff.jpg" in found[0].subject
    assert "\udce9" in found[1].subject


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "a/1.jpg", "a/secret/2.jpg", "b/3.jpg", "c/4.jpg")
    scandir = os.scandir

    def refuse(path: str | Path) -> os._ScandirIterator[str]:  # root, who may read everything, runs tests too
        if Path(path).name in ("secret", "c", "forbidden"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    text = "cannot be read: Permission denied; check its permissions"
    assert findings(photos(root), root) == [("error", "a/secret", text), ("error", "c", text)]
    with pytest.raises(DataError, match=r"forbidden' cannot be read: Permission denied; check who may read it"):
        photos(tree(tmp_path, "forbidden/a/1.jpg") / "forbidden")


@pytest.mark.parametrize(
    ("names", "given", "text"),
    [
        (["photos/a/1.jpg"], "fotos", "no folder '{}/fotos': '{}' has no 'fotos'; did you mean 'photos'?"),
        (["photos/a/1.jpg"], "q/r/s", "no folder '{}/q/r/s': '{}' has no 'q'; check dataset.root"),
        (["1.jpg"], ".", "no class folder below '{}'; put one folder of photos for each class there"),
        ([".git/x/1.jpg"], ".", "no class folder below '{}'; put one folder of photos for each class there"),
        (["train/1.jpg"], ".", "no class folder below '{}/train'; put one folder of photos for each class there"),
        (["val/a/1.jpg", "test/a/1.jpg"], ".", "'{}' has 'val' but no 'train'; put the folders of training photos"),
        (["train/a/", "val/a/", "valid/a/"], ".", "'{}' has 'val' and 'valid', which name the same split; keep one"),
        (["t.csv"], "t.csv", "'{}/t.csv' is a file, not a folder of photos; dataset.use=csv reads tables of photos"),
        (["t.zip"], "t.zip", "'{}/t.zip' is a file, not a folder of photos; unpack it first"),
        (["t.jpg"], "t.jpg", "'{}/t.jpg' is a file, not a folder of photos; check dataset.root"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, names: list[str], given: str, text: str) -> None:
    tree(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        build(Folder(root=tmp_path / given), "train")
    assert str(caught.value).startswith(text.replace("{}", str(tmp_path)))


def test_home_may_be_abbreviated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree(tmp_path, "photos/a/1.jpg", "photos/b/2.jpg")))
    assert photos(Path("~/photos")).classes == ("a", "b")


def test_the_real_flowers(flowers: Path) -> None:
    train, valid, test = (photos(flowers, split) for split in ("train", "valid", "test"))
    assert [len(split) for split in (train, valid, test)] == [6552, 818, 819]
    assert train.classes == valid.classes == test.classes == tuple(str(i) for i in range(1, 103))
