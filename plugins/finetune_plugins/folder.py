"""Dataset ``folder``: images in folders, one for each class, with or without folders for splits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from finetune import (
    DataError,
    Dataset,
    Finding,
    FolderReading,
    Options,
    Samples,
    Split,
    existing_folder,
    find_images,
    hookimpl,
    is_text,
    read_folder,
    split_pattern,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Severity = Literal["error", "warning", "note"]
Pattern = Annotated[str, AfterValidator(split_pattern)]

LEFT_OUT: dict[str, tuple[Severity, str]] = {
    "hidden": ("note", "hidden or belonging to the system: {}"),
    "other": ("note", "not images: {}"),
    "link": ("note", "links to folders that are read already: {}"),
    "dangling": ("warning", "broken links: {}; restore their targets, or remove them"),
    "ending": ("warning", "images whose names have no image ending: {}; rename them"),
    "format": ("warning", "images in a format that cannot be read: {}; convert them to JPEG or PNG"),
    "heif": (
        "warning",
        "HEIC photos, which need the extra `heif`: {}; pip install 'mindspore-finetune[heif]', or convert them to JPEG",
    ),
    "loose": ("warning", "images outside the class folders: {}; move them into one"),
}
NO_TEXT = "has a name that is not UTF-8; rename it"


class Folder(Options):
    """Images in folders that are named after their classes."""

    root: Path
    """Folder with one folder per class, or with a folder per split, such as `train`, that contains one folder per
    class."""
    train: Pattern | None = None
    """Where the training images are, starting at `root`; `*` stands for the class: `train/*`, `*/train`, or `*`
    alone."""
    valid: Pattern | None = None
    """Where the validation images are, in the same form; by default folders with usual names are recognised."""
    test: Pattern | None = None
    """Where the test images are, in the same form; if `train` is set, a split that is not set does not exist."""
    allow_empty: bool = False
    """Whether to skip class folders without images with a warning, instead of ending the run."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``folder``."""
    yield Dataset(name="folder", options=Folder, build=build, reads=read_path)


def read_path(path: Path) -> dict[str, str] | None:
    """Read any folder."""
    return {"root": str(path)} if os.path.isdir(path) else None


def build(options: Folder, split: Split) -> Samples | None:
    """Return the images of a split, sorted by path; without split folders, all images are ``train``."""
    root = existing_folder(options.root)
    try:
        given: dict[Split, str | None] = {"train": options.train, "valid": options.valid, "test": options.test}
        reading = read_folder(root, {each: pattern for each, pattern in given.items() if pattern})
        if split in reading.splits and not reading.is_unlabelled(split):
            return Reader(reading, split, options.allow_empty).read()
    except OSError as error:
        raise DataError(f"'{error.filename}' cannot be read: {error.strerror}; check who may read it") from error
    if split == "train":
        other = next(iter(reading.splits.values()), "test").split("/*")[0]
        raise DataError(f"'{root}' has '{other}' but no 'train'; put the folders of training photos there")
    return None


class Reader:
    """Collects the images of a split class by class, and the files that are left out by kind."""

    def __init__(self, reading: FolderReading, split: Split, allow_empty: bool) -> None:
        self.reading, self.split = reading, split
        self.folder = reading.folder_of(split)
        self.allow_empty = allow_empty
        self.images: list[Path] = []
        self.labels: list[int] = []
        self.classes: list[str] = []
        self.findings: list[Finding] = []
        self.left_out: dict[str, list[str]] = {each: [] for each in LEFT_OUT}

    def read(self) -> Samples:
        """Return all images below the class folders; raises ``DataError`` if there are no class folders."""
        folders = self.reading.class_folders(self.split)
        if not folders:
            hint = "" if self.reading.is_plain else "; if the folders in it are classes, set dataset.train='*'"
            remedy = "put one folder of photos for each class there"
            raise DataError(f"no class folder below '{self.folder}'; {remedy}{hint}")
        for name, kind in self.reading.loose(self.split):
            self.left_out["loose" if kind == "image" else kind].append(name)
        for name, path in folders:
            self.add_class(name, path)
        for each, (severity, text) in LEFT_OUT.items():
            if names := self.left_out[each]:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                self.find(severity, self.folder, "left out, " + text.format(f"'{names[0]}'{more}"))
        if self.split == "train":
            self.report_reading()
        return Samples(
            images=self.images, labels=self.labels, classes=tuple(self.classes), findings=tuple(self.findings)
        )

    def add_class(self, name: str, folder: Path) -> None:
        """Add the images of a class, including those in subfolders."""
        if not is_text(name):
            self.find("error", folder, NO_TEXT)
            return
        before = len(self.findings)
        found = find_images(folder, without=self.reading.inner_splits(self.split, folder))
        for each in found.skipped:
            if each.reason == "folder":
                self.find("error", Path(each.path), each.text)
            else:
                self.left_out[each.reason].append(os.path.relpath(each.path, self.folder))
        for photo in found.images:
            if not is_text(str(photo)):
                self.find("error", photo, NO_TEXT)
        if found.images:
            self.images += found.images
            self.labels += [len(self.classes)] * len(found.images)
            self.classes.append(name)
        elif self.allow_empty:
            self.find("warning", folder, "holds no photo; the class is skipped")
        elif len(self.findings) == before:
            self.find("error", folder, "holds no photo; add some, remove it, or set dataset.allow_empty=true")

    def report_reading(self) -> None:
        """Report how the folders were read, unless that is obvious, and which folders are not used."""
        if self.reading.note:
            self.find("note", self.reading.root, self.reading.note)
        for path, is_unlabelled in self.reading.unused():
            text = "is not used; it is next to the folders of the splits"
            if is_unlabelled:
                text = "is not used: its images have no labels; `finetune predict` labels them with the trained model"
            self.find("warning", path, text)

    def find(self, severity: Severity, path: Path, text: str) -> None:
        self.findings.append(Finding(severity=severity, subject=str(path), text=text))
