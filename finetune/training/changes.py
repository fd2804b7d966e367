"""Changes since a run began: what differs in its recipe, weights, classes and images from what it was made of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from finetune.data import splitfile
from finetune.errors import DataError, UsageError
from finetune.recipe import masking
from finetune.recipe.moved import follow_move
from finetune.recipe.places import is_weights_file, resolve_paths
from finetune.training import older, records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from finetune.components import Options
    from finetune.data.loading import Data
    from finetune.recipe.plan import Plan
    from finetune.training.prepare import Prepared

EPOCHS = "train.epochs"
REOPENED = r"optimizer\.lr: .* → 'auto'"


def check_same(
    state: Mapping[str, Any],
    prepared: Prepared,
    say: Callable[[str], None],
    *,
    folder: Path,
    allow: bool = False,
    extended: bool = False,
) -> bool:
    """Raise what forbids to resume from a checkpoint: another recipe, start, classes or images; say what it costs.

    ``extended`` allows another number of epochs, and ``allow`` any recipe and images. Returns whether the recipe or
    the images changed.
    """
    own, state = records.identity(prepared), older.completed(state)
    changes = _changes_since(state, own, prepared, folder)
    unexpected = unexpected_changes(changes, extended=extended)
    if unexpected and not allow:
        said = "the recipe differs from the one this run began with: " + "; ".join(unexpected)
        raise UsageError(f"{said}; undo that, start a new run, or add --allow-changed")
    if unexpected:
        say(f"the recipe changed; continuing with the new one: {'; '.join(changes)}")
    _check_start(state, own, allow=bool(changes))
    images = _check_images(state, own, prepared.data, folder, allow=allow)
    if images:
        say(f"{images}; continuing with those there are now")
    before, now = state["exactness"], own["exactness"]
    costs = differences(before, {key: value for key, value in now.items() if key in before})  # older ones say less
    if costs:
        say(f"the rest of this run will not be bit-exact: {'; '.join(costs)}")
    return bool(changes or images)


def unexpected_changes(found: Sequence[str], *, extended: bool) -> list[str]:
    """Return the changes that the user did not ask for: to extend a run changes its number of epochs.

    A run that only fitted its head has not measured its learning rate, which an extension does.
    """
    if not extended:
        return list(found)
    return [each for each in found if not each.startswith(f"{EPOCHS}: ") and not re.fullmatch(REOPENED, each)]


def _changes_since(state: Mapping[str, Any], own: Mapping[str, Any], prepared: Prepared, folder: Path) -> list[str]:
    """Return what differs in the recipe; a project that was moved or copied counts as if it were in its old place."""
    same_weights = _same_weights(state, own)
    return changes_since(state["recipe"], own["recipe"], prepared.plan, folder, same_weights=same_weights)


def changes_since(
    before: Mapping[str, Any], now: Mapping[str, Any], plan: Plan, folder: Path, *, same_weights: bool
) -> list[str]:
    """Return what differs between the recipe that a checkpoint in ``folder`` holds and that of ``plan``, ``now``."""
    recipes = (before, follow_move(before, folder, copied=True))
    return min((recipe_changes(each, now, plan, same_weights=same_weights) for each in recipes), key=len)


def _check_start(state: Mapping[str, Any], own: Mapping[str, Any], *, allow: bool) -> None:
    changes = differences(state.get("start", own["start"]), own["start"])  # older checkpoints do not say it
    if changes and not allow:
        why = "the weights, or what they ask for, changed since this run began: " + "; ".join(changes)
        raise UsageError(f"{why}; restore the file or start a new run")


def _check_images(state: Mapping[str, Any], own: Mapping[str, Any], data: Data, folder: Path, *, allow: bool) -> str:
    """Return in words which images changed, empty if none did; raises ``DataError`` if that is not allowed."""
    before, now = state["classes"], own["classes"]
    if before != now:
        gone, new = [c for c in before if c not in now][:5], [c for c in now if c not in before][:5]
        raise DataError(f"the classes or their order changed: gone {gone}, new {new}; start a new run")
    parts = [part for part, found in own["fingerprint"].items() if state["fingerprint"][part] != found]
    if not parts:
        return ""
    named = f"the images for {' and '.join(map(repr, parts))} changed"
    counts = f" ({found})" if (found := image_changes(folder, data)) else ""
    if not allow:
        remedy = "restore them, start a new run, or add --allow-changed"
        raise DataError(f"{named} since this run began{counts}; {remedy}")
    return f"{named}{counts}"


def is_judged_differently(state: Mapping[str, Any], prepared: Prepared) -> bool:
    """Tell whether epochs before and after a checkpoint are judged by another metric, preprocessing or other images."""
    own, state = records.identity(prepared), older.completed(state)
    metrics = [each["recipe"]["evaluate"]["metric"] for each in (state, own)]
    images = [each.get("start", own["start"])["image"] for each in (state, own)]
    valid = [each["fingerprint"]["valid"] for each in (state, own)]
    return any(before != now for before, now in (metrics, images, valid))


def is_moved(state: Mapping[str, Any], prepared: Prepared) -> bool:
    """Tell whether a run that is otherwise the same finds its images or weights at other paths."""
    before: dict[str, Any] = masking.mask_value("recipe", dict(state["recipe"]))
    return before != records.mathematics(prepared.plan)


def _same_weights(state: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Tell whether two runs are known to have begun with weights of the same content."""
    before: str | None = state.get("start", {}).get("weights", {}).get("sha256")
    now: str | None = own["start"]["weights"]["sha256"]
    return before is not None and before == now


