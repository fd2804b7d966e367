"""Held-back images: selects the images to evaluate a finished run on, and counts those that it was trained on."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data import sources, splitfile
from finetune.errors import DataError, RecipeError, UsageError
from finetune.recipe.moved import follow_move
from finetune.recipe.places import resolve_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from finetune.catalogue import Catalogue, Chosen
    from finetune.components import Dataset, Options, Split
    from finetune.data.labelled import Part
    from finetune.data.loading import Data
    from finetune.data.splitfile import SplitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The images to evaluate, and how they relate to the run.

    Attributes:
        trained_on: How many of them the run was trained on, None if that is unknown.
        is_held_back: They are the images that the run held back.
        is_own: They are the images of a run that held none back.
        counts: ``deleted`` and ``changed`` count held-back images that are missing; ``added`` and ``skipped`` count
            images of the same data that are not evaluated, because they were added later or trained on.
    """

    part: Part
    trained_on: int | None
    is_held_back: bool = False
    is_own: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return the selection, ready for JSON."""
        about = {"part": self.part.name, "images": len(self.part), "held_back": self.is_held_back}
        return {**about, "trained_on": self.trained_on, **self.counts}


def select_images(
    data: object, about: Mapping[str, Any], catalogue: Catalogue, model: Path | None, workers: int
) -> Selection:
    """Select the images of ``data`` to evaluate a model on; None means the data of its run.

    From the run's own data, selects the test split, or else the images held back for validation; from other data, the
    test split, or else the validation split, or else all images. ``about`` is the model's record, ``model`` its folder.
    """
    record = None if model is None else splitfile.find_split_record(model)
    if record is not None:
        about = {**about, "dataset": follow_move(about.get("dataset", {}), record.folder)}
    if data is None:
        return _select_own(about, catalogue, _require_record(record, model), workers)
    classes = about["classes"]
    if isinstance(data, tuple):
        part = sources.load_labelled(data, about, catalogue, workers)
        own = record is not None and _has_same_content(part, record)
        return _compare(part, record, classes, own=own, split="train")
    found = sources.find_labelled(data, about, catalogue)
    own = record is not None and _is_own(found.dataset, about)
    part = found.scan(about, workers, skip=own and _skips_bad_images(about), own=own)
    own = own or (record is not None and _has_same_content(part, record))
    return _compare(part, record, classes, own=own, split=found.split)


def _require_record(record: SplitRecord | None, model: Path | None) -> SplitRecord:
    if record is None:
        why = f"{model or 'this model'}: no {splitfile.NAME} says which images the run held back"
        raise UsageError(f"{why}; name the data to evaluate on, or name the run's folder instead of a copied model")
    return record


def _select_own(about: Mapping[str, Any], catalogue: Catalogue, record: SplitRecord, workers: int) -> Selection:
    section = about.get("dataset", {})
    try:
        found = sources.find_labelled(dict(section), about, catalogue)
        part = found.scan(about, workers, skip=_skips_bad_images(about), own=True)
    except DataError as error:
        wrong = f"the images of {record.folder} cannot be read: {error}"
        raise DataError(f"{wrong}\nname the data to evaluate on if it has moved") from error
    except RecipeError as error:
        reason = "; ".join(error.mistakes)
        wrong = f"the dataset '{section.get('use')}' of {record.folder} cannot be used here: {reason}"
        raise UsageError(f"{wrong}\nname the data to evaluate on") from error
    return _compare(part, record, about["classes"], own=True, split=found.split)


def _skips_bad_images(about: Mapping[str, Any]) -> bool:
    section: Mapping[str, Any] = about.get("dataset", {})
    return bool(section.get("on_bad_image") == "skip")


def _is_own(dataset: Chosen[Dataset], about: Mapping[str, Any]) -> bool:
    """Return whether a dataset is the run's own, by its name and options."""
    section = about.get("dataset", {})
    if section.get("use") != dataset.component.name:
        return False
    try:
        own = sources.read_options(dataset.component, section)
    except UsageError:
        return False
    given, recorded = _resolve_options(dataset.options), _resolve_options(own)
    return given == recorded


