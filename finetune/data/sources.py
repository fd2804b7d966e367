"""Data sources: turns the ``data`` argument (a folder, a CSV file, a component, arrays) into a dataset."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from finetune.components import Dataset, NoOptions, Options, Samples, Split
from finetune.data import labelled as labelled_images
from finetune.data import loading as datas
from finetune.data.corrections import read_corrections
from finetune.data.imagefile import Refused
from finetune.data.images import WHITE, to_rgb, turn_upright
from finetune.errors import DataError, RecipeError, UsageError
from finetune.files.atomic import expand_home
from finetune.recipe import plan as plans

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue, Chosen
    from finetune.components import Color, Pixels
    from finetune.data.loading import Part
    from finetune.recipe.plan import Plan


NAME = "arrays"


def list_images(images: Any, color: Color = "convert") -> list[Path | Pixels]:
    """Return images as paths or arrays; Pillow images become upright RGB arrays.

    ``color`` says whether the colour profiles of Pillow images are applied. Raises ``UsageError`` for a single image,
    whose elements are not images.
    """
    single = isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind in "uif"
    if single or isinstance(images, str | bytes | Path | Image.Image) or not isinstance(images, Iterable):
        raise UsageError(f"images must be a list; for a single {type(images).__name__} write [image]")
    return [expand_home(i) if isinstance(i, str | Path) else _to_pixels(n, i, color) for n, i in enumerate(images)]


def _to_pixels(number: int, image: Any, color: Color) -> Pixels:
    if not isinstance(image, Image.Image):
        return np.asarray(image)
    try:
        return to_rgb(turn_upright(image), WHITE, color)
    except (Refused, OSError) as error:
        raise DataError(f"images[{number}] {error}") from error


def build_samples(
    images: Any, labels: Sequence[Any], known: tuple[str, ...] | None = None, color: Color = "convert"
) -> Samples:
    """Build samples from images and their labels, which are names or numbers from 0.

    Numbers are used as class names, in numeric order. If there are ``known`` classes whose names are not all numbers,
    a number is an index into them instead.
    """
    listed, given = list_images(images, color), list(labels)
    if len(listed) != len(given):
        raise DataError(f"{len(listed)} images but {len(given)} labels; give one label for each image")
    names = [_name_class(number, label) for number, label in enumerate(given)]
    numeric = all(isinstance(label, int | np.integer) for label in given)
    if numeric and known is not None and not all(name.isdecimal() for name in known):
        return Samples(images=listed, labels=[int(label) for label in given], classes=known)
    classes = tuple(sorted(set(names), key=int if numeric else None))
    places = {name: place for place, name in enumerate(classes)}
    return Samples(images=listed, labels=[places[name] for name in names], classes=classes)


def _name_class(number: int, label: Any) -> str:
    if isinstance(label, str):
        return str(label)
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and label >= 0:
        return str(int(label))
    raise DataError(f"label {number} is {label!r:.60}; use names, or whole numbers from 0, as labels")


def build_dataset(images: Any, labels: Sequence[Any], color: Color = "convert") -> Dataset:
    """Build a dataset component from images and labels in memory; it has only a training split."""
    found = build_samples(images, labels, color=color)

    def build(options: NoOptions, split: Split) -> Samples | None:
        return found if split == "train" else None

    return Dataset(name=NAME, build=build)


RECIPES = (".yaml", ".yml")
JUDGED: tuple[Split, ...] = ("test", "valid", "train")  # the first of them that exists is evaluated


def is_recipe(data: object) -> bool:
    """Return whether data is a recipe file, by its name."""
    return isinstance(data, str | Path) and Path(data).suffix.lower() in RECIPES


def build_section(data: object, catalogue: Catalogue, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build the dataset section for data; ``like`` is the section of similar data, if known."""
    like = like or {}
    if isinstance(data, Mapping):
        return dict(data)
    if isinstance(data, Dataset):
        return {"use": data.name}
    if isinstance(data, tuple):
        return {"use": NAME}
    if not isinstance(data, str | Path):
        wrong = f"unsupported data of type {type(data).__name__}"
        raise UsageError(f"{wrong}; pass a path, a dataset component or (images, labels)")
    path = expand_home(data)
    if not os.path.exists(path):
        raise DataError(f"no data at {path}; name a folder of class folders, a pack or a CSV file")
    known = [name for name, _ in catalogue.list_readers()]
    key = find_path_key(path, like)
    replaced = {**like, key: str(path), **({"download": False} if "download" in like else {})} if key else None
    if replaced is not None and like.get("use") not in known:
        return replaced
    if (found := find_reader(path, catalogue)) is not None:
        name, options = found
        return {**(like if like.get("use") == name else {"use": name}), **options}
    if replaced is not None:
        return replaced
    raise UsageError(f"{path} is neither a folder nor a .csv file; for other data name a recipe (.yaml)")


def find_reader(path: Path, catalogue: Catalogue) -> tuple[str, Mapping[str, Any]] | None:
    """Return the name of the dataset that reads a path, and its options; None if no dataset does."""
    for name, reads in catalogue.list_readers():
        if (options := reads(path)) is not None:
            return name, options
    return None


