"""Data of a run: scans and splits a dataset, maps its classes, and reports all findings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data import audit
from finetune.data import labelled as given
from finetune.data.audit import UNKNOWN, Kind, Notes, index_classes
from finetune.data.corrections import Corrections, read_corrections
from finetune.data.labelled import Part
from finetune.data.looks import build_table, note_profiles
from finetune.data.scan import scan
from finetune.data.splits import (
    find_groups,
    identify_image,
    note_groups,
    note_leaks,
    split_by_group,
    split_by_hash,
    split_by_position,
)
from finetune.errors import DataError

if TYPE_CHECKING:
    from finetune.catalogue import Chosen
    from finetune.components import Color, Dataset, Samples, Split
    from finetune.data.scan import Progress
    from finetune.data.splits import Method
    from finetune.recipe.models import DatasetSection

__all__ = ["Data", "Part", "build_part", "load"]

Folds = Callable[[int], int]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def use_no_folds(images: int) -> int:
    """Return 0 folds for any number of images."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """All images that a run is trained and evaluated on; ``report`` is ready for JSON.

    ``valid`` is None if the run is evaluated by folds of the training images.
    """

    train: Part
    valid: Part | None
    test: Part | None
    classes: tuple[str, ...]
    report: dict[str, Any]


def load(
    chosen: Chosen[Dataset],
    section: DatasetSection,
    seed: int,
    workers: int,
    progress: Progress | None = None,
    *,
    method: Method = "hash",
    folds: Folds = use_no_folds,
    color: Color = "convert",
) -> Data:
    """Build, scan and split a dataset; raises one ``DataError`` that lists all its problems.

    The classes are those of the training split. If the dataset has no validation split, ``section.share`` of each
    class is taken from training by ``method``, unless ``folds`` returns a number of folds for the number of images.
    Raises ``PluginError`` if the dataset's code fails. Colour profiles are reported if ``color`` converts them.
    """
    what, prefix = f"dataset '{chosen.component.name}'", chosen.prefix
    splits = {split: found for split in SPLITS if (found := given.build_split(chosen, split)) is not None}
    if "train" not in splits:
        raise DataError(f"{prefix}{what} has no training split; `build` must return Samples for 'train'")
    corrections = None if section.corrections is None else read_corrections(section.corrections)
    if corrections is not None:
        splits = correct_splits(splits, corrections, what)
    classes, notes = tuple(splits["train"].classes), Notes()
    if corrections is not None:
        notes.add("dataset", "note", "all", str(corrections.file), corrections.describe())
    skip = section.on_bad_image == "skip"
    parts = {
        split: examine_split(
            samples,
            classes,
            f"{what} {split}",
            split,
            workers,
            notes,
            skip=skip,
            progress=progress,
            prefix=prefix,
            color=color,
            groups=section.groups,
        )
        for split, samples in splits.items()
    }
    audit.audit_training(parts["train"], classes, notes)
    note_groups(parts["train"], notes)
    ratio = audit.measure_imbalance(np.bincount(parts["train"].labels, minlength=len(classes)))
    split = split_off_validation(parts, section, seed, notes, classes, method, folds)
    audit.audit_evaluation(parts, classes, notes, own="valid" in splits)
    audit.note_duplicates(parts.values(), classes, notes)
    note_leaks(parts.values(), notes)
    notes.raise_errors(f"{prefix}{what}")
    report = {
        "dataset": chosen.component.name,
        "split": split,
        "imbalance": round(ratio, 6),
        **({} if corrections is None else {"corrections": corrections.report()}),
        **describe_parts(parts, classes, notes),
    }
    return Data(train=parts["train"], valid=parts.get("valid"), test=parts.get("test"), classes=classes, report=report)


def correct_splits(splits: dict[Split, Samples], corrections: Corrections, what: str) -> dict[Split, Samples]:
    """Return all splits with the corrections of a file; raises ``DataError`` for a path that is in none of them."""
    corrected = {split: corrections.apply(samples, split, f"{what} {split}") for split, samples in splits.items()}
    corrections.check_used()
    return corrected


def build_part(samples: Samples, classes: tuple[str, ...], split: str, workers: int, *, skip: bool = False) -> Part:
    """Build a part to evaluate on, labelled by the classes of a model.

    Raises one ``DataError`` that lists the classes that the model does not know and, unless ``skip`` drops them, the
    images that cannot be read.
    """
    notes = Notes()
    found = examine_split(samples, classes, split, split, workers, notes, skip=skip, trained=True)
    if not len(found) and not notes.errors():
        notes.add("split", "error", split, "images", "no image can be used")
    notes.raise_errors("the data")
    return found


def examine_split(
    samples: Samples,
    classes: tuple[str, ...],
    source: str,
    split: str,
    workers: int,
    notes: Notes,
    *,
    skip: bool = False,
    trained: bool = False,
    progress: Progress | None = None,
    prefix: str = "",
    color: Color = "ignore",
    groups: str | None = None,
) -> Part:
    """Return the usable images of a split, labelled by the run's classes, and add findings for all other images.

    ``trained`` says that the classes are those of a trained model.
    """
    labels = given.check_samples(samples, f"{prefix}{source}")
    notes.take(split, samples.findings)
    result = scan(samples, split, workers, progress)
    given.check_items(result.wrong, f"{prefix}{source}")
    index_of = index_classes(samples.classes, classes)
    counts = np.bincount(labels, minlength=len(index_of))
    audit.note_unknown_classes(samples.classes, classes, counts, split, notes, trained=trained)
    mapped = index_of[labels]
    full = Part(
        name=split,
        images=samples.images,
        labels=mapped,
        source=source,
        hashes=result.hashes,
        prefix=prefix,
        looks=build_table(result.looks) if result.looks else None,
    )
    full = replace(full, groups=find_groups(samples, groups, full.name_of))
    for index, reason in result.bad.items():
        kind: Kind = "photo" if trained else "image"
        notes.add(kind, "warning" if skip else "error", split, full.name_of(index), reason)
    if color == "convert":
        note_profiles(result.looks, split, full.name_of, notes)
    readable = np.ones(len(mapped), bool)
    readable[list(result.bad)] = False
    return full.select(np.flatnonzero(readable & (mapped != UNKNOWN)), split)


def split_off_validation(
    parts: dict[Split, Part],
    section: DatasetSection,
    seed: int,
    notes: Notes,
    classes: tuple[str, ...],
    method: Method = "hash",
    folds: Folds = use_no_folds,
) -> dict[str, Any]:
    """Take a validation part from training, unless there is one or the run is evaluated by folds; return the method."""
    if "valid" in parts:
        if section.split != "auto":
            notes.add("split", "note", "valid", "dataset.split", "not used: the dataset has a validation split")
        return {"method": "dataset"}
    whole = parts["train"]
    if count := folds(len(whole)):
        return {"method": "folds", "folds": count, "seed": seed}
    if whole.groups and method == "hash":
        train, valid = split_by_group(whole.labels, whole.hashes, whole.groups, section.share, seed)
    elif method == "hash":
        name_of = partial(identify_image, whole.images)
        train, valid = split_by_hash(whole.labels, whole.hashes, classes, section.share, seed, name_of)
    else:
        train, valid = split_by_position(whole.labels, whole.hashes, section.share, seed)
    parts["train"], parts["valid"] = whole.select(train, "train"), whole.select(valid, "valid")
    return {"method": method, "share": section.share, "seed": seed}


def describe_parts(parts: dict[Split, Part], classes: tuple[str, ...], notes: Notes) -> dict[str, Any]:
    """Return the report about the parts, ready for JSON."""
    counts = {split: np.bincount(parts[split].labels, minlength=len(classes)) for split in SPLITS if split in parts}
    return {
        "classes": list(classes),
        "images": {split: len(parts[split]) for split in counts},
        "counts": {split: dict(zip(classes, map(int, each), strict=True)) for split, each in counts.items()},
        "fingerprint": {split: fingerprint(parts[split]) for split in counts},
        "findings": notes.report(),
    }


def relabel_data(data: Data, classes: tuple[str, ...]) -> Data:
    """Return data with labels that are indices into ``classes``, which must include all classes of the data."""
    if classes == data.classes:
        return data
    index_of = index_classes(data.classes, classes)
    whole: dict[Split, Part | None] = {"train": data.train, "valid": data.valid, "test": data.test}
    parts = {split: replace(part, labels=index_of[part.labels]) for split, part in whole.items() if part is not None}
    report = data.report | describe_parts(parts, classes, Notes()) | {"findings": data.report["findings"]}
    return Data(train=parts["train"], valid=parts.get("valid"), test=parts.get("test"), classes=classes, report=report)


def fingerprint(part: Part) -> str:
    """Return a hash of a part's contents, labels and order."""
    digest = hashlib.blake2b(np.ascontiguousarray(part.labels).data, digest_size=16)
    for each in part.hashes:
        digest.update(str(each).encode())
    return digest.hexdigest()
