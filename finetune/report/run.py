"""Report of a run: ``report.html`` in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.confidence.calibration import list_bins
from finetune.display.epochtable import format_clock
from finetune.files import atomic
from finetune.fitting.scores import count_confusion
from finetune.model.scoring import describe_scores
from finetune.report import charts, pages
from finetune.report.photos import Photos
from finetune.report.records import Records, Scores, count_trained, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from finetune.explain.explanation import Explanation

    Explain = Callable[[Sequence[Any]], list[Explanation]]

NAME = "report.html"
FINDINGS = 200  # shown; data.json has all
SHOWN = 12  # photos of each kind
PAIRS = 8  # confused pairs with photos
TRUSTED = 0.05  # calibration error up to which probabilities can be taken at face value
MATRIX = 30  # classes up to which the matrix is a table


def write_report(folder: Path, explain: Explain | None = None, images: Sequence[Any] | None = None) -> None:
    """Write the report into a run folder; ``explain`` returns the heat maps of images.

    ``images`` are the test or else validation images, if they are at hand; otherwise they are read from their files.
    """
    atomic.write_text(folder / NAME, render_report(read_records(folder), explain, images))


def render_report(records: Records, explain: Explain | None = None, images: Sequence[Any] | None = None) -> str:
    """Return the report of a run in HTML, of an unfinished run as far as it came."""
    scores = records.scores
    about = None if scores is None else describe_results(records, scores)
    return pages.render_page(
        "run.html",
        name=records.folder.name,
        folder=str(records.folder),
        seconds=format_clock(records.result["seconds"]) if "seconds" in records.result else "",
        contents=list_contents(about is not None),
        verdict=[*describe_verdict(records, about)],
        warnings=records.result.get("warnings", []),
        **describe_data(records),
        **describe_training(records),
        scores=about,
        part={"valid": "validation", "out of fold": "training"}.get(scores.split, scores.split) if scores else "",
        **describe_photos(records, scores, explain, images),
        calibration=describe_calibration(records.model.get("calibration", {})),
        sections=records.result.get("sections", []),
        command=f"finetune run {records.folder}/recipe.yaml",
        recipe=records.recipe,
        environment=list_environment(records.environment),
        hashes=list_hashes(records),
    )


def list_contents(finished: bool) -> list[tuple[str, str]]:
    """Return the anchors and titles of the sections."""
    results = [("results", "Results"), ("confusion", "Confusion"), ("photos", "Photos"), ("calibration", "Calibration")]
    return [("data", "Data"), ("training", "Training"), *(results if finished else []), ("repeat", "Repeat")]


def describe_results(records: Records, scores: Scores) -> dict[str, Any]:
    """Return metrics, intervals and classes of the predicted images."""
    out_of_fold = scores.split == "out of fold"
    about = describe_scores(scores.scored, scores.labels, records.classes, out_of_fold=out_of_fold)
    if not out_of_fold:
        key = f"{'test' if scores.split == 'test' else 'val'}_top5"
        about.pop("top5", None)
        if key in (known := records.model.get("metrics", {})):
            about["top5"] = known[key]
    trained = count_trained(records.folder)
    for each in about["per_class"]:
        each["trained"] = trained.get(each["class"], 0)
    return {**about, "images": len(scores.labels)}


def describe_verdict(records: Records, about: Mapping[str, Any] | None) -> list[str]:
    """Return three sentences: how good the network is, where it is weakest, and whether to trust it."""
    if about is None:
        state = "The run is finished, but it predicted no images." if records.result else "The run is not finished."
        epochs = {0: "No epoch is recorded.", 1: "One epoch is recorded."}.get(
            len(records.lines), f"{len(records.lines)} epochs are recorded."
        )
        return [state, epochs]
    known = [each for each in about["per_class"] if each["recall"] is not None]
    most = max(each["images"] for each in known) / about["images"]
    interval = f"95 % interval {pages.format_interval(about['accuracy_interval'])}"
    right = f"It is right about {pages.format_percent(about['accuracy'])} of {about['images']:,} images"
    guess = f"always guessing the commonest class gives {pages.format_percent(most)}"
    first = f"{right} that it was not trained on ({interval}); {guess}."
    weakest = min(known, key=lambda each: (each["recall"], -each["images"]))
    hits = round(weakest["recall"] * weakest["images"])
    second = "It is right about every one of them."
    if hits < weakest["images"]:
        second = f"It is weakest for '{weakest['class']}', {hits} of {weakest['images']} right."
    error = f"they differ from the accuracy by {pages.format_percent(about['ece'])} on average"
    third = f"Its probabilities can be taken at face value: {error}."
    if about["ece"] > TRUSTED:
        third = f"Its probabilities should not be taken at face value: {error}."
        if about["looks_calibrated"]:
            third = f"Whether to trust its probabilities cannot be told with so few images: {error}."
    return [first, second, third]


def describe_data(records: Records) -> dict[str, Any]:
    """Return the images and the findings about them."""
    data = records.data
    findings = [each for each in data.get("findings", []) if isinstance(each, dict)]
    corrections = data.get("corrections") or {}
    applied = {key: value for key, value in corrections.items() if isinstance(value, int) and value}
    return {
        "images": data.get("images", {}),
        "class_count": len(records.classes),
        "split_method": data.get("split", {}).get("method", "unknown"),
        "corrections": ", ".join(f"{value:,} {key}" for key, value in applied.items()),
        "findings": findings[:FINDINGS],
        "more_findings": max(0, len(findings) - FINDINGS),
    }


def describe_training(records: Records) -> dict[str, Any]:
    """Return what trained when, the proof that frozen stages stayed the same, and the curves."""
    phases: dict[tuple[Any, ...], list[int]] = {}
    for line in records.lines:
        phases.setdefault((line.get("phase"), *line.get("trainable", [])), []).append(line["epoch"])
    rows = []
    for (_, *stages), epochs in phases.items():
        what = "the head was fitted" if epochs == [0] else f"{', '.join(stages)} trained"
        rows.append({"when": describe_epochs(epochs), "what": what})
    result = records.result
    compared = result.get("frozen_arrays_compared")
    freeze = (
        f"the digests of {compared:,} frozen arrays were equal before and after each phase"
        if result.get("frozen_unchanged") and compared
        else "no stage was frozen"
        if result
        else "not checked, because the run is not finished"
    )
    return {"phases": rows, "freeze": freeze, "curves": draw_curves(records.lines)}


def describe_epochs(epochs: Sequence[int]) -> str:
    """Return the epochs of a phase in words."""
    if epochs == [0]:
        return "epoch 0"
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"


def draw_curves(lines: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return charts of loss, accuracy and learning rate over the epochs; none for a single epoch."""
    if len(lines) < 2:
        return []
    found = []
    for title, keys in (
        ("loss", ("train_loss", "val_loss")),
        ("validation accuracy and macro-F1", ("val_accuracy", "val_macro_f1")),
        ("learning rate", ("lr",)),
    ):
        curves = {key: [(each["epoch"], each[key]) for each in lines if is_number(each.get(key))] for key in keys}
        shown = {key: line for key, line in curves.items() if line}
        if shown:
            found.append(charts.draw_lines(title, shown, "epoch"))
    return found


