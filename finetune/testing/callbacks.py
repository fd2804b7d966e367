"""``check_callback``: checks the contract of callbacks."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.components import Callback
from finetune.errors import FinetuneError, PluginError
from finetune.plugins import HOOKS, Plugins
from finetune.testing import dry_run
from finetune.testing.contract import COMMON, PROCESS, Inspection, StopCheck, call_build, inspect_component

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan

RULES = {
    **COMMON,
    "build": "`build(options)` returns an object, a new one each time",
    "hooks": "its methods with `@hookimpl` are events, of which it has at least one",
    "events": "it does not fail at any event of a run that finishes, is interrupted, or is resumed",
    "run": "it changes only `state` of `run`, and otherwise calls methods such as `run.stop`",
    "state": "the values that it stores in `run.state` are JSON",
    "resume": "a run that is interrupted and resumed ends like an uninterrupted one",
    **PROCESS,
}
EVENTS = HOOKS[HOOKS.index("finetune_run_start") :]
HALT = 3  # step, in the second epoch, at which a run is interrupted


def check_callback(
    callback: Callback | str, options: Mapping[str, Any] | None = None, *, skip: Collection[str] = ()
) -> None:
    """Raise ``ContractError`` with every rule of callbacks that one breaks.

    ``callback`` is a component, or the name of an installed one; ``options`` are its options as in a recipe. ``skip``
    lists rules to skip. The check makes tiny runs on the CPU in this process, which takes seconds.
    """
    __tracebackhide__ = True
    from finetune.testing.networks import prepare_mindspore

    inspection = inspect_component(Callback, callback, options, RULES, skip)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, prepare_mindspore(), inspection.going_on():
        check_build(inspection)
        plan, catalogue = dry_run.plan_run(inspection.component, inspection.options, Path(scratch) / "runs")
        finished = run_to_end(inspection, plan, catalogue)
        if inspection.wants("resume"):
            interrupt_and_resume(inspection, plan, catalogue, finished)
    inspection.report()


def check_build(inspection: Inspection[Callback]) -> None:
    """Build twice, and check the events that the result handles."""
    made, again = call_build(inspection), call_build(inspection)
    if not any(name.startswith("finetune_") for name in dir(made)):
        text = f"build returned {made!r:.80}, which has no event hook; add one, such as finetune_epoch_end"
        inspection.breaks("hooks", text)
        raise StopCheck
    if made is again:
        text = "build returned the same object twice, so runs would share it; create a new one each time"
        inspection.breaks("build", text)
    try:
        Plugins().register(made, inspection.origin)
    except PluginError as error:
        inspection.breaks("hooks", str(error).removeprefix(f"{inspection.origin}: "))
        raise StopCheck from None
    if strange := [name for name in dir(made) if name in HOOKS and name not in EVENTS]:
        text = f"'{strange[0]}' is not an event, so no run calls it; implement it in the plugin's module"
        inspection.breaks("hooks", text)


def run_to_end(inspection: Inspection[Callback], plan: Plan, catalogue: Catalogue) -> Mapping[str, Any]:
    """Run from start to end, and return the result."""
    watcher, said = dry_run.Watcher(inspection), list[str]()
    found: Mapping[str, Any] = {}
    with inspection.rule("events", "the run", "fix it", vital=True, draws=True):
        try:
            found = dry_run.run_watched(plan, catalogue, watcher, said)
        except FinetuneError as error:
            record_failure(inspection, error)
    try:
        json.dumps(found["state"], allow_nan=False)
    except (TypeError, ValueError) as error:
        inspection.breaks("state", f"run.state cannot be saved: {error}; keep numbers, text, lists and mappings")
    return found


def record_failure(inspection: Inspection[Callback], error: FinetuneError) -> None:
    """Record why a run failed under the rule that it breaks, and end the check."""
    text = str(error).replace(f"{inspection.origin} ", "it ", 1)
    if "cannot be saved as JSON" in text:
        inspection.breaks("state", text)
    else:
        inspection.breaks("events", f"{text}; fix it, and read only the arguments of the event")
    raise StopCheck


def interrupt_and_resume(
    inspection: Inspection[Callback], plan: Plan, catalogue: Catalogue, finished: Mapping[str, Any]
) -> None:
    """Interrupt a run in its second epoch, and resume it with a new callback."""
    watcher, said = dry_run.Watcher(inspection, halt=HALT), list[str]()
    if finished["epochs"][-1] < 2:
        return  # the callback ends it earlier
    with inspection.rule("events", "in a run that is interrupted, it", "fix it", draws=True):
        try:
            dry_run.run_watched(plan, catalogue, watcher, said)
        except PluginError as error:
            if "Halt" not in str(error):
                record_failure(inspection, error)
    for line in said:
        if found := re.search(r"failed in (finetune_run_\w+: .*)", line):
            text = f"in an interrupted run it failed in {found[1]}; check run.result and run.best for None"
            inspection.breaks("events", text)
    if not inspection.wants("events"):
        raise StopCheck
    newest = sorted(plan.recipe.output.iterdir())[-1]
    watcher = dry_run.Watcher(inspection)
    with inspection.rule(
        "resume", "the resumed run", "accept any state that an earlier run may have saved", draws=True
    ):
        resumed = dry_run.run_watched(plan, catalogue, watcher, said, resume=newest)
        if resumed["epochs"] != finished["epochs"]:
            text = (
                f"a run ends after epoch {finished['epochs'][-1]}, but after epoch {resumed['epochs'][-1]} if resumed"
            )
            inspection.breaks("resume", f"{text} in between; keep your state in run.state, not in attributes")
        elif resumed["state"].keys() != finished["state"].keys():
            text = f"run.state has {sorted(resumed['state'])} after a resume, but {sorted(finished['state'])} without"
            inspection.breaks("resume", f"{text}; set your keys in run.state from the first event on")
