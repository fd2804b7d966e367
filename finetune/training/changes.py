"""Changes since a run started: differences in its recipe, weights, classes and images."""

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
    """Check that a run can resume from a checkpoint, and report when the result will not be bit-exact.

    Raises ``UsageError`` or ``DataError`` for a different recipe, start, classes or images. ``extended`` allows a
    different number of epochs, and ``allow`` any recipe and images. Returns whether the recipe or the images changed.
    """
    own, state = records.describe_identity(prepared), older.complete_state(state)
    changes = _find_changes(state, own, prepared, folder)
    unexpected = select_unexpected(changes, extended=extended)
    if unexpected and not allow:
        text = "the recipe differs from the one this run started with: " + "; ".join(unexpected)
        raise UsageError(f"{text}; undo the changes, start a new run, or add --allow-changed")
    if unexpected:
        say(f"the recipe changed; continuing with the new one: {'; '.join(changes)}")
    _check_start(state, own, allow=bool(changes))
    images = _check_images(state, own, prepared.data, folder, allow=allow)
    if images:
        say(f"{images}; continuing with the current images")
    before, now = state["exactness"], own["exactness"]
    costs = list_differences(
        before, {key: value for key, value in now.items() if key in before}
    )  # fewer in old checkpoints
    if costs:
        say(f"the rest of this run will not be bit-exact: {'; '.join(costs)}")
    return bool(changes or images)


def select_unexpected(found: Sequence[str], *, extended: bool) -> list[str]:
    """Return the changes that the user did not ask for.

    Extending a run changes its number of epochs. If the run only fitted its head, it also opens the learning rate,
    which the extension measures.
    """
    if not extended:
        return list(found)
    return [each for each in found if not each.startswith(f"{EPOCHS}: ") and not re.fullmatch(REOPENED, each)]


def _find_changes(state: Mapping[str, Any], own: Mapping[str, Any], prepared: Prepared, folder: Path) -> list[str]:
    """Return the differences of the recipe; paths in a project that was moved or copied count as unchanged."""
    same_weights = _has_same_weights(state, own)
    return find_changes_since(state["recipe"], own["recipe"], prepared.plan, folder, same_weights=same_weights)


def find_changes_since(
    before: Mapping[str, Any], now: Mapping[str, Any], plan: Plan, folder: Path, *, same_weights: bool
) -> list[str]:
    """Return the differences between the recipe of a checkpoint in ``folder``, ``before``, and that of ``plan``."""
    recipes = (before, follow_move(before, folder, copied=True))
    return min((list_recipe_changes(each, now, plan, same_weights=same_weights) for each in recipes), key=len)


def _check_start(state: Mapping[str, Any], own: Mapping[str, Any], *, allow: bool) -> None:
    changes = list_differences(state.get("start", own["start"]), own["start"])  # missing from older checkpoints
    if changes and not allow:
        why = "the weights or their settings changed since this run started: " + "; ".join(changes)
        raise UsageError(f"{why}; restore the file or start a new run")


def _check_images(state: Mapping[str, Any], own: Mapping[str, Any], data: Data, folder: Path, *, allow: bool) -> str:
    """Describe which images changed, empty if none did; raises ``DataError`` if changes are not allowed."""
    before, now = state["classes"], own["classes"]
    if before != now:
        gone, new = [c for c in before if c not in now][:5], [c for c in now if c not in before][:5]
        raise DataError(f"the classes or their order changed: missing {gone}, new {new}; start a new run")
    parts = [part for part, found in own["fingerprint"].items() if state["fingerprint"][part] != found]
    if not parts:
        return ""
    named = f"the images for {' and '.join(map(repr, parts))} changed"
    counts = f" ({found})" if (found := describe_image_changes(folder, data)) else ""
    if not allow:
        remedy = "restore them, start a new run, or add --allow-changed"
        raise DataError(f"{named} since this run started{counts}; {remedy}")
    return f"{named}{counts}"


