"""The files of a run folder: what was asked, what was found, and what came out."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from finetune.data.findings import finding_line
from finetune.errors import DataError, PluginError, ResourceError, UsageError
from finetune.files import atomic
from finetune.machine import environment
from finetune.machine.cores import usable_cores
from finetune.model.network import Network, assign, values
from finetune.recipe import plan as plans
from finetune.run import Best, Run
from finetune.training import masking, start
from finetune.trunk import engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.plugins import Origin
    from finetune.recipe.plan import Plan
    from finetune.training.prepare import Prepared

WITHOUT_EFFECT_ON_WEIGHTS = ("name", "output", "callbacks", "runner")
FINDINGS = 20  # shown on the screen


def new_run(prepared: Prepared, folder: Path, *, say: Callable[[str], None], resumed: bool, steps: int) -> Run:
    """Return the run object of a folder; what plugins say goes to the screen and to ``log.txt``."""
    data = prepared.data
    return Run(
        folder=folder,
        recipe=masking.without_secrets(prepared.plan.recipe),
        recipe_text=environment.masked(plans.dump(prepared.plan)),
        classes=data.classes,
        stages=prepared.network.names,
        device=prepared.device.name,
        steps_per_epoch=steps,
        images={part: len(getattr(data, part)) for part in ("train", "valid", "test") if getattr(data, part)},
        weights=prepared.weights,
        resumed=resumed,
        _say=logged(say, folder / "log.txt") if prepared.world.first else say,
    )


def logged(say: Callable[[str], None], path: Path) -> Callable[[str], None]:
    """Return ``say`` that also appends to a file; a log that cannot be written stops nothing."""

    def both(message: str) -> None:
        say(message)
        log(path.parent, message)

    return both


def log(folder: Path, message: str) -> None:
    """Append a line to a run's ``log.txt``; a log that cannot be written stops nothing."""
    with suppress(OSError), (folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")


def say_findings(findings: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> None:
    """Show what was noticed about the data, the first lines of it; ``data.json`` has all."""
    warnings = [found for found in findings if found["severity"] == "warning"]
    for found in warnings[:FINDINGS]:
        say(f"warning: {finding_line(found)}")
    if len(warnings) > FINDINGS:
        say(f"warning: {len(warnings) - FINDINGS} more about the data, in data.json")


def write_start(prepared: Prepared, run: Run) -> None:
    """Write what is known before the first epoch."""
    write_recipe(prepared, run.folder)
    device = prepared.device
    about = environment.describe() | {"device": device.name, "device_why": device.why, "isa": device.isa}
    atomic.write_json(run.folder / "environment.json", about)
    atomic.write_json(run.folder / "data.json", prepared.data.report)
    atomic.write_json(run.folder / "weights.json", prepared.weights)


def write_recipe(prepared: Prepared, folder: Path) -> None:
    """Write the complete recipe, by which the run is resumed."""
    masking.write(folder / "recipe.yaml", plans.dump(prepared.plan))


def write_history(run: Run) -> None:
    """Write ``metrics.jsonl``, one line an epoch."""
    lines = [json.dumps(line, allow_nan=False) + "\n" for line in run.history]
    atomic.write_text(run.folder / "metrics.jsonl", "".join(lines))


def keep_history(prepared: Prepared, run: Run) -> None:
    """Write ``metrics.jsonl``; where the disk refuses, it is written with a later epoch, or at the end."""
    try:
        if not (run.folder / "recipe.yaml").exists():
            run.say(f"warning: {run.folder} was removed; it is written anew")
            write_start(prepared, run)
        write_history(run)
    except ResourceError as error:
        run.say(f"warning: {error}; the run goes on, and tries again")


def write_result(run: Run) -> None:
    """Write ``result.json``, which marks the run as finished."""
    atomic.write_json(run.folder / "result.json", run.result)


def identity(prepared: Prepared) -> dict[str, Any]:
    """Return what a checkpoint must share with the run that resumes it."""
    data = prepared.data
    return {
        "recipe": mathematics(prepared.plan),
        "classes": list(data.classes),
        "fingerprint": {part: data.report["fingerprint"][part] for part in ("train", "valid")},
        "start": start.record(prepared),
        "exactness": {
            "trunk": trunk_engine(prepared),
            "instruction set": prepared.device.isa,
            "cores": usable_cores(),
            "devices": prepared.world.size,
            **{name: version for name, version in environment.packages().items() if name in ("mindspore", "numpy")},
        },
    }


def plugin_states(states: Mapping[str, Any], origins: Iterable[Origin], *, strict: bool) -> dict[str, Any]:
    """Return a copy of what plugins keep in a run; ``PluginError`` for what JSON cannot hold, or leave it out.

    ``origins`` are the run's plugins, each of which keeps its own below its name.
    """
    kept = {}
    for name, state in states.items():
        try:
            kept[str(name)] = json.loads(json.dumps(state, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            if strict:
                remedy = "keep numbers, text, lists and mappings there"
                whose = next((f"{origin}: " for origin in origins if origin.name == name and origin.foreign), "")
                raise PluginError(f"{whose}run.state['{name}'] cannot be saved as JSON: {error}; {remedy}") from error
    return kept


def trunk_engine(prepared: Prepared) -> str:
    """Return what computes what is frozen, in a few words."""
    about = engines.expected(prepared.plan.recipe.trunk, prepared.device.name)
    return f"{about['name']} {about['version']} in {about['precision']}"


def mathematics(plan: Plan) -> dict[str, Any]:
    """Return the resolved recipe without its secrets and the keys that cannot change the weights."""
    said = masking.without_secrets(plan.recipe).model_dump(mode="json")
    del said["train"]["on_nonfinite"]  # nothing, as long as all is finite
    kept = {key: value for key, value in said.items() if key not in WITHOUT_EFFECT_ON_WEIGHTS}
    return kept | {"runner": {"amp": said["runner"]["amp"]}}


def check_same(
    state: Mapping[str, Any], prepared: Prepared, say: Callable[[str], None], *, allow: bool = False
) -> bool:
    """Raise what forbids to go on from a checkpoint: another recipe, start, classes or images; say what it costs.

    Returns whether the recipe or the images changed, which ``allow`` does not forbid.
    """
    own = identity(prepared)
    changes = differences(masking.hidden("recipe", state["recipe"]), own["recipe"])
    changed = bool(changes)
    if changes and not allow:
        said = "the recipe differs from the one this run began with: " + "; ".join(changes)
        raise UsageError(f"{said}; undo that, start a new run, or add --allow-changed")
    if changes:
        say(f"the recipe changed, and the run goes on with it: {'; '.join(changes)}")
    changes = differences(state.get("start", own["start"]), own["start"])  # older checkpoints do not say it
    if changes and not changed:
        why = "the weights, or what they ask for, changed since this run began: " + "; ".join(changes)
        raise UsageError(f"{why}; restore the file or start a new run")
    before, now = state["classes"], own["classes"]
    if before != now:
        gone, new = [c for c in before if c not in now][:5], [c for c in now if c not in before][:5]
        raise DataError(f"the classes or their order changed: gone {gone}, new {new}; start a new run")
    for part, fingerprint in own["fingerprint"].items():
        if state["fingerprint"][part] != fingerprint and not allow:
            said = f"the images for '{part}' changed since this run began"
            raise DataError(f"{said}; restore them, start a new run, or add --allow-changed")
        if state["fingerprint"][part] != fingerprint:
            say(f"the images for '{part}' changed, and the run goes on with those there are now")
            changed = True
    costs = differences(state["exactness"], own["exactness"])
    if costs:
        say(f"the rest of this run will not be bit-exact: {'; '.join(costs)}")
    return changed


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return ``key: old → new`` for every leaf that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [d for key in keys for d in differences(before.get(key), after.get(key), f"{path}.{key}".strip("."))]
    return [] if before == after else [f"{path}: {before!r} → {after!r}"]


def finished(folder: Path, plan: Plan) -> Run | None:
    """Return a run folder's run if it is finished; ``UsageError`` if the folder is not one."""
    if not (folder / "recipe.yaml").exists():
        raise UsageError(f"no run in {folder}: it has no recipe.yaml; name a folder that `finetune run` made")
    if not (folder / "result.json").exists():
        return None
    try:
        return read_finished(folder, plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the records in {folder} are damaged ({error}); remove result.json to resume") from error


def read_finished(folder: Path, plan: Plan) -> Run:
    """Return the run of a finished folder from its records."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    about = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    best = result["best"]
    return Run(
        folder=folder,
        recipe=masking.without_secrets(plan.recipe),
        recipe_text=environment.masked((folder / "recipe.yaml").read_text(encoding="utf-8")),
        classes=tuple(about["classes"]),
        stages=tuple(about["stages"]),
        device="none",
        steps_per_epoch=0,
        images={},
        epoch=result["epochs"],
        history=[json.loads(line) for line in lines],
        best=Best(epoch=best["epoch"], value=next(v for k, v in best.items() if k != "epoch")) if best else None,
        result=result,
    )


class Swapped:
    """Other weights in a network for the length of a block; None leaves them as they are."""

    def __init__(self, network: Network, weights: Mapping[str, NDArray[Any]] | None) -> None:
        self.network, self.weights = network, weights

    def __enter__(self) -> None:
        if self.weights is not None:
            self.before = {name: a.copy() for name, a in values(self.network.get_parameters()).items()}
            assign(self.network.get_parameters(), self.weights)

    def __exit__(self, *exception: object) -> None:
        if self.weights is not None:
            assign(self.network.get_parameters(), self.before)
