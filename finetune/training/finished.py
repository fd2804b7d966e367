"""Finished runs: whether one is asked to be what it is, is asked for something else, or is to be extended."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from finetune.data import loading as datas
from finetune.data.scan import told
from finetune.errors import FinetuneError, UsageError
from finetune.machine.environment import usable_cores
from finetune.recipe import plan as plans
from finetune.recipe.models import MOST_EPOCHS
from finetune.recipe.moved import load_run_recipe
from finetune.training import changes, defaults, older, pretrained, records, saving
from finetune.training.records import load_data, split_method

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.data.loading import Data
    from finetune.recipe.plan import Plan
    from finetune.run import Run

NEW_NETWORK = ("classes: ", "backbone.use: ", "head.use: ", "head.hidden: ")  # which no checkpoint of the run fits


def settle(
    folder: Path,
    plan: Plan,
    catalogue: Catalogue,
    *,
    extend: int | None,
    allow_changed: bool,
    say: Callable[[str], None],
) -> tuple[Plan, Run | None, bool]:
    """Decide what resuming the run in ``folder`` means; return the plan, the run if nothing is left to do, and whether
    a finished run is extended.

    A finished run whose recipe and images are those of ``plan`` has nothing to do. With ``extend`` it trains that many
    epochs more; with ``allow_changed`` it trains on to ``train.epochs``. Raises ``UsageError`` that lists what differs
    otherwise.
    """
    plan = older.keep_settled(older.keep_defaults(plan, folder), folder)
    done = records.finished(folder, plan)
    if done is None:
        if extend is not None:
            raise UsageError(f"{folder} is not finished; finish it first with: finetune run --resume {folder}")
        return plan, None, False
    last = int(done.epoch)
    if extend is not None:
        plan = with_epochs(plan, last + extend, catalogue)
        if last == 0 and plan.recipe.optimizer.lr == defaults.RATES[plan.recipe.optimizer.use]:
            plan = defaults.changed(plan, "optimizer", lr="auto")  # nothing was trained at that rate
    found = find_changes(folder, plan, catalogue, say)
    unexpected = changes.unexpected_changes(found, extended=extend is not None)
    if unexpected and not allow_changed:
        raise UsageError(explain(folder, unexpected, last))
    if not found and extend is None:
        say(f"nothing to do: {folder} is finished")
        return plan, done, False
    if plan.recipe.train.length <= last:
        said = f"{folder} has trained {last} epochs already, and train.epochs is {plan.recipe.train.length}"
        raise UsageError(f"{said}; add --extend EPOCHS to train on, or drop --resume to start a new run")
    if not saving.steps(folder / "checkpoints"):
        remedy = f"start a new run, with backbone.weights={folder} to begin with its weights"
        raise UsageError(f"{folder} cannot be extended: it has no checkpoint any more; {remedy}")
    return plan, None, True


def explain(folder: Path, found: list[str], last: int) -> str:
    """Return the message that lists what differs, with both ways out, or one where the network is another."""
    lines = [f"{folder} is finished, and was made from another recipe or other images than you ask for now:"]
    lines += [f"  {change}" for change in found]
    lines.append("drop --resume to start a new run")
    if any(change.startswith(NEW_NETWORK) for change in found):
        return "\n".join(lines)
    train_on = f"or train on from its last state, epoch {last}: add --allow-changed to accept these differences"
    lines.append(f"{train_on}, and --extend EPOCHS or a higher train.epochs")
    return "\n".join(lines)


def with_epochs(plan: Plan, epochs: int, catalogue: Catalogue) -> Plan:
    """Return a plan with another number of epochs, checked as a recipe that says it."""
    if epochs > MOST_EPOCHS:
        raise UsageError(f"--extend leads to {epochs:,} epochs; {MOST_EPOCHS:,} are the most")
    values = plan.recipe.model_dump(mode="json", by_alias=True)
    return plans.load_plan(values, [f"{changes.EPOCHS}={epochs}"], catalogue)


def find_changes(folder: Path, plan: Plan, catalogue: Catalogue, say: Callable[[str], None]) -> list[str]:
    """Return what differs between a plan and what the finished run in a folder was made of, ready to read."""
    made_of = older.keep_defaults(plans.load_plan(load_run_recipe(folder), [], catalogue), folder)
    same_weights, weights = changes.weights_changes(folder, plan)
    before, now = recorded_recipe(folder) or records.mathematics(made_of), records.mathematics(plan)
    found = changes.changes_since(before, now, plan, folder, same_weights=same_weights)
    found += find_callback_changes(folder, made_of, plan, say)
    return [*found, *weights, *find_data_changes(folder, plan, catalogue, say)]


def recorded_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe that the run's newest checkpoint holds, which nobody edits; empty where there is none."""
    with suppress(FinetuneError, KeyError):
        recipe: dict[str, Any] = older.completed(saving.newest(folder / "checkpoints")[0].state)["recipe"]
        return recipe
    return {}


def find_callback_changes(folder: Path, made_of: Plan, plan: Plan, say: Callable[[str], None]) -> list[str]:
    """Return how callbacks differ if one of them ended the finished run; otherwise they are only reported."""
    found = changes.differences(records.callbacks(made_of), records.callbacks(plan), "callbacks")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if result.get("stopped_early"):
        return found
    for change in found:
        say(f"note: {change}; callbacks have no effect on epochs that are finished")
    return []


def find_data_changes(folder: Path, plan: Plan, catalogue: Catalogue, say: Callable[[str], None]) -> list[str]:
    """Return what differs between the images of a plan and those of the finished run in a folder, ready to read."""
    try:
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        before, classes = about["fingerprint"], tuple(about["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"images: cannot be compared, since {folder / 'data.json'} cannot be read ({error})"]
    data = load_own_data(folder, plan, catalogue, classes, say)
    if data.classes != classes:
        gone, new = [c for c in classes if c not in data.classes][:5], [c for c in data.classes if c not in classes][:5]
        return [f"classes: gone {gone}, new {new}", *_image_lines(folder, data)]
    return _image_lines(folder, data) if data.report["fingerprint"] != before else []


def _image_lines(folder: Path, data: Data) -> list[str]:
    return [f"images: {changes.image_changes(folder, data) or 'changed'}"]


def load_own_data(
    folder: Path, plan: Plan, catalogue: Catalogue, classes: tuple[str, ...], say: Callable[[str], None]
) -> Data:
    """Return the data of a plan as the run in a folder would have it."""
    method = split_method(folder)
    data = load_data(plan, catalogue, usable_cores(), told(say), method=method)
    if pretrained.keeps_head(plan) and {*data.classes} <= {*classes}:
        return datas.relabelled(data, classes)
    return data