def is_number(value: Any) -> bool:
    """Return whether a value can be drawn."""
    return isinstance(value, int | float) and bool(np.isfinite(value))


def describe_photos(
    records: Records, scores: Scores | None, explain: Explain | None, images: Sequence[Any] | None
) -> dict[str, Any]:
    """Return confusion matrix and photos: the most certain mistakes, the least certain hits, the confused pairs."""
    empty = ("confused", "matrix", "class_names", "matrix_picture", "worst", "uncertain", "heat_note", "reliability")
    if scores is None:
        return dict.fromkeys(empty)
    photos = Photos(scores, records.classes, images)
    wrong = scores.scored["predicted"] != scores.labels
    confidence = scores.scored["confidence"]
    rows = np.arange(len(wrong))
    worst = rows[wrong][np.argsort(-confidence[wrong], kind="stable")][:SHOWN].tolist()
    uncertain = rows[~wrong][np.argsort(confidence[~wrong], kind="stable")][:SHOWN].tolist()
    note = photos.add_heat([*worst, *uncertain], explain)
    counts = count_confusion(scores.labels, scores.scored["predicted"], len(records.classes))
    small = len(records.classes) <= MATRIX
    return {
        "confused": list_confused(counts, records.classes, photos),
        "matrix": list_matrix(counts, records.classes) if small else None,
        "class_names": records.classes,
        "matrix_picture": None if small else charts.draw_confusion(counts),
        "worst": [photos.describe(row) for row in worst],
        "uncertain": [photos.describe(row) for row in uncertain],
        "heat_note": note,
        "reliability": charts.draw_reliability(list_bins(confidence, ~wrong)),
    }


def list_confused(counts: Any, classes: Sequence[str], photos: Photos) -> list[dict[str, Any]]:
    """Return the most frequent mistakes, each with photos of it."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS]
    found = []
    for true, predicted in zip(*np.unravel_index(order, mistakes.shape), strict=True):
        if mistakes[true, predicted]:
            pictures = [photos.describe(row) for row in photos.find(int(true), int(predicted))[:2]]
            about = {"label": classes[true], "predicted": classes[predicted], "of": int(counts[true].sum())}
            shown = [each for each in pictures if each["picture"]]
            found.append({**about, "images": int(mistakes[true, predicted]), "pictures": shown})
    return found


def list_matrix(counts: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the cells of a confusion matrix, with the share of each in percent of its row."""
    return [
        {
            "name": name,
            "cells": [
                {"count": int(cell), "share": round(70 * int(cell) / max(1, int(row.sum()))), "right": row_at == at}
                for at, cell in enumerate(row)
            ],
        }
        for row_at, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]


def describe_calibration(about: Mapping[str, Any]) -> str:
    """Return how the probabilities were calibrated, in words."""
    if about.get("method", "none") == "none":
        return "The probabilities were not calibrated, because no images were held back."
    before = f" (before: {pages.format_percent(about['ece_before'])})" if "ece_before" in about else ""
    where = {"validation": "validation images", "out of fold": "training images out of fold"}[about["method"]]
    return f"The temperature {about['temperature']:.3g} was measured on {about['images']:,} {where}{before}."


def list_environment(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return versions, machine and command, as names and values."""
    packages = {name: version for name, version in about.get("packages", {}).items() if version}
    names = ("command", "finetune", "python", "platform", "cpu", "cores", "memory_mb", "device", "isa", "git_commit")
    return [(name, str(about[name])) for name in names if about.get(name)] + [*packages.items()]


def list_hashes(records: Records) -> list[tuple[str, str]]:
    """Return the hashes of weights and data."""
    found = [("weights", f"{records.weights.get('source', 'none')} sha256 {records.weights.get('sha256') or '-'}")]
    for split, value in (records.data.get("fingerprint") or {}).items():
        found.append((f"{split} images", str(value)))
    return found
