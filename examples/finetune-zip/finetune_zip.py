"""A dataset for finetune: reads photos from a zip archive in which each folder is a class."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from finetune import DataError, Dataset, Options, Samples, Split, hookimpl

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Zip(Options):
    """Photos in a zip archive."""

    file: Path
    """The archive, with one folder of photos for each class."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``zip``."""
    yield Dataset(name="zip", options=Zip, build=build)


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


class Photos(Sequence[NDArray[np.uint8]]):
    """Photos that are decoded on access; one thread at a time reads the archive."""

    def __init__(self, archive: ZipFile, names: list[str]) -> None:
        self.archive, self.names, self.lock = archive, names, threading.Lock()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:  # type: ignore[override]  # slices are not used
        with self.lock:
            data = self.archive.read(self.names[index])
        with Image.open(io.BytesIO(data)) as photo:  # outside the lock, since decoding takes longest
            return np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
