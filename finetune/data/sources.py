"""From what a user calls data — a folder, a CSV file, arrays — to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import Dataset, NoOptions, Samples, Split
from finetune.data import loading as datas
from finetune.errors import DataError, UsageError
from finetune.recipe import plan as plans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.catalogue import Catalogue
    from finetune.data.loading import Part

RECIPES = (".yaml", ".yml")


def section(path: Path, like: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the dataset section for a folder or CSV file; ``like`` is one for data of the same form, if known."""
    if not path.exists():
        raise DataError(f"no data at {path}; name a folder of class folders or a CSV file")
    key = "file" if path.is_file() else "root"
    if like is not None and key in like:
        return {**like, key: str(path)}
    if path.is_dir():
        return {"use": "folder", "root": str(path)}
    if path.suffix.lower() == ".csv":
        return {"use": "csv", "file": str(path)}
    raise UsageError(f"{path} is neither a folder nor a .csv file; for other data name a recipe (.yaml)")


def labelled(data: object, about: dict[str, Any], catalogue: Catalogue, workers: int) -> Part:
    """Return the part of some data to evaluate on: its test split, else its validation split, else all of it.

    ``about`` is a model's record: its classes are enforced, its dataset section tells how to read the data.
    """
    classes = tuple(about["classes"])
    if isinstance(data, tuple):
        return datas.part(from_arrays(*data, classes=classes), classes, "arrays", workers)
    path = Path(str(data))
    if path.suffix in RECIPES:
        chosen = plans.load(path, [], catalogue).dataset
    else:
        dataset = section(path, about.get("dataset"))
        try:
            chosen = plans.load({"dataset": dataset}, [], catalogue).dataset
        except UsageError:
            chosen = plans.load({"dataset": section(path)}, [], catalogue).dataset
    splits: tuple[Split, ...] = ("test", "valid", "train")
    for split in splits:
        samples = chosen.component.build(chosen.options, split)
        if samples is not None:
            return datas.part(samples, classes, split, workers)
    raise DataError(f"dataset '{chosen.component.name}' has no images in {path}")


def from_arrays(images: Sequence[Any], labels: Sequence[Any], *, classes: tuple[str, ...] | None = None) -> Samples:
    """Return samples of images (paths or HWC uint8 RGB) and labels (names, or numbers from 0)."""
    if len(images) != len(labels):
        raise DataError(f"{len(images)} images but {len(labels)} labels; give one label for each image")
    listed = [Path(i) if isinstance(i, str | Path) else np.asarray(i) for i in images]
    if classes is not None and all(isinstance(label, int | np.integer) for label in labels):
        return Samples(images=listed, labels=[int(label) for label in labels], classes=classes)
    texts = [str(label) for label in labels]
    numeric = all(text.isdecimal() for text in texts)
    names = tuple(sorted(set(texts), key=int if numeric else None))
    return Samples(images=listed, labels=[names.index(text) for text in texts], classes=names)


def array_dataset(images: Sequence[Any], labels: Sequence[Any]) -> Dataset:
    """Return a dataset component of images and labels in memory; a validation split is taken from it."""
    samples = from_arrays(images, labels)

    def build(options: NoOptions, split: Split) -> Samples | None:
        return samples if split == "train" else None

    return Dataset(name="arrays", build=build)
