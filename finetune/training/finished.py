"""Finished runs: whether resuming one has nothing to do, conflicts with its recipe, or extends it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from finetune.data import loading as datas
from finetune.data.scan import make_progress
from finetune.errors import FinetuneError, UsageError
from finetune.machine.environment import count_usable_cores
from finetune.recipe import plan as plans
from finetune.recipe.models import MOST_EPOCHS
from finetune.recipe.moved import load_run_recipe
from finetune.training import changes, defaults, older, pretrained, records, saving
from finetune.training.records import load_data, read_split_method

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.data.loading import Data
    from finetune.recipe.plan import Plan
    from finetune.run import Run

NEW_NETWORK = ("classes: ", "backbone.use: ", "head.use: ", "head.hidden: ")  # changes after which no checkpoint fits


def decide_resume(
    folder: Path,
    plan: Plan,
    catalogue: Catalogue,
    *,
    extend: int | None,
    allow_changed: bool,
    say: Callable[[str], None],
) -> tuple[Plan, Run | None, bool]:
    """Decide what resuming the run in ``folder`` means.

    Returns the plan, the run if there is nothing left to do, and whether a finished run is extended.

    A finished run has nothing to do if its recipe and images are those of ``plan``. With ``extend`` it trains that many
    more epochs; with ``allow_changed`` it continues up to ``train.epochs``. Otherwise ``UsageError`` lists the
    differences.
    """
    plan = older.keep_settled(older.keep_defaults(plan, folder), folder)
    done = records.read_if_finished(folder, plan)
    if done is None:
        if extend is not None:
            raise UsageError(f"{folder} is not finished; finish it first with: finetune run --resume {folder}")
        return plan, None, False
    last = int(done.epoch)
    if extend is not None:
        plan = set_epochs(plan, last + extend, catalogue)
        if last == 0 and plan.recipe.optimizer.lr == defaults.RATES[plan.recipe.optimizer.use]:
            plan = defaults.replace_values(plan, "optimizer", lr="auto")  # no epoch was trained at that rate
    found = find_changes(folder, plan, catalogue, say)
    unexpected = changes.select_unexpected(found, extended=extend is not None)
    if unexpected and not allow_changed:
        raise UsageError(explain_changes(folder, unexpected, last))
    if not found and extend is None:
        say(f"nothing to do: {folder} is finished")
        return plan, done, False
    if plan.recipe.train.length <= last:
        text = f"{folder} has already trained {last} epochs, but train.epochs is {plan.recipe.train.length}"
        raise UsageError(f"{text}; add --extend EPOCHS to train longer, or remove --resume to start a new run")
    if not saving.list_checkpoints(folder / "checkpoints"):
        remedy = f"start a new run, with backbone.weights={folder} to start from its weights"
        raise UsageError(f"{folder} cannot be extended: its checkpoints were deleted; {remedy}")
    return plan, None, True


def explain_changes(folder: Path, found: list[str], last: int) -> str:
    """Return the message that lists the differences, with one remedy if the network differs, else both."""
    lines = [f"{folder} is finished, but its recipe or images differ from the current ones:"]
    lines += [f"  {change}" for change in found]
    lines.append("remove --resume to start a new run")
    if any(change.startswith(NEW_NETWORK) for change in found):
        return "\n".join(lines)
    more = f"or continue from its last state, epoch {last}: add --allow-changed to accept these differences"
    lines.append(f"{more}, and --extend EPOCHS or a higher train.epochs")
    return "\n".join(lines)


def set_epochs(plan: Plan, epochs: int, catalogue: Catalogue) -> Plan:
    """Return a plan with a different number of epochs, checked like any recipe."""
    if epochs > MOST_EPOCHS:
        raise UsageError(f"--extend leads to {epochs:,} epochs; at most {MOST_EPOCHS:,} are allowed")
    values = plan.recipe.model_dump(mode="json", by_alias=True)
    return plans.load_plan(values, [f"{changes.EPOCHS}={epochs}"], catalogue)


def find_changes(folder: Path, plan: Plan, catalogue: Catalogue, say: Callable[[str], None]) -> list[str]:
    """Return the differences between a plan and the finished run in a folder, as lines of text."""
    made_of = older.keep_defaults(plans.load_plan(load_run_recipe(folder), [], catalogue), folder)
    same_weights, weights = changes.find_weights_changes(folder, plan)
    before, now = (
        read_recorded_recipe(folder) or records.extract_mathematics(made_of),
        records.extract_mathematics(plan),
    )
    found = changes.find_changes_since(before, now, plan, folder, same_weights=same_weights)
    found += find_callback_changes(folder, made_of, plan, say)
    return [*found, *weights, *find_data_changes(folder, plan, catalogue, say)]


def read_recorded_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe in the run's newest checkpoint, which users cannot edit; empty without a checkpoint."""
    with suppress(FinetuneError, KeyError):
        recipe: dict[str, Any] = older.complete_state(saving.load_newest(folder / "checkpoints")[0].state)["recipe"]
        return recipe
    return {}


def find_callback_changes(folder: Path, made_of: Plan, plan: Plan, say: Callable[[str], None]) -> list[str]:
    """Return the differences of callbacks if one of them stopped the run; otherwise only report them."""
    found = changes.list_differences(records.list_callbacks(made_of), records.list_callbacks(plan), "callbacks")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if result.get("stopped_early"):
        return found
    for change in found:
        say(f"note: {change}; callbacks have no effect on finished epochs")
    return []


def find_data_changes(folder: Path, plan: Plan, catalogue: Catalogue, say: Callable[[str], None]) -> list[str]:
    """Return the differences between the images of a plan and of the finished run in a folder, as lines of text."""
    try:
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        before, classes = about["fingerprint"], tuple(about["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"images: cannot be compared, because {folder / 'data.json'} cannot be read ({error})"]
    data = load_own_data(folder, plan, classes, say)
    if data.classes != classes:
        gone, new = [c for c in classes if c not in data.classes][:5], [c for c in data.classes if c not in classes][:5]
        return [f"classes: missing {gone}, new {new}", *_describe_images(folder, data)]
    return _describe_images(folder, data) if data.report["fingerprint"] != before else []


def _describe_images(folder: Path, data: Data) -> list[str]:
    return [f"images: {changes.describe_image_changes(folder, data) or 'changed'}"]


def load_own_data(folder: Path, plan: Plan, classes: tuple[str, ...], say: Callable[[str], None]) -> Data:
    """Load the data of a plan with the split method and the class order of the run in a folder."""
    method = read_split_method(folder)
    data = load_data(plan, count_usable_cores(), make_progress(say), method=method)
    if pretrained.keeps_head(plan) and {*data.classes} <= {*classes}:
        return datas.relabel_data(data, classes)
    return data
