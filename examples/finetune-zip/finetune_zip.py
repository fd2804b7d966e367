"""A dataset for finetune: reads photos from a zip archive in which each folder is a class."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from finetune import DataError, Dataset, Encoded, Options, Samples, Split, hookimpl

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Zip(Options):
    """Photos in a zip archive."""

    file: Path
    """The archive, with one folder of photos for each class."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``zip``."""
    yield Dataset(name="zip", options=Zip, build=build, reads=read_path)


def read_path(path: Path) -> dict[str, str] | None:
    """Read files that end in ``.zip``, so that `finetune eval MODEL photos.zip` works."""
    return {"file": str(path)} if path.suffix.lower() == ".zip" else None


def build(options: Zip, split: Split) -> Samples | None:
    """Return all photos as training images; the engine takes the validation images from them."""
    if split != "train":
        return None
    try:
        archive = ZipFile(options.file)
    except (OSError, BadZipFile) as error:
        raise DataError(f"'{options.file}' cannot be read as a zip archive: {error}; check dataset.file") from error
    names = sorted(n for n in archive.namelist() if n.lower().endswith(ENDINGS) and not n.startswith("__MACOSX/"))
    folders = [PurePosixPath(name).parent.name for name in names]
    classes = sorted(set(folders) - {""})
    if not classes:
        raise DataError(f"'{options.file}' has no photos in folders; put one folder for each class into it")
    photos = [(name, classes.index(folder)) for name, folder in zip(names, folders, strict=True) if folder]
    images = Photos(archive, [name for name, _ in photos])
    return Samples(images=images, labels=[label for _, label in photos], classes=tuple(classes))


class Photos(Sequence[Encoded]):
    """Photos as the bytes of their files, which the engine decodes; one thread at a time reads the archive."""

    def __init__(self, archive: ZipFile, names: list[str]) -> None:
        self.archive, self.names, self.lock = archive, names, threading.Lock()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # slices are not used
        name = self.names[index]
        with self.lock:
            return Encoded(name=name, data=self.archive.read(name))
