"""The files of a run folder: what was asked, what was found, and what came out."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.data import loading as datas
from finetune.data import splitfile
from finetune.data.audit import finding_line
from finetune.errors import PluginError, ResourceError, UsageError
from finetune.files import atomic
from finetune.machine import environment, forms
from finetune.machine.environment import usable_cores
from finetune.network import engines
from finetune.network.network import Network, assign, values
from finetune.plugins import attribute_errors
from finetune.recipe import masking
from finetune.recipe import plan as plans
from finetune.run import Best, Run
from finetune.training import defaults, saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.catalogue import Catalogue
    from finetune.data.loading import Data
    from finetune.data.scan import Progress
    from finetune.data.splits import Method
    from finetune.plugins import Origin
    from finetune.recipe.models import Recipe
    from finetune.recipe.plan import Plan
    from finetune.training.prepare import Prepared


WITHOUT_EFFECT_ON_WEIGHTS = ("name", "output", "callbacks", "runner")
FINDINGS = 20  # shown on the screen


def new_run(prepared: Prepared, folder: Path, *, say: Callable[[str], None], resumed: bool, steps: int) -> Run:
    """Return the run object of a folder; what plugins say goes to the screen and to ``log.txt``."""
    data = prepared.data
    return Run(
        folder=folder,
        recipe=masking.mask_secrets(prepared.plan.recipe),
        recipe_text=environment.masked(plans.dump_plan(prepared.plan)),
        classes=data.classes,
        stages=prepared.network.names,
        device=prepared.device.name,
        steps_per_epoch=steps,
        images={part: len(getattr(data, part)) for part in ("train", "valid", "test") if getattr(data, part)},
        class_counts={name: count for name, count in data.report["counts"]["train"].items() if count},
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
    """Show what was noticed about the data, the first lines of it; ``data.json`` has all.

    Of the notes, only those of the dataset itself, such as how folders were read.
    """
    for found in [each for each in findings if (each["severity"], each["kind"]) == ("note", "dataset")][:FINDINGS]:
        say(f"note: {found['split']}: {found['subject']}: {found['text']}")
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
    about["forms"] = forms.record(device.forms)
    atomic.write_json(run.folder / "environment.json", about)
    write_data(prepared, run.folder)
    atomic.write_json(run.folder / "weights.json", prepared.weights)


def write_data(prepared: Prepared, folder: Path) -> None:
    """Write ``data.json`` and ``split.csv``; images that the run trained on before stay in the latter."""
    before = splitfile.read(folder)
    rows = splitfile.rows_of(prepared.data)
    splitfile.write(folder, splitfile.changed_rows(before.rows, rows) if before else rows)
    atomic.write_json(folder / "data.json", prepared.data.report)


def write_changed(prepared: Prepared, folder: Path) -> None:
    """Write recipe and data of a run that resumes with changed ones, or trains on after it was finished.

    The checkpoint of this state is written before, so that a run that is killed at any moment resumes with either.
    """
    write_recipe(prepared, folder)
    write_data(prepared, folder)
    with atomic.disk_errors(folder / "result.json"):
        (folder / "result.json").unlink(missing_ok=True)


def write_recipe(prepared: Prepared, folder: Path) -> None:
    """Write the complete recipe, by which the run is resumed."""
    masking.write_recipe(folder / "recipe.yaml", plans.dump_plan(prepared.plan))


def write_history(run: Run) -> None:
    """Write ``metrics.jsonl``, one line an epoch."""
    lines = [json.dumps(line, allow_nan=False) + "\n" for line in run.history]
    atomic.write_text(run.folder / "metrics.jsonl", "".join(lines))


def has_trained(folder: Path) -> bool:
    """Tell whether ``metrics.jsonl`` of a run has an epoch in which it trained, not only that of the fitted head."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return any(json.loads(line)["epoch"] for line in lines)
    except (OSError, ValueError, KeyError, TypeError):
        return False


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
        "fingerprint": {part: data.report["fingerprint"].get(part) for part in ("train", "valid")},
        "start": saving.record(prepared),
        "exactness": {
            "trunk": trunk_engine(prepared),
            "instruction set": prepared.device.isa,
            "matmul form": list(prepared.products or ()),
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
    said = masking.mask_secrets(plan.recipe).model_dump(mode="json")
    del said["train"]["on_nonfinite"]  # nothing, as long as all is finite
    kept = {key: value for key, value in said.items() if key not in WITHOUT_EFFECT_ON_WEIGHTS}
    return kept | {"runner": {"amp": said["runner"]["amp"]}}


def callbacks(plan: Plan) -> list[Any]:
    """Return the callbacks of the resolved recipe without its secrets."""
    found: list[Any] = masking.mask_secrets(plan.recipe).model_dump(mode="json")["callbacks"]
    return found


def finished(folder: Path, plan: Plan) -> Run | None:
    """Return a run folder's run if it is finished; ``UsageError`` if the folder is not one."""
    if not (folder / "recipe.yaml").exists():
        raise UsageError(f"no run in {folder}: it has no recipe.yaml; name a folder that `finetune run` made")
    if not (folder / "result.json").exists():
        return None
    try:
        return None if is_being_extended(folder) else read_finished(folder, plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the records in {folder} are damaged ({error}); remove result.json to resume") from error


def is_being_extended(folder: Path) -> bool:
    """Tell whether a finished run was killed when it had just begun to train on: its recipe asks for more by then."""
    from finetune.recipe.document import read_recipe

    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    trained = None if result.get("stopped_early") else result["epochs"]  # of earlier versions
    planned = result.get("planned_epochs", trained)
    return planned is not None and str(read_recipe(folder / "recipe.yaml").values["train"]["epochs"]) != str(planned)


def read_finished(folder: Path, plan: Plan) -> Run:
    """Return the run of a finished folder from its records."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    about = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    best = result["best"]
    return Run(
        folder=folder,
        recipe=masking.mask_secrets(plan.recipe),
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


def split_method(resume: Path | None) -> Method:
    """Return how the run in a folder split its images, for it to keep its split."""
    if resume is None:
        return "hash"
    try:
        about = json.loads((resume / "data.json").read_text(encoding="utf-8"))
        return "stratified" if about["split"]["method"] == "stratified" else "hash"
    except (OSError, ValueError, KeyError, TypeError):  # runs of earlier versions have no split.csv
        return "hash" if (resume / splitfile.NAME).exists() else "stratified"


def load_data(plan: Plan, catalogue: Catalogue, workers: int, progress: Progress, *, method: Method = "hash") -> Data:
    """Return the data of a plan, scanned, split and with one class map.

    A plan whose ``validate.folds`` is open must be one for which only the number of images decides that.
    """
    chosen, recipe = plan.dataset, plan.recipe
    with attribute_errors(catalogue.origin(chosen.component), f"build of dataset '{chosen.component.name}'"):
        whose = f"{origin}: " if (origin := catalogue.origin(chosen.component)).foreign else ""
        return datas.load(
            chosen.component,
            chosen.options,
            recipe.dataset,
            recipe.seed,
            workers,
            progress,
            whose=whose,
            method=method,
            folds=partial(defaults.choose_folds, recipe),
            color=recipe.image.color,
        )


def check_mixing(recipe: Recipe, images: int, processes: int) -> None:
    """Raise ``UsageError`` where mixup or cutmix would never find a second image to blend with.

    A batch size that is yet to be chosen counts as large enough.
    """
    used = [name for name in ("mixup", "cutmix") if getattr(recipe.train, name)]
    size = recipe.train.batch_size
    if used and min(images, images if size == "auto" else size // processes) < 2:
        each = " of each device" * (processes > 1)
        what = f"it blends pairs of images, and a batch{each} has one"
        raise UsageError(f"train.{used[0]} has no effect: {what}; raise train.batch_size or set train.{used[0]}=0")