def _resolve_options(options: Options) -> dict[str, Any]:
    real = resolve_paths(options, (), lambda path, _: Path(os.path.realpath(path)))
    return real.model_dump(mode="json", exclude={"download"})


def _has_same_content(part: Part, record: SplitRecord) -> bool:
    """Return whether images are exactly those that the run trained on and held back."""
    recorded = {row.hash for row in record.rows if row.split != splitfile.EARLIER}
    return bool(recorded) and recorded == set(part.hashes)


def _is_unchanged(part: Part, record: SplitRecord, classes: Sequence[str]) -> bool:
    """Return whether a part has the images and labels that the run trained on."""
    now = Counter(zip(part.hashes, (classes[label] for label in part.labels.tolist()), strict=True))
    return now == Counter((row.hash, row.label) for row in record.of_split("train"))


def _compare(part: Part, record: SplitRecord | None, classes: Sequence[str], *, own: bool, split: Split) -> Selection:
    """Return the images to evaluate; from a run's own data, without those that it was trained on."""
    if record is None:
        return Selection(part=part, trained_on=None)
    trained = record.trained
    if not own:
        return Selection(part=part, trained_on=sum(content in trained for content in part.hashes))
    wanted: Split = "valid" if split == "train" else split
    held = [row for row in record.rows if row.split == wanted]
    if not held and split == "train":  # the run was evaluated by folds and trained on all images
        count = sum(content in trained for content in part.hashes)
        return Selection(part=part, trained_on=count, is_own=_is_unchanged(part, record, classes))
    contents, chosen = {row.hash for row in held}, part
    counts: dict[str, int] = {}
    if split == "train":
        known = {row.hash for row in record.rows}
        is_held = np.array([content in contents for content in part.hashes], bool)
        chosen = part.select(np.flatnonzero(is_held), wanted)
        added = sum(content not in known for content in part.hashes)
        counts = {"skipped": len(part) - len(chosen) - added, "added": added}
    present = Counter(chosen.hashes)
    missing = [row for row in held if row.hash not in present]
    paths = set(splitfile.list_image_names(part)) if missing else set()
    changed = sum(row.path in paths for row in missing)
    counts |= {"deleted": len(missing) - changed, "changed": changed}
    if not len(chosen):
        wrong = f"none of the {len(held):,} images that {record.folder} held back is left"
        gone = f"{counts['deleted']:,} deleted, {changed:,} changed"
        raise DataError(f"{wrong} ({gone}); restore them, or name other images to evaluate on")
    trained_on = sum(content in trained for content in chosen.hashes)
    return Selection(part=chosen, trained_on=trained_on, is_held_back=True, counts=counts)


def collect_warnings(selection: Selection) -> list[str]:
    """Return the warnings that belong next to the metrics."""
    found, total = [], len(selection.part)
    if selection.trained_on:
        many = f"the run was trained on {selection.trained_on:,} of the {total:,} images"
        found.append(f"{many}; expect worse metrics on new images")
    gone, changed = selection.counts.get("deleted", 0), selection.counts.get("changed", 0)
    if gone or changed:
        missing = f"{gone + changed:,} of the {total + gone + changed:,} held-back images are missing"
        found.append(f"{missing} ({gone:,} deleted, {changed:,} changed since the run); evaluating the rest")
    return found


def warn_of_overlap(weights: Path, data: Data, say: Callable[[str], None]) -> None:
    """Warn if the run that produced ``weights`` was trained on images that are held back now."""
    record = splitfile.find_split_record(weights)
    if record is None:
        return
    trained = record.trained
    for part in filter(None, (data.valid, data.test)):
        known = sum(content in trained for content in part.hashes)
        if known:
            many = f"{known:,} of the {len(part):,} images for '{part.name}'"
            remedy = "expect worse metrics on new images; use the seed and dataset.split of that run"
            say(f"warning: the run of these weights, {record.folder}, was trained on {many}; {remedy}")
