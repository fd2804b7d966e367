"""Records of a run: the files of its folder, except checkpoints and model."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.data import loading as datas
from finetune.data import splitfile
from finetune.data.audit import format_finding
from finetune.errors import PluginError, ResourceError, UsageError
from finetune.files import atomic
from finetune.machine import environment, forms
from finetune.machine.environment import count_usable_cores
from finetune.network import engines
from finetune.network.network import Network, assign_values, read_values
from finetune.recipe import masking
from finetune.recipe import plan as plans
from finetune.run import Best, Run
from finetune.training import defaults, saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.data.loading import Data
    from finetune.data.scan import Progress
    from finetune.data.splits import Method
    from finetune.plugins import Origin
    from finetune.recipe.models import Recipe
    from finetune.recipe.plan import Plan
    from finetune.training.prepare import Prepared


WITHOUT_EFFECT_ON_WEIGHTS = ("name", "output", "callbacks", "runner", "audit")
FINDINGS = 20  # the most findings to print


def create_run(prepared: Prepared, folder: Path, *, say: Callable[[str], None], resumed: bool, steps: int) -> Run:
    """Return the run object of a folder; messages of plugins are printed and written to ``log.txt``."""
    data = prepared.data
    return Run(
        folder=folder,
        recipe=masking.mask_recipe(prepared.plan.recipe),
        recipe_text=environment.mask_secrets(plans.dump_plan(prepared.plan)),
        classes=data.classes,
        stages=prepared.network.names,
        device=prepared.device.name,
        steps_per_epoch=steps,
        images={part: len(getattr(data, part)) for part in ("train", "valid", "test") if getattr(data, part)},
        class_counts={name: count for name, count in data.report["counts"]["train"].items() if count},
        weights=prepared.weights,
        resumed=resumed,
        _say=log_messages(say, folder / "log.txt") if prepared.world.is_main else say,
    )


def log_messages(say: Callable[[str], None], path: Path) -> Callable[[str], None]:
    """Return a ``say`` that also appends to a file; errors of the file are ignored."""

    def both(message: str) -> None:
        say(message)
        log_line(path.parent, message)

    return both


def log_line(folder: Path, message: str) -> None:
    """Append a line to a run's ``log.txt``; errors of the file are ignored."""
    with suppress(OSError), (folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")


def say_findings(findings: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> None:
    """Print the first findings about the data; ``data.json`` has all of them.

    Notes are printed only if they come from the dataset itself, such as how folders were read.
    """
    for found in [each for each in findings if (each["severity"], each["kind"]) == ("note", "dataset")][:FINDINGS]:
        say(f"note: {found['split']}: {found['subject']}: {found['text']}")
    warnings = [found for found in findings if found["severity"] == "warning"]
    for found in warnings[:FINDINGS]:
        say(f"warning: {format_finding(found)}")
    if len(warnings) > FINDINGS:
        say(f"warning: {len(warnings) - FINDINGS} more warnings about the data in data.json")


def write_start(prepared: Prepared, run: Run) -> None:
    """Write all records that are known before the first epoch."""
    write_recipe(prepared, run.folder)
    device = prepared.device
    about = environment.describe_environment() | {"device": device.name, "device_why": device.why, "isa": device.isa}
    about["forms"] = forms.record_forms(device.forms)
    atomic.write_json(run.folder / "environment.json", about)
    write_data(prepared, run.folder)
    atomic.write_json(run.folder / "weights.json", prepared.weights)


def write_data(prepared: Prepared, folder: Path) -> None:
    """Write ``data.json`` and ``split.csv``; images that the run trained on earlier stay in ``split.csv``."""
    before = splitfile.read_split(folder)
    rows = splitfile.list_rows(prepared.data)
    splitfile.write_split(folder, splitfile.merge_rows(before.rows, rows) if before else rows)
    atomic.write_json(folder / "data.json", prepared.data.report)


def write_changed(prepared: Prepared, folder: Path) -> None:
    """Write recipe and data of a run that resumes with changes, or that is extended after it finished.

    The checkpoint of this state must be written first, so that a run killed at any moment can resume.
    """
    write_recipe(prepared, folder)
    write_data(prepared, folder)
    with atomic.translate_disk_errors(folder / "result.json"):
        (folder / "result.json").unlink(missing_ok=True)


def write_recipe(prepared: Prepared, folder: Path) -> None:
    """Write the complete recipe, which is used to resume the run."""
    masking.write_recipe(folder / "recipe.yaml", plans.dump_plan(prepared.plan))


def write_history(run: Run) -> None:
    """Write ``metrics.jsonl``, one line per epoch."""
    lines = [json.dumps(line, allow_nan=False) + "\n" for line in run.history]
    atomic.write_text(run.folder / "metrics.jsonl", "".join(lines))


def has_trained(folder: Path) -> bool:
    """Return whether ``metrics.jsonl`` of a run has an epoch of training, not only that of the fitted head."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return any(json.loads(line)["epoch"] for line in lines)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def keep_history(prepared: Prepared, run: Run) -> None:
    """Write ``metrics.jsonl``; if the disk refuses, it is written after a later epoch or at the end."""
    try:
        if not (run.folder / "recipe.yaml").exists():
            run.say(f"warning: {run.folder} was deleted; recreating it")
            write_start(prepared, run)
        write_history(run)
    except ResourceError as error:
        run.say(f"warning: {error}; training continues and will retry")


def write_result(run: Run) -> None:
    """Write ``result.json``, which marks the run as finished."""
    atomic.write_json(run.folder / "result.json", run.result)


def describe_identity(prepared: Prepared) -> dict[str, Any]:
    """Return everything that a checkpoint and the run that resumes it must have in common."""
    data = prepared.data
    return {
        "recipe": extract_mathematics(prepared.plan),
        "classes": list(data.classes),
        "fingerprint": {part: data.report["fingerprint"].get(part) for part in ("train", "valid")},
        "start": saving.record_start(prepared),
        "exactness": {
            "trunk": describe_trunk_engine(prepared),
            "instruction set": prepared.device.isa,
            "matmul form": list(prepared.matmul_form or ()),
            "cores": count_usable_cores(),
            "devices": prepared.world.size,
            **{
                name: version for name, version in environment.list_packages().items() if name in ("mindspore", "numpy")
            },
        },
    }


def copy_plugin_states(states: Mapping[str, Any], origins: Iterable[Origin], *, strict: bool) -> dict[str, Any]:
    """Return a copy of the states of plugins; a state that is not JSON is left out or, if ``strict``, an error.

    ``origins`` are the run's plugins; each stores its state under its name.
    """
    kept = {}
    for name, state in states.items():
        try:
            kept[str(name)] = json.loads(json.dumps(state, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            if strict:
                remedy = "store only numbers, text, lists and mappings in it"
                plugin = next((f"{origin}: " for origin in origins if origin.name == name and origin.foreign), "")
                raise PluginError(f"{plugin}run.state['{name}'] cannot be saved as JSON: {error}; {remedy}") from error
    return kept


def describe_trunk_engine(prepared: Prepared) -> str:
    """Describe the engine of frozen stages in a few words."""
    about = engines.describe_expected(prepared.plan.recipe.inference, prepared.device.name)
    return f"{about['name']} {about['version']} in {about['precision']}"


def extract_mathematics(plan: Plan) -> dict[str, Any]:
    """Return the resolved recipe without secrets and without keys that cannot affect the weights."""
    values = masking.mask_recipe(plan.recipe).model_dump(mode="json")
    del values["train"]["on_nonfinite"]  # no effect while everything is finite
    kept = {key: value for key, value in values.items() if key not in WITHOUT_EFFECT_ON_WEIGHTS}
    return kept | {"runner": {"amp": values["runner"]["amp"]}}


def list_callbacks(plan: Plan) -> list[Any]:
    """Return the callbacks of the resolved recipe without secrets."""
    found: list[Any] = masking.mask_recipe(plan.recipe).model_dump(mode="json")["callbacks"]
    return found


def read_if_finished(folder: Path, plan: Plan) -> Run | None:
    """Return the run in a folder if it is finished, else None; raises ``UsageError`` if it is not a run folder."""
    if not (folder / "recipe.yaml").exists():
        raise UsageError(f"no run in {folder}: recipe.yaml is missing; give a folder that `finetune run` created")
    if not (folder / "result.json").exists():
        return None
    try:
        return None if is_being_extended(folder) else read_finished(folder, plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the records in {folder} are damaged ({error}); remove result.json to resume") from error


def is_being_extended(folder: Path) -> bool:
    """Return whether a finished run was killed right after its extension began: its recipe then has more epochs."""
    from finetune.recipe.document import read_recipe

    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    trained = None if result.get("stopped_early") else result["epochs"]  # for earlier versions
    planned = result.get("planned_epochs", trained)
    return planned is not None and str(read_recipe(folder / "recipe.yaml").values["train"]["epochs"]) != str(planned)


def read_finished(folder: Path, plan: Plan) -> Run:
    """Read a finished run from its records."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    about = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    best = result["best"]
    return Run(
        folder=folder,
        recipe=masking.mask_recipe(plan.recipe),
        recipe_text=environment.mask_secrets((folder / "recipe.yaml").read_text(encoding="utf-8")),
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


class SwappedWeights:
    """Replaces the weights of a network inside a block; None leaves them unchanged."""

    def __init__(self, network: Network, weights: Mapping[str, NDArray[Any]] | None) -> None:
        self.network, self.weights = network, weights

    def __enter__(self) -> None:
        if self.weights is not None:
            self.before = {name: a.copy() for name, a in read_values(self.network.get_parameters()).items()}
            assign_values(self.network.get_parameters(), self.weights)

    def __exit__(self, *exception: object) -> None:
        if self.weights is not None:
            assign_values(self.network.get_parameters(), self.before)


def read_split_method(resume: Path | None) -> Method:
    """Return how the run in a folder split its images, so that it keeps its split."""
    if resume is None:
        return "hash"
    try:
        about = json.loads((resume / "data.json").read_text(encoding="utf-8"))
        return "stratified" if about["split"]["method"] == "stratified" else "hash"
    except (OSError, ValueError, KeyError, TypeError):  # runs of earlier versions have no split.csv
        return "hash" if (resume / splitfile.NAME).exists() else "stratified"


def load_data(plan: Plan, workers: int, progress: Progress, *, method: Method = "hash") -> Data:
    """Load the data of a plan: scanned, split, and with one class map.

    If ``validate.folds`` is still ``auto``, it must depend only on the number of images.
    """
    recipe = plan.recipe
    with plan.dataset.attribute("build"):
        return datas.load(
            plan.dataset,
            recipe.dataset,
            recipe.seed,
            workers,
            progress,
            method=method,
            folds=partial(defaults.choose_folds, recipe),
            color=recipe.image.color,
        )


def check_mixing(recipe: Recipe, images: int, processes: int) -> None:
    """Raise ``UsageError`` if mixup or cutmix would never find a second image to blend with.

    An automatic batch size counts as large enough.
    """
    used = [name for name in ("mixup", "cutmix") if getattr(recipe.train, name)]
    size = recipe.train.batch_size
    if used and min(images, images if size == "auto" else size // processes) < 2:
        each = " of each device" * (processes > 1)
        what = f"it blends pairs of images, but a batch{each} has only one"
        raise UsageError(f"train.{used[0]} has no effect: {what}; raise train.batch_size or set train.{used[0]}=0")