def find_path_key(path: Path, like: Mapping[str, Any]) -> str | None:
    """Return the key of a dataset section whose value ``path`` can replace, None if there is none."""
    if os.path.isdir(path):
        return "root" if "root" in like and "file" not in like else None
    same_ending = path.suffix.lower() == Path(str(like.get("file", ""))).suffix.lower()
    return "file" if "file" in like and same_ending else None


def build_own_dataset(data: object, color: Color = "convert") -> Dataset | None:
    """Build the dataset that is part of data itself; None if plugins provide it.

    ``color`` says whether the colour profiles of Pillow images are applied.
    """
    if isinstance(data, tuple):
        return build_dataset(*unpack_pair(data), color=color)
    return data if isinstance(data, Dataset) else None


def unpack_pair(data: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(data) != 2:
        raise UsageError(f"data is a tuple of length {len(data)}; pass (images, labels)")
    return data[0], data[1]


def load_labelled(data: object, about: Mapping[str, Any], catalogue: Catalogue, workers: int) -> Part:
    """Load the part of some data to evaluate on: its test split, or else its validation split, or else all of it.

    ``about`` is a model's record: its classes are enforced, and its dataset section says how to read the data.
    """
    classes = tuple(about["classes"])
    if isinstance(data, tuple):
        color = about.get("image", {}).get("color", "ignore")
        found = build_samples(*unpack_pair(data), known=classes, color=color)
        return datas.build_part(found, classes, NAME, workers)
    return find_labelled(data, about, catalogue).scan(about, workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Labelled images of a split, and the dataset that they come from."""

    dataset: Chosen[Dataset]
    split: Split
    samples: Samples

    def scan(self, about: Mapping[str, Any], workers: int, *, skip: bool = False, own: bool = False) -> Part:
        """Scan the images, and return a part to evaluate a model with the record ``about`` on.

        A run's ``own`` data is corrected as for training, and classes that were added after the run are dropped.
        """
        name, classes = "all" if self.split == "train" else self.split, tuple(about["classes"])
        samples = self.samples
        if own and (file := about.get("dataset", {}).get("corrections")) is not None:
            source = f"dataset '{self.dataset.component.name}' {self.split}"
            samples = read_corrections(Path(file)).apply(samples, self.split, source)
        samples = select_classes(samples, classes) if own else samples
        return datas.build_part(samples, classes, name, workers, skip=skip)


def select_classes(samples: Samples, classes: tuple[str, ...]) -> Samples:
    labels = np.asarray(samples.labels)
    rows = np.flatnonzero(np.isin(labels, [n for n, name in enumerate(samples.classes) if name in classes]))
    if len(rows) == len(labels):
        return samples
    digests = None if samples.digests is None else labelled_images.select_items(samples.digests, rows)
    images = labelled_images.select_items(samples.images, rows)
    return replace(samples, images=images, labels=labels[rows].tolist(), digests=digests)


def find_labelled(data: object, about: Mapping[str, Any], catalogue: Catalogue) -> Labelled:
    """Find the labelled images of some data, in the first split of ``JUDGED`` that exists."""
    like = about.get("dataset", {})
    try:
        dataset = choose_dataset(data, like, catalogue)
        split, samples = build_judged_split(dataset)
    except DataError as error:
        if isinstance(data, Dataset) or is_recipe(data):
            raise
        try:  # the data may have a different form, or different columns and folders, than the training data
            dataset = choose_dataset(data, {}, catalogue)
            split, samples = build_judged_split(dataset)
        except DataError:
            if like.get("use") == build_section(data, catalogue)["use"]:
                raise error from None
            raise
    return Labelled(dataset=dataset, split=split, samples=samples)


def build_judged_split(dataset: Chosen[Dataset]) -> tuple[Split, Samples]:
    """Build the first split to evaluate on that exists, and return it with its samples."""
    for split in JUDGED:
        samples = dataset.build(split)
        if samples is not None:
            return split, samples
    raise DataError(
        f"dataset '{dataset.component.name}' returned no images; `build` must return Samples for at least one split"
    )


def choose_dataset(data: object, like: Mapping[str, Any], catalogue: Catalogue) -> Chosen[Dataset]:
    """Return the dataset for data with its options, which come from ``like`` if it is of the same form."""
    if isinstance(data, Dataset):
        return catalogue.choose(data, read_options(data, like))
    return load_plan(data, like, catalogue).dataset


def load_plan(data: object, like: Mapping[str, Any], catalogue: Catalogue, changes: Sequence[str] = ()) -> Plan:
    """Load the plan of a recipe, or of a recipe made for the data."""
    if is_recipe(data):
        return plans.load_plan(expand_home(str(data)), changes, catalogue)
    try:
        return plans.load_plan({"dataset": build_section(data, catalogue, like)}, changes, catalogue)
    except RecipeError:  # for example, the plugin that read the training data is not installed
        if not like:
            raise
        return plans.load_plan({"dataset": build_section(data, catalogue)}, changes, catalogue)


def read_options(dataset: Dataset, like: Mapping[str, Any]) -> Options:
    """Return the options of a dataset component, from ``like`` if that names the same component."""
    given = like if like.get("use") == dataset.name else {}
    try:
        return dataset.options.model_validate_json(
            json.dumps({key: given[key] for key in dataset.options.model_fields if key in given})
        )
    except ValidationError as error:
        missing = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
        raise UsageError(f"dataset '{dataset.name}' needs options ({missing}); pass a recipe that sets them") from error
