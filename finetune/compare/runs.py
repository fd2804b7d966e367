"""Finished runs to compare: their predictions, and the images that all of them predicted."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.data.heldback import collect_warnings
from finetune.data.splitfile import read_split
from finetune.errors import DataError, FinetuneError, UsageError
from finetune.model import evaluation, predictions
from finetune.model.predictions import Row
from finetune.recipe.document import read_recipe
from finetune.recipe.masking import mask_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OUT_OF_FOLD = "out of fold"
SPLITS = ("test", "valid", OUT_OF_FOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run with its recipe, its classes, and its predictions by split."""

    folder: Path
    recipe: dict[str, Any]
    classes: tuple[str, ...]
    rows: dict[str, list[Row]]


def read_run(folder: Path) -> Finished:
    """Read a finished run; raises ``UsageError`` for a folder that is not one."""
    if not os.path.isfile(folder / "recipe.yaml"):
        raise UsageError(f"{folder}: this is not a run; name the folder of a run, which has a recipe.yaml")
    if not os.path.isfile(folder / "result.json"):
        raise UsageError(f"{folder}: the run is not finished; finish it with: finetune run --resume {folder}")
    from finetune.model import modelfolder

    rows: dict[str, list[Row]] = defaultdict(list)
    for row in predictions.read_predictions(folder):
        rows[row.split].append(row)
    if os.path.isfile(folder / evaluation.NAME):
        rows[OUT_OF_FOLD] = read_out_of_fold(folder)
    return Finished(
        folder=folder,
        recipe=flatten_values(dict(read_recipe(folder / "recipe.yaml").values)),
        classes=tuple(modelfolder.read_record(modelfolder.locate_folder(folder))["classes"]),
        rows=dict(rows),
    )


def read_out_of_fold(folder: Path) -> list[Row]:
    """Return the out-of-fold predictions of a run's training images; empty if there are none."""
    import csv

    try:
        with (folder / evaluation.NAME).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = list(csv.reader(file, strict=True))[1:]
        record = read_split(folder)
        hashes = {row.path: row.hash for row in record.of_split("train")} if record else {}
        return [
            Row(path, OUT_OF_FOLD, label, predicted, float(confidence), float(own), "", hashes.get(path, ""))
            for path, label, predicted, confidence, own, _, _ in lines
        ]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{folder / evaluation.NAME} cannot be read: {error}; run the recipe again") from error


def flatten_values(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key; lists of mappings are numbered like in overrides."""
    if isinstance(values, dict):
        items = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, list) and any(isinstance(each, dict) for each in values):
        items = [(f"[{number}]", value) for number, value in enumerate(values)]
    else:
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in items:
        found |= flatten_values(value, f"{prefix}.{key}" if prefix and not key.startswith("[") else f"{prefix}{key}")
    return found


def find_differences(runs: Sequence[Finished]) -> dict[str, list[Any]]:
    """Return the recipe keys that differ, with the value of each run without secrets; None for a missing key."""
    keys = dict.fromkeys(key for run in runs for key in run.recipe)
    values = {key: [run.recipe.get(key) for run in runs] for key in keys if key not in ("name", "output")}
    different = {key: each for key, each in values.items() if any(value != each[0] for value in each)}
    return {key: [mask_value(key, value) for value in each] for key, each in different.items()}


def align_images(runs: Sequence[Finished]) -> tuple[str, list[list[Row]]]:
    """Return a split with the same images in all runs, and the rows of each run in the same order.

    Prefers test over validation images, and these over out-of-fold predictions. Raises ``UsageError`` with the reason
    if there is none.
    """
    check_classes(runs)
    reasons = []
    for split in SPLITS:
        lists = [run.rows.get(split, []) for run in runs]
        if not any(lists):
            continue
        if reason := find_mismatch(split, runs, lists):
            reasons.append(reason)
            continue
        return split, align_rows(lists)
    why = "; ".join(reasons) or "no run held images back"
    remedy = "give all runs the same labelled images, or name others with --data"
    raise UsageError(f"these runs cannot be compared: {why}; {remedy}")


def check_classes(runs: Sequence[Finished]) -> None:
    """Raise ``UsageError`` unless all runs have the same classes."""
    first = runs[0]
    for run in runs[1:]:
        if set(run.classes) != set(first.classes):
            only = sorted({*run.classes} ^ {*first.classes})
            named = ", ".join(only[:5]) + (f" and {len(only) - 5} more" if len(only) > 5 else "")
            what = f"{first.folder} and {run.folder} have different classes ({named})"
            raise UsageError(f"these runs cannot be compared: {what}; compare runs with the same classes")


def find_mismatch(split: str, runs: Sequence[Finished], lists: Sequence[Sequence[Row]]) -> str | None:
    """Return why the images of a split cannot be compared, None if they can."""
    first = lists[0]
    for run, rows in zip(runs[1:], lists[1:], strict=True):
        keys, others = Counter(map(identify, first)), Counter(map(identify, rows))
        if keys != others:
            same, counts = (keys & others).total(), f"{len(first):,} and {len(rows):,}"
            return f"the {split} images of {runs[0].folder} and {run.folder} differ ({counts}; {same:,} are the same)"
        labels = {(identify(row), row.label) for row in first}
        if labels != {(identify(row), row.label) for row in rows}:
            return f"the {split} images of {runs[0].folder} and {run.folder} have different labels"
    return None


def identify(row: Row) -> str:
    """Return what makes an image the same in two runs: its content, or its path if that is unknown."""
    return row.hash or row.path


def align_rows(lists: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """Return the rows of each run in the order of the first run's images."""
    aligned = [list(lists[0])]
    for rows in lists[1:]:
        waiting: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in reversed(rows):
            waiting[identify(row), row.label].append(row)
        aligned.append([waiting[identify(row), row.label].pop() for row in lists[0]])
    return aligned


def read_models(folders: Sequence[Path], catalogue: Any, data: str | Path, say: Any) -> list[Finished]:
    """Return models with their predictions for the images of ``data``; model folders are enough."""
    from finetune.machine import device
    from finetune.model import modelfolder

    chosen = device.set_up(device="auto").name
    found = []
    for folder in folders:
        place = modelfolder.locate_folder(folder)
        model = modelfolder.open_model(place, catalogue, device=chosen, say=say)
        try:
            selection = model.select(data)
        except DataError as error:
            raise DataError(f"{folder}: {error}") from error
        for warning in collect_warnings(selection):
            say(f"warning: {folder}: {warning}")
        part = selection.part
        rows = predictions.convert_scores("test", part, model.score(part), model.classes)
        try:
            recipe = dict(read_recipe(place.parent / "recipe.yaml").values)
        except FinetuneError:
            recipe = dict(model.about["recipe"])
        found.append(
            Finished(folder=folder, recipe=flatten_values(recipe), classes=model.classes, rows={"test": list(rows)})
        )
    return found
