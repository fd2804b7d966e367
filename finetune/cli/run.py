"""``run`` and ``check``: train, or check everything before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import completers, source
from finetune.cli.app import Answer, command
from finetune.cli.output import render_pairs
from finetune.cli.parameters import Words
from finetune.cli.sweep import resume_sweep, split_axes, start_sweep
from finetune.errors import UsageError
from finetune.files.atomic import expand_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan
    from finetune.sweep.runs import Sweep

Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Resume the run in this folder; auto: the recipe's newest run.",
        autocompletion=completers.offer_runs,
    ),
]
AllowChanged = Annotated[
    bool, typer.Option("--allow-changed", help="Resume even if the recipe or the images changed; lists the changes.")
]
Extend = Annotated[
    int | None,
    typer.Option(metavar="EPOCHS", min=1, help="Train a finished run, named by --resume, for EPOCHS more epochs."),
]
Output = Annotated[Path | None, typer.Option(metavar="DIR", help="Create the run folder in this folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check everything that the run needs, as `check` does.")]
FINDINGS = 20  # in the table; --json has all


@command(
    "RECIPE [KEY=VALUE]...",
    "finetune run quickstart",
    "finetune run mine.yaml train.epochs=20 optimizer.lr=1e-3 ~augment",
    "finetune run mine.yaml optimizer.lr=[1e-4,1e-3,1e-2]",
    "finetune run --resume runs/mine-001",
)
def run(
    words: Words = None,
    resume: Resume = None,
    allow_changed: AllowChanged = False,
    extend: Extend = None,
    output: Output = None,
    dry_run: DryRun = False,
) -> Answer:
    """Fine-tune a network as described in a recipe.

    RECIPE is a file, - for standard input, or a name that `finetune ls` lists;
    with --resume it can be left out. KEY=VALUE overrides a key of the recipe for
    this run, and ~KEY removes one. A list where the recipe takes one value, as in
    optimizer.lr=[1e-3,3e-3], makes a run for each value, and one table of all.
    """
    asked, catalogue = source.parse_words(words), source.load_catalogue()
    if extend is not None and resume is None:
        raise UsageError("--extend needs a finished run; name it with --resume")
    if sweep := find_sweep(resume, asked):
        if extend is not None:
            raise UsageError(f"--extend continues a single run; name one of the runs in {resume}")
        return resume_sweep(sweep, catalogue, allow_changed=allow_changed)
    found, asked = split_axes(asked, catalogue, output)
    if found and resume is not None:
        raise UsageError(f"--resume continues a single run; give {found[0].key} one value, or leave out --resume")
    if found:
        return start_sweep(found, asked, catalogue, output, dry_run=dry_run, check=check_plan)
    folder = source.find_run_to_resume(resume, asked, catalogue, output)
    plan = asked.plan(catalogue, output=output, folder=folder)
    if extend is not None and folder is None:
        raise UsageError("--extend needs a finished run, but this recipe has no run yet; leave out --extend")
    how = Resumption(folder=folder, allow_changed=allow_changed, extend=extend)
    if dry_run:
        return check_plan(plan, catalogue, how)
    from finetune.display.progress import Progress
    from finetune.display.summary import summarise_result
    from finetune.distributed.launch import plan_launch
    from finetune.training import preflight

    if not (folder and (folder / "result.json").exists()):
        preflight.check_machine(plan, folder)
    from finetune.training import engine

    progress = Progress(report=False)
    if resume == source.AUTO:
        progress.say(f"resuming {folder}" if folder else "no run to resume yet: starting a new one")
    started = plan_launch(plan.recipe)
    if started is not None and (to_train := plan_to_train(plan, catalogue, how)) is not None:
        from finetune.launch import launcher

        launched = launcher.run_processes(
            started, to_train, resume=folder, allow_changed=allow_changed, extend=extend, progress=progress
        )
        result = launched["result"]
        return Answer(
            data=result, view=lambda: render_pairs(summarise_result(result, launched["folder"])) if result else ""
        )
    watchers = [progress]
    done = engine.fine_tune(
        plan,
        catalogue,
        resume=folder,
        allow_changed=allow_changed,
        extend=extend,
        watchers=watchers,
        say=progress.say,
    )
    result = done.result or {}
    return Answer(data=result, view=lambda: render_pairs(summarise_result(result, done.folder)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """The run to resume, and how to resume it."""

    folder: Path | None
    allow_changed: bool
    extend: int | None


def plan_to_train(plan: Plan, catalogue: Catalogue, how: Resumption) -> Plan | None:
    """Return the plan to train, or None if the run is already finished; raises an error if it cannot be resumed."""
    from finetune.training import finished

    if how.folder is None:
        return plan
    settled, done, _ = finished.decide_resume(
        how.folder, plan, catalogue, extend=how.extend, allow_changed=how.allow_changed, say=lambda message: None
    )
    return settled if done is None else None


def find_sweep(resume: str | None, asked: source.RecipeArguments) -> Sweep | None:
    """Return the sweep to resume, or None if ``resume`` does not name a sweep."""
    from finetune.sweep import runs

    folder = None if resume is None or resume == source.AUTO else expand_home(resume)
    if folder is None or not runs.is_sweep(folder):
        return None
    if asked.recipe is not None or asked.changes:
        raise UsageError(
            "a sweep resumes with its own recipe; leave out recipe and overrides, or start a new sweep without --resume"
        )
    return runs.open_sweep(folder)


@command("RECIPE [KEY=VALUE]...", "finetune check mine.yaml", "finetune check mine.yaml train.batch_size=64")
def check(words: Words = None) -> Answer:
    """Check a recipe, its data, weights and disk without training.

    Plugins and memory are checked too. RECIPE is a file, - for standard input, or a
    name that `finetune ls` lists; KEY=VALUE overrides a key of it.
    """
    asked, catalogue = source.parse_words(words), source.load_catalogue()
    return check_plan(asked.plan(catalogue), catalogue)


def check_plan(plan: Plan, catalogue: Catalogue, how: Resumption | None = None) -> Answer:
    """Check a plan, or the resumption of a run if ``how`` names one, and return the report."""
    from finetune.display.progress import Progress
    from finetune.distributed.launch import plan_launch
    from finetune.training import preflight

    folder = how.folder if how else None
    if not (folder and (folder / "result.json").exists()):
        preflight.check_machine(plan, folder)
    from finetune.training import check

    say, planned = Progress().say, plan_launch(plan.recipe)
    if how and folder:
        report = check.check_resumed(
            plan, catalogue, folder, extend=how.extend, allow_changed=how.allow_changed, say=say
        )
    else:
        report = check.check(plan, catalogue, say=say)
    if planned is not None:
        report["launch"] = planned.describe(Path("RUN/logs/001"), Path("TASK"))
    return Answer(data=report, view=lambda: render_pairs(list_rows(report)))


def describe_cached(features: dict[str, Any]) -> str:
    """Describe which features of a phase are cached."""
    sizes = features["mb"].items()
    parts = ", ".join(f"{part} {mb:,.1f} MB{'' if part in features['kept'] else ' (not cached)'}" for part, mb in sizes)
    if features["disk_lacks_mb"]:
        return f"{parts}; needs {features['disk_lacks_mb']:,.0f} MB more disk space, so none are cached"
    return parts if features["writable"] else f"{parts}; FINETUNE_HOME is not writable, so none are cached"


def list_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the report of a check as names and values."""
    from finetune.data.audit import format_finding
    from finetune.display.summary import describe_classes, describe_images, describe_weights

    data = report["data"]
    yield "recipe", f"{report['recipe']}: ready to run"
    device = report["device"]
    yield "device", device["why"] or device["name"]
    yield "oneDNN", f"{device['isa']}; mixed precision {device['amp']}"
    trunk = report["trunk"]
    yield "frozen stages", f"computed by {trunk['name']} in {trunk['precision'].replace('f32', 'fp32')}"
    yield "images", describe_images(data["images"], len(data["classes"]))
    yield "classes", describe_classes({name: count for name, count in data["counts"]["train"].items() if count})
    findings = sorted(data["findings"], key=lambda finding: ("warning", "note").index(finding["severity"]))
    for finding in findings[:FINDINGS]:
        yield finding["severity"], format_finding(finding)
    if len(findings) > FINDINGS:
        yield "", f"{len(findings) - FINDINGS} more; --json lists them"
    yield "weights", describe_weights(report["weights"])
    trained = [phase for phase in report["phases"] if phase["epochs"] != [0, 0]]
    if len(trained) < len(report["phases"]):
        parameters = report["phases"][0]["parameters"]
        yield "phase 0", f"the head is fitted to its optimum, {parameters:,} parameters"
    for number, phase in enumerate(trained, 1):
        first, last = phase["epochs"]
        trainable = ", ".join(phase["trainable"])
        yield f"phase {number}", f"epochs {first} to {last}: {trainable} train, {phase['parameters']:,} parameters"
    for each in report["features"]:
        yield f"features {each['phase']}", f"after {each['after']}: {describe_cached(each)}"
    images = report["batch_size"]
    if trained:
        yield "steps", f"{report['steps_per_epoch']:,} of {images} images in an epoch, {report['steps']:,} in all"
    if launch := report.get("launch"):
        devices = ", ".join(f"process {rank} on {device}" for rank, device in launch["devices"].items())
        machines = f"{launch['machines']} machine{'s' * (launch['machines'] > 1)}"
        yield "processes", f"{launch['processes']} on {machines}; on this one, number {launch['machine']}: {devices}"
        yield "started by", launch["command"]
        yield "with", " ".join(f"{name}={value}" for name, value in launch["environment"].items())
    for name in ("memory", "disk"):
        sizes = ((key.removesuffix("_mb").replace("_", " "), mb) for key, mb in report[name].items())
        yield name, ", ".join(f"{what} {mb:,.0f} MB" for what, mb in sizes)