def is_judged_differently(state: Mapping[str, Any], prepared: Prepared) -> bool:
    """Return whether the metric, the preprocessing or the validation images changed since a checkpoint."""
    own, state = records.describe_identity(prepared), older.complete_state(state)
    metrics = [each["recipe"]["evaluate"]["metric"] for each in (state, own)]
    images = [each.get("start", own["start"])["image"] for each in (state, own)]
    valid = [each["fingerprint"]["valid"] for each in (state, own)]
    return any(before != now for before, now in (metrics, images, valid))


def is_moved(state: Mapping[str, Any], prepared: Prepared) -> bool:
    """Return whether an otherwise unchanged run finds its images or weights at different paths."""
    before: dict[str, Any] = masking.mask_value("recipe", dict(state["recipe"]))
    return before != records.extract_mathematics(prepared.plan)


def _has_same_weights(state: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Return whether two runs are known to have started with weights of the same content."""
    before: str | None = state.get("start", {}).get("weights", {}).get("sha256")
    now: str | None = own["start"]["weights"]["sha256"]
    return before is not None and before == now


def describe_image_changes(folder: Path, data: Data) -> str:
    """Describe how many images of the run in a folder changed; empty if unknown."""
    record = splitfile.read_split(folder)
    return splitfile.describe_changes(record.rows, splitfile.list_rows(data)) if record else ""


def list_recipe_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], plan: Plan, *, same_weights: bool = False
) -> list[str]:
    """Return ``key: old → new`` for each difference between the mathematics of a run and ``now``, those of ``plan``.

    Paths are compared by content: those of the dataset are left out, since its images are compared separately, and so
    is ``backbone.weights`` with ``same_weights``.
    """
    old, new = masking.mask_value("recipe", dict(before)), dict(now)
    old, new = _drop_paths(old, plan), _drop_paths(new, plan)
    if same_weights:
        old, new = _drop_keys(old, "backbone", "weights"), _drop_keys(new, "backbone", "weights")
    return list_differences(old, new)


def _drop_paths(recipe: dict[str, Any], plan: Plan) -> dict[str, Any]:
    if recipe["dataset"].get("use") != plan.dataset.component.name:
        return recipe
    return _drop_keys(recipe, "dataset", "corrections", *find_path_keys(plan.dataset.options))


def _drop_keys(recipe: dict[str, Any], section: str, *keys: str) -> dict[str, Any]:
    kept = {key: value for key, value in recipe[section].items() if key not in keys}
    return {**recipe, section: kept}


def find_path_keys(options: Options) -> set[str]:
    """Return the keys of options whose values are paths or contain paths."""
    keys: set[str] = set()

    def note(path: Path, at: tuple[str | int, ...]) -> Path:
        keys.add(str(at[0]))
        return path

    resolve_paths(options, (), note)
    for name, field in type(options).model_fields.items():
        if field.annotation is Path or Path in get_args(field.annotation):
            keys.add(field.alias or name)
    return keys


def list_differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return ``key: old → new`` for every leaf that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            d for key in keys for d in list_differences(before.get(key), after.get(key), f"{path}.{key}".strip("."))
        ]
    return [] if before == after else [f"{path}: {before!r} → {after!r}"]


def find_weights_changes(folder: Path, plan: Plan) -> tuple[bool, list[str]]:
    """Return whether the weights of a run are known to have the same content, and the differences.

    Only files of the user are compared: named weights never change.
    """
    from finetune.files.remote_file import sha256
    from finetune.weights.fetching import find_in_folder

    try:
        about = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
        before = about.get("sha256")
    except (OSError, ValueError, AttributeError):
        return False, []
    name = plan.recipe.backbone.weights
    path = find_in_folder(Path(name))
    if before is None or not (is_weights_file(name) and path.is_file()) or path.suffix == ".md":
        return False, []
    now = sha256(path)
    return now == before, [] if now == before else [f"content of {path}: sha256 {before[:12]}… → {now[:12]}…"]
