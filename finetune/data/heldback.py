"""Held-back images: what a finished run is evaluated on, and how many of any images it was trained on."""

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
    from collections.abc import Callable, Mapping

    from finetune.catalogue import Catalogue
    from finetune.components import Dataset, Options, Split
    from finetune.data.labelled import Part
    from finetune.data.loading import Data
    from finetune.data.splitfile import SplitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The images to evaluate, and what is known of them.

    ``trained_on`` says how many of them the run was trained on, None where it cannot be told; ``is_held_back``
    that they are those that the run held back, and ``is_own`` that they are those of a run that held none back. Of
    those held back, ``deleted`` and ``changed`` are no longer there. ``added`` and ``skipped`` count images of the same
    data that are left out: those that came later, and those trained on.
    """

    part: Part
    trained_on: int | None
    is_held_back: bool = False
    is_own: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return it, ready for JSON."""
        about = {"part": self.part.name, "images": len(self.part), "held_back": self.is_held_back}
        return {**about, "trained_on": self.trained_on, **self.counts}


def select_images(
    data: object, about: Mapping[str, Any], catalogue: Catalogue, model: Path | None, workers: int
) -> Selection:
    """Return the images of ``data`` to evaluate the model in the folder ``model`` on, None for those of its run.

    Of the data that the run used, its test split is evaluated, else the images that it held back for validation; of
    other data the test split, else the validation split, else all. ``about`` is the model's record.
    """
    record = None if model is None else splitfile.read_of_file(model)
    if record is not None:
        about = {**about, "dataset": follow_move(about.get("dataset", {}), record.folder)}
    if data is None:
        return _select_own(about, catalogue, _required(record, model), workers)
    if isinstance(data, tuple):
        part = sources.labelled(data, about, catalogue, workers)
        return _compare(part, record, own=record is not None and _same_content(part, record), split="train")
    found = sources.find_labelled(data, about, catalogue)
    own = record is not None and _is_own(found.dataset, found.options, about, catalogue)
    part = found.scan(about, workers, skip=own and _skips(about), own=own)
    own = own or (record is not None and _same_content(part, record))
    return _compare(part, record, own=own, split=found.split)


def _required(record: SplitRecord | None, model: Path | None) -> SplitRecord:
    if record is None:
        why = f"{model or 'this model'}: cannot tell which images the run held back, since there is no {splitfile.NAME}"
        raise UsageError(f"{why}; name the data to evaluate on, or the folder of the run in place of a copied model")
    return record


def _select_own(about: Mapping[str, Any], catalogue: Catalogue, record: SplitRecord, workers: int) -> Selection:
    section = about.get("dataset", {})
    try:
        found = sources.find_labelled(dict(section), about, catalogue)
        part = found.scan(about, workers, skip=_skips(about), own=True)
    except DataError as error:
        said = f"the images of {record.folder} cannot be read: {error}"
        raise DataError(f"{said}\nname the data to evaluate on, if they are elsewhere now") from error
    except RecipeError as error:
        said = f"the dataset '{section.get('use')}' of {record.folder} cannot be used here: {'; '.join(error.mistakes)}"
        raise UsageError(f"{said}\nname the data to evaluate on") from error
    return _compare(part, record, own=True, split=found.split)


def _skips(about: Mapping[str, Any]) -> bool:
    section: Mapping[str, Any] = about.get("dataset", {})
    return bool(section.get("on_bad_image") == "skip")


def _is_own(dataset: Dataset, options: Options, about: Mapping[str, Any], catalogue: Catalogue) -> bool:
    """Tell whether a dataset is the one of the run, by its name and options."""
    section = about.get("dataset", {})
    if section.get("use") != dataset.name:
        return False
    try:
        own = sources.options(dataset, section)
    except UsageError:
        return False
    given, recorded = _comparable(options), _comparable(own)
    return given == recorded


def _comparable(options: Options) -> dict[str, Any]:
    real = resolve_paths(options, (), lambda path, _: Path(os.path.realpath(path)))
    return real.model_dump(mode="json", exclude={"download"})


def _same_content(part: Part, record: SplitRecord) -> bool:
    """Tell whether images are exactly those that the run trained on and held back."""
    recorded = {row.hash for row in record.rows if row.split != splitfile.EARLIER}
    return bool(recorded) and recorded == set(part.hashes)


def _compare(part: Part, record: SplitRecord | None, *, own: bool, split: Split) -> Selection:
    """Return the images to evaluate; of a run's own data, without those that it trained on."""
    if record is None:
        return Selection(part=part, trained_on=None)
    trained = record.trained
    if not own:
        return Selection(part=part, trained_on=sum(content in trained for content in part.hashes))
    wanted: Split = "valid" if split == "train" else split
    held = [row for row in record.rows if row.split == wanted]
    if not held and split == "train":  # the run was judged by folds, and trained on all of them
        return Selection(part=part, trained_on=sum(content in trained for content in part.hashes), is_own=True)
    contents, chosen = {row.hash for row in held}, part
    counts: dict[str, int] = {}
    if split == "train":
        known = {row.hash for row in record.rows}
        is_held = np.array([content in contents for content in part.hashes], bool)
        chosen = part.only(np.flatnonzero(is_held), wanted)
        added = sum(content not in known for content in part.hashes)
        counts = {"skipped": len(part) - len(chosen) - added, "added": added}
    present = Counter(chosen.hashes)
    missing = [row for row in held if row.hash not in present]
    paths = set(splitfile.image_names(part)) if missing else set()
    changed = sum(row.path in paths for row in missing)
    counts |= {"deleted": len(missing) - changed, "changed": changed}
    if not len(chosen):
        said = f"none of the {len(held):,} images that {record.folder} held back is left"
        gone = f"{counts['deleted']:,} deleted, {changed:,} changed"
        raise DataError(f"{said} ({gone}); restore them, or name other images to evaluate on")
    trained_on = sum(content in trained for content in chosen.hashes)
    return Selection(part=chosen, trained_on=trained_on, is_held_back=True, counts=counts)


def warnings(selection: Selection) -> list[str]:
    """Return what a reader of the metrics must know."""
    found, total = [], len(selection.part)
    if selection.trained_on:
        many = f"{selection.trained_on:,} of the {total:,} images were trained on"
        found.append(f"{many}; the metrics are better than those of new images")
    gone, changed = selection.counts.get("deleted", 0), selection.counts.get("changed", 0)
    if gone or changed:
        missing = f"{gone + changed:,} of the {total + gone + changed:,} images held back are missing"
        found.append(f"{missing} ({gone:,} deleted, {changed:,} changed since the run); the rest are evaluated")
    return found


def warn_of_overlap(weights: Path, data: Data, say: Callable[[str], None]) -> None:
    """Warn if images that are held back now were trained on by the run that weights come from."""
    record = splitfile.read_of_file(weights)
    if record is None:
        return
    trained = record.trained
    for part in filter(None, (data.valid, data.test)):
        known = sum(content in trained for content in part.hashes)
        if known:
            many = f"{known:,} of the {len(part):,} images for '{part.name}'"
            remedy = "the metrics are better than those of new images; use the same seed and dataset.split as then"
            say(f"warning: {many} were trained on by the run of these weights, {record.folder}; {remedy}")
