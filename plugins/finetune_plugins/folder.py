"""Photos in folders: one folder for each class, all together or below ``train``, ``valid`` and ``test``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune import DataError, Dataset, Finding, Options, Samples, Split, hookimpl
from finetune_plugins.photo_files import existing, is_folder, is_hidden, is_text, kind, listed, natural, subfolders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Severity = Literal["error", "warning", "note"]

NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
LEFT_OUT: dict[str, tuple[Severity, str]] = {
    "hidden": ("note", "hidden or belonging to the system: {}"),
    "other": ("note", "no photos, by their names: {}"),
    "link": ("note", "links to folders that are read already: {}"),
    "unreadable": ("warning", "photos in a format that cannot be read: {}; convert them to JPEG or PNG"),
    "loose": ("warning", "photos that lie in no class folder: {}; put them into one"),
}
NO_TEXT = "is named by bytes that are no UTF-8 text; rename it"


class Folder(Options):
    """Photos in folders named like their classes."""

    root: Path
    """Folder with one folder per class, or with `train`, `valid` and `test` that each hold one per class."""
    allow_empty: bool = False
    """Leave out class folders without photos with a warning, instead of ending the run."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``folder``."""
    yield Dataset(name="folder", options=Folder, build=build)


def build(options: Folder, split: Split) -> Samples | None:
    """Return the photos of a split, sorted by path; without split folders everything is ``train``."""
    root = existing(options.root)
    try:
        folders = split_folders(root)
        if split not in folders:
            return None
        reader = Reader(folders[split], options.allow_empty)
        if split == "train" and folders["train"] != root:
            reader.warn_unused(root, set(folders.values()))
        return reader.read()
    except OSError as error:
        raise DataError(f"'{error.filename}' cannot be read: {error.strerror}; check who may read it") from error


def split_folders(root: Path) -> dict[Split, Path]:
    """Return the folder of each split that there is; ``train`` is ``root`` itself where classes lie right below it."""
    below = subfolders(root)
    found: dict[Split, Path] = {}
    for split, names in NAMES.items():
        matching = [path for path in below if path.name.lower() in names]
        if len(matching) > 1:
            both = "' and '".join(path.name for path in matching)
            raise DataError(f"'{root}' has '{both}', which mean the same split; keep one")
        if matching:
            found[split] = matching[0]
    only_splits = bool(found) and len(found) == len(below)
    # Otherwise "train" is a class, beside "car" and "ship".
    if "train" in found and (only_splits or subfolders(found["train"])):
        return found
    if only_splits:
        raise DataError(f"'{root}' has '{below[0].name}' but no 'train'; put the folders of training photos there")
    return {"train": root}


class Reader:
    """The photos of one split, gathered class by class; what is left out is listed by kind."""

    def __init__(self, folder: Path, allow_empty: bool) -> None:
        self.folder = folder
        self.allow_empty = allow_empty
        self.images: list[Path] = []
        self.labels: list[int] = []
        self.classes: list[str] = []
        self.findings: list[Finding] = []
        self.left_out: dict[str, list[str]] = {each: [] for each in LEFT_OUT}

    def read(self) -> Samples:
        """Return all photos below the class folders; raises ``DataError`` if there is no such folder."""
        folders = [entry for entry in listed(self.folder) if self.is_class(entry)]
        if not folders:
            raise DataError(f"no class folder below '{self.folder}'; put one folder of photos for each class there")
        for entry in folders:
            self.add_class(Path(entry.path))
        for each, (severity, text) in LEFT_OUT.items():
            if names := self.left_out[each]:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                self.find(severity, self.folder, "left out, " + text.format(f"'{names[0]}'{more}"))
        return Samples(
            images=self.images, labels=self.labels, classes=tuple(self.classes), findings=tuple(self.findings)
        )

    def is_class(self, entry: os.DirEntry[str]) -> bool:
        if is_folder(entry) and not is_hidden(entry.name):
            return True
        each = kind(entry.name)
        self.left_out["loose" if each == "photo" else each].append(entry.name)
        return False

    def add_class(self, folder: Path) -> None:
        """Add the photos of a class, with those in folders inside its folder."""
        if not is_text(folder.name):
            self.find("error", folder, NO_TEXT)
            return
        before = len(self.findings)
        photos = list(self.walk(str(folder)))
        photos.sort(key=lambda photo: [natural(part) for part in photo[len(str(folder)) + 1 :].split(os.sep)])
        for photo in photos:
            if not is_text(photo):
                self.find("error", Path(photo), NO_TEXT)
        if photos:
            self.images += map(Path, photos)
            self.labels += [len(self.classes)] * len(photos)
            self.classes.append(folder.name)
        elif self.allow_empty:
            self.find("warning", folder, "holds no photo; the class is left out")
        elif len(self.findings) == before:
            self.find("error", folder, "holds no photo; add some, remove it, or set dataset.allow_empty=true")

    def walk(self, folder: str) -> Iterator[str]:
        """Yield the photos below a folder, each real folder once, and none by a link that leads back up."""
        seen = {os.path.realpath(folder)}
        waiting, links = [folder], list[str]()
        while waiting or links:
            if not waiting:  # links come last, so that it does not matter how they are called
                path = links.pop(0)
                if is_above(os.path.realpath(path), seen):
                    self.left_out["link"].append(os.path.relpath(path, self.folder))
                    continue
                waiting.append(path)
            path = waiting.pop()
            seen.add(os.path.realpath(path))
            for entry in self.entries(path):
                each = kind(entry.name)
                if each == "photo":
                    yield entry.path
                elif each == "hidden" or not is_folder(entry):
                    self.left_out[each].append(entry.name)
                else:
                    (links if entry.is_symlink() else waiting).append(entry.path)

    def entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            return listed(folder)
        except OSError as error:
            self.find("error", Path(folder), f"cannot be read: {error.strerror}; check who may read it")
            return []

    def warn_unused(self, root: Path, used: set[Path]) -> None:
        """Say what lies beside the folders of the splits and is not read."""
        for entry in listed(root):
            path, each = Path(entry.path), kind(entry.name)
            if path not in used and (each == "photo" or (each == "other" and is_folder(entry))):
                self.find("warning", path, "is not used; it lies beside the folders of the splits")

    def find(self, severity: Severity, path: Path, text: str) -> None:
        self.findings.append(Finding(severity=severity, subject=str(path), text=text))


def is_above(folder: str, others: Iterable[str]) -> bool:
    """Whether a folder is one of the others or holds one of them."""
    return any(f"{other}{os.sep}".startswith(f"{folder.rstrip(os.sep)}{os.sep}") for other in others)