def image_changes(folder: Path, data: Data) -> str:
    """Return in words how many images of the run in a folder changed; empty where it is not known."""
    record = splitfile.read(folder)
    return splitfile.describe_changes(record.rows, splitfile.rows_of(data)) if record else ""


def recipe_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], plan: Plan, *, same_weights: bool = False
) -> list[str]:
    """Return ``key: old → new`` for what differs between the mathematics of a run and of ``plan``, which is ``now``.

    Paths count by what they hold: those of the dataset are left out, since its images are compared by their contents,
    and ``backbone.weights`` where the contents are the same.
    """
    old, new = masking.mask_value("recipe", dict(before)), dict(now)
    old, new = _without_paths(old, plan), _without_paths(new, plan)
    if same_weights:
        old, new = _without(old, "backbone", "weights"), _without(new, "backbone", "weights")
    return differences(old, new)


def _without_paths(recipe: dict[str, Any], plan: Plan) -> dict[str, Any]:
    if recipe["dataset"].get("use") != plan.dataset.component.name:
        return recipe
    return _without(recipe, "dataset", *path_keys(plan.dataset.options))


def _without(recipe: dict[str, Any], section: str, *keys: str) -> dict[str, Any]:
    kept = {key: value for key, value in recipe[section].items() if key not in keys}
    return {**recipe, section: kept}


def path_keys(options: Options) -> set[str]:
    """Return the keys of options that hold a path, alone or within a list or mapping."""
    keys: set[str] = set()

    def note(path: Path, at: tuple[str | int, ...]) -> Path:
        keys.add(str(at[0]))
        return path

    resolve_paths(options, (), note)
    for name, field in type(options).model_fields.items():
        if field.annotation is Path or Path in get_args(field.annotation):
            keys.add(field.alias or name)
    return keys


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return ``key: old → new`` for every leaf that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [d for key in keys for d in differences(before.get(key), after.get(key), f"{path}.{key}".strip("."))]
    return [] if before == after else [f"{path}: {before!r} → {after!r}"]


def weights_changes(folder: Path, plan: Plan) -> tuple[bool, list[str]]:
    """Return whether the weights of a run are known to be the same file content, and what differs.

    Only a file of the user's is looked at: what a name stands for does not change.
    """
    from finetune.files.promise import sha256
    from finetune.weights.fetching import in_folder

    try:
        about = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
        before = about.get("sha256")
    except (OSError, ValueError, AttributeError):
        return False, []
    name = plan.recipe.backbone.weights
    path = in_folder(Path(name))
    if before is None or not (is_weights_file(name) and path.is_file()) or path.suffix == ".md":
        return False, []
    now = sha256(path)
    return now == before, [] if now == before else [f"content of {path}: sha256 {before[:12]}… → {now[:12]}…"]
