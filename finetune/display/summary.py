"""Summary of a run and of its result, as names and lines of text."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.display.epochtable import format_clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from finetune.recipe.models import Recipe
    from finetune.run import Run

CLASSES = 10  # shown with their counts


def summarise_run(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the settings of a run, as names and values."""
    recipe = run.recipe
    yield "images", describe_images(run.images, len(run.classes))
    if run.class_counts:
        yield "classes", describe_classes(run.class_counts)
    chosen = ", the best available" if recipe.runner.device == "auto" else ""
    yield "network", f"{recipe.backbone.use} on {run.device}{chosen}"
    yield "weights", describe_weights(run.weights)
    yield (
        "training",
        describe_training(recipe, run.steps_per_epoch),
    )
    yield "run", format_path(run.folder)


def describe_training(recipe: Recipe, steps: int) -> str:
    """Describe in one line how a run trains."""
    fitted = getattr(recipe.head, "start", "random") == "fitted"
    if not recipe.train.length:
        return "the head is fitted to its optimum"
    epochs = f"{format_count(recipe.train.length, 'epoch')} of {format_count(steps, 'step')}"
    epochs += f", batch size {recipe.train.batch}"
    return f"the head is fitted, then {epochs}" if fitted else epochs


def format_count(count: int, noun: str) -> str:
    """Format a number with its noun, in the singular or plural."""
    return f"{count} {noun}{'s' * (count != 1)}"


def describe_images(images: Mapping[str, int], classes: int) -> str:
    """Describe in one line how many images and classes there are."""
    names = {"train": "training", "valid": "validation", "test": "test"}
    counts = (f"{images[part]:,} {name}" for part, name in names.items() if images.get(part))
    return f"{', '.join(counts)}; {classes:,} classes"


def describe_classes(counts: Mapping[str, int]) -> str:
    """List the training images of the first ten classes, and of the most and the least frequent class."""
    first = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:CLASSES])
    if len(counts) <= CLASSES:
        return f"{first} training images"
    most, least = (pick(counts, key=lambda name: counts[name]) for pick in (max, min))
    extremes = f"most: {most} ({counts[most]:,}), fewest: {least} ({counts[least]:,})"
    return f"{first} and {len(counts) - CLASSES:,} more; {extremes} training images"


def describe_weights(report: Mapping[str, Any]) -> str:
    """Describe in one line how the pretrained weights were loaded."""
    counts = ((name, len(report.get(name, ()))) for name in ("loaded", "reinitialised", "unexpected", "ignored"))
    return f"{report.get('source', '?')}: {', '.join(f'{count} {name}' for name, count in counts if count)}"


def summarise_result(result: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the result of a finished run and the next steps, as names and values."""
    early = f"; stopped early: {result['stopped_early']}" if result.get("stopped_early") else ""
    done = format_count(result["epochs"], "epoch") if result["epochs"] else "the head is fitted,"
    yield "finished", f"{done} in {format_clock(result['seconds'])}{early}"
    best, judged = result.get("best"), result.get("validation") or {}
    if best:
        values = (f"{name.replace('_', ' ')} {value:.4f}" for name, value in best.items() if name != "epoch")
        which = f"epoch {best['epoch']}" if best["epoch"] else "the fitted head"
        yield "best", f"{which}, {', '.join(values)}"
    if "accuracy_low" in judged:
        interval = f"95 % interval {judged['accuracy_low']:.3f} to {judged['accuracy_high']:.3f}"
        where = "out of fold" if judged["method"] == "folds" else "held back"
        yield "accuracy", f"{judged['accuracy']:.4f} ({interval}; {judged['images']:,} images, {where})"
    if result.get("test_accuracy") is not None:
        yield "test", f"accuracy {result['test_accuracy']:.4f}"
    if "frozen_unchanged" in result:
        yield "frozen", "unchanged" if result["frozen_unchanged"] else "CHANGED"
    yield "run", format_path(folder)
    if (folder / "tensorboard").is_dir():
        yield "curves", f"tensorboard --logdir {format_path(folder / 'tensorboard')}"
    yield "predict", f"finetune predict {format_path(folder)} photo.jpg"


def format_path(path: Path) -> str:
    """Format a path for the command line: relative if it is below the current folder, quoted if necessary."""
    try:
        here = Path.cwd()
    except OSError:  # the current folder has been removed
        here = path
    return shlex.quote(str(path.relative_to(here) if here in path.parents else path))
