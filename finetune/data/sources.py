"""From what a user calls data — a folder, a CSV file, a component, arrays — to a dataset."""

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
from finetune.data.imagefile import Refused
from finetune.data.images import WHITE, to_rgb, upright
from finetune.data.pack.packfile import is_pack
from finetune.errors import DataError, RecipeError, UsageError
from finetune.files.atomic import expand_home
from finetune.plugins import attribute_errors
from finetune.recipe import plan as plans

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue
    from finetune.components import Color, Pixels
    from finetune.data.loading import Part
    from finetune.recipe.plan import Plan


NAME = "arrays"


def pictures(images: Any, color: Color = "convert") -> list[Path | Pixels]:
    """Return images as the engine takes them: paths as they are, Pillow images upright and in RGB, else arrays.

    ``color`` says what becomes of a colour profile that a Pillow image carries. Raises ``UsageError`` for a single
    image, whose elements would be no images.
    """
    single = isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind in "uif"
    if single or isinstance(images, str | bytes | Path | Image.Image) or not isinstance(images, Iterable):
        raise UsageError(f"images must be a list; for a single {type(images).__name__} write [image]")
    return [expand_home(i) if isinstance(i, str | Path) else _pixels(n, i, color) for n, i in enumerate(images)]


def _pixels(number: int, image: Any, color: Color) -> Pixels:
    if not isinstance(image, Image.Image):
        return np.asarray(image)
    try:
        return to_rgb(upright(image), WHITE, color)
    except (Refused, OSError) as error:
        raise DataError(f"images[{number}] {error}") from error


def samples(
    images: Any, labels: Sequence[Any], known: tuple[str, ...] | None = None, color: Color = "convert"
) -> Samples:
    """Return samples of images and their labels, which are names, or numbers from 0.

    Numbers are names too, in order of size, unless ``known`` classes have names that are no numbers: then a number
    is the place of a class among them.
    """
    listed, given = pictures(images, color), list(labels)
    if len(listed) != len(given):
        raise DataError(f"{len(listed)} images but {len(given)} labels; give one label for each image")
    names = [_name(number, label) for number, label in enumerate(given)]
    numeric = all(isinstance(label, int | np.integer) for label in given)
    if numeric and known is not None and not all(name.isdecimal() for name in known):
        return Samples(images=listed, labels=[int(label) for label in given], classes=known)
    classes = tuple(sorted(set(names), key=int if numeric else None))
    places = {name: place for place, name in enumerate(classes)}
    return Samples(images=listed, labels=[places[name] for name in names], classes=classes)


def _name(number: int, label: Any) -> str:
    if isinstance(label, str):
        return str(label)
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and label >= 0:
        return str(int(label))
    raise DataError(f"label {number} is {label!r:.60}; labels are names, or whole numbers from 0")


def dataset(images: Any, labels: Sequence[Any], color: Color = "convert") -> Dataset:
    """Return a dataset component of images and labels in memory; a validation split is taken from it."""
    found = samples(images, labels, color=color)

    def build(options: NoOptions, split: Split) -> Samples | None:
        return found if split == "train" else None

    return Dataset(name=NAME, build=build)


RECIPES = (".yaml", ".yml")
JUDGED: tuple[Split, ...] = ("test", "valid", "train")  # the first that there is


def is_recipe(data: object) -> bool:
    """Tell whether data is a recipe file, by its name."""
    return isinstance(data, str | Path) and Path(data).suffix.lower() in RECIPES


def section(data: object, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the dataset section for data; ``like`` is one for a path of the same form, if known."""
    if isinstance(data, Mapping):
        return dict(data)
    if isinstance(data, Dataset):
        return {"use": data.name}
    if isinstance(data, tuple):
        return {"use": NAME}
    if not isinstance(data, str | Path):
        raise UsageError(f"a {type(data).__name__} is no data; give a path, a dataset component or (images, labels)")
    path = expand_home(data)
    if not os.path.exists(path):
        raise DataError(f"no data at {path}; name a folder of class folders, a pack or a CSV file")
    if is_pack(path):
        return {"use": "mindrecord", "root": str(path)}
    if like is not None and (key := same_form(path, like)):
        return {**like, key: str(path), **({"download": False} if "download" in like else {})}
    if os.path.isdir(path):
        return {"use": "folder", "root": str(path)}
    if path.suffix.lower() == ".csv":
        return {"use": "csv", "file": str(path)}
    raise UsageError(f"{path} is neither a folder nor a .csv file; for other data name a recipe (.yaml)")


def same_form(path: Path, like: Mapping[str, Any]) -> str | None:
    """Return the key of a dataset section that ``path`` can take the place of: another table, another folder."""
    if os.path.isdir(path):
        return "root" if "root" in like and "file" not in like else None
    same_ending = path.suffix.lower() == Path(str(like.get("file", ""))).suffix.lower()
    return "file" if "file" in like and same_ending else None


def own_dataset(data: object, color: Color = "convert") -> Dataset | None:
    """Return the dataset that data brings along; None where it is one that plugins offer.

    ``color`` says what becomes of colour profiles of Pillow images.
    """
    if isinstance(data, tuple):
        return dataset(*pair(data), color=color)
    return data if isinstance(data, Dataset) else None


def pair(data: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return images and labels."""
    if len(data) != 2:
        raise UsageError(f"a tuple of {len(data)} is no data; give (images, labels)")
    return data[0], data[1]


def labelled(data: object, about: Mapping[str, Any], catalogue: Catalogue, workers: int) -> Part:
    """Return the part of some data to evaluate on: its test split, else its validation split, else all of it.

    ``about`` is a model's record: its classes are enforced, its dataset section tells how to read the data.
    """
    classes = tuple(about["classes"])
    if isinstance(data, tuple):
        color = about.get("image", {}).get("color", "ignore")
        found = samples(*pair(data), known=classes, color=color)
        return datas.part(found, classes, NAME, workers)
    return find_labelled(data, about, catalogue).scan(about, workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Labelled images of a split, and the dataset that they come from."""

    dataset: Dataset
    options: Options
    split: Split
    samples: Samples

    def scan(self, about: Mapping[str, Any], workers: int, *, skip: bool = False, own: bool = False) -> Part:
        """Return the images as a part that a model with the record ``about`` can be evaluated on.

        Of a run's ``own`` data, classes that were added since are left out.
        """
        name, classes = "all" if self.split == "train" else self.split, tuple(about["classes"])
        samples = of_classes(self.samples, classes) if own else self.samples
        return datas.part(samples, classes, name, workers, skip=skip)


def of_classes(samples: Samples, classes: tuple[str, ...]) -> Samples:
    """Return the samples of some classes."""
    labels = np.asarray(samples.labels)
    rows = np.flatnonzero(np.isin(labels, [n for n, name in enumerate(samples.classes) if name in classes]))
    if len(rows) == len(labels):
        return samples
    digests = None if samples.digests is None else labelled_images.chosen(samples.digests, rows)
    images = labelled_images.chosen(samples.images, rows)
    return replace(samples, images=images, labels=labels[rows].tolist(), digests=digests)


def find_labelled(data: object, about: Mapping[str, Any], catalogue: Catalogue) -> Labelled:
    """Return the labelled images of some data, by the first split of ``JUDGED`` that there is."""
    like = about.get("dataset", {})
    try:
        dataset, given = chosen(data, like, catalogue)
        split, samples = judged(dataset, given, catalogue)
    except DataError as error:
        if isinstance(data, Dataset) or is_recipe(data):
            raise
        try:  # another form than the training data's, or other names of columns and folders
            dataset, given = chosen(data, {}, catalogue)
            split, samples = judged(dataset, given, catalogue)
        except DataError:
            if like.get("use") == section(data)["use"]:
                raise error from None
            raise
    return Labelled(dataset=dataset, options=given, split=split, samples=samples)


def judged(dataset: Dataset, options: Options, catalogue: Catalogue) -> tuple[Split, Samples]:
    """Return the first split there is to evaluate on, and its samples."""
    with attribute_errors(catalogue.origin(dataset), f"build of dataset '{dataset.name}'"):
        for split in JUDGED:
            samples = dataset.build(options, split)
            if samples is not None:
                return split, samples
    raise DataError(f"dataset '{dataset.name}' has no images; its build must return Samples for a split")


def chosen(data: object, like: Mapping[str, Any], catalogue: Catalogue) -> tuple[Dataset, Options]:
    """Return the dataset for data and its options, those that ``like`` says where it is of the same form."""
    if isinstance(data, Dataset):
        return data, options(data, like)
    plan = planned(data, like, catalogue)
    return plan.dataset.component, plan.dataset.options


def planned(data: object, like: Mapping[str, Any], catalogue: Catalogue, changes: Sequence[str] = ()) -> Plan:
    """Return the plan of a recipe, or of one for the data."""
    if is_recipe(data):
        return plans.load_plan(expand_home(str(data)), changes, catalogue)
    try:
        return plans.load_plan({"dataset": section(data, like)}, changes, catalogue)
    except RecipeError:  # for one, the plugin that read the training data is not installed here
        if not like:
            raise
        return plans.load_plan({"dataset": section(data)}, changes, catalogue)


def options(dataset: Dataset, like: Mapping[str, Any]) -> Options:
    """Return the options of a dataset component, as ``like`` says if that is of the same name."""
    said = like if like.get("use") == dataset.name else {}
    try:
        return dataset.options.model_validate_json(
            json.dumps({key: said[key] for key in dataset.options.model_fields if key in said})
        )
    except ValidationError as error:
        missing = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
        raise UsageError(f"dataset '{dataset.name}' needs options ({missing}); give a recipe that says them") from error
