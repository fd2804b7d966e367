"""Callbacks that break one rule each: what ``check_callback`` says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Callback, Dataset, NoOptions, hookimpl
from finetune.testing import check_callback
from finetune.testing.callbacks import RULES
from tests.testing.bad_datasets import Loose
from tests.testing.broken import broken

if TYPE_CHECKING:
    from finetune import Run

pytestmark = pytest.mark.once


def mine(kind: Any, options: Any = NoOptions) -> Callback:
    """Return a callback of a class."""
    return Callback(name="mine", options=options, build=lambda options: kind())


class Quiet:
    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        pass


class Misspelt:
    @hookimpl
    def finetune_epoch_ends(self, run: Run) -> None:
        pass


class Undecorated:
    def finetune_epoch_end(self, run: Run) -> None:
        pass


class Asking:
    @hookimpl
    def finetune_epoch_end(self, run: Run, model: Any) -> None:
        pass


class Offering(Quiet):
    @hookimpl
    def finetune_datasets(self) -> Any:
        return []


class Failing:
    @hookimpl
    def finetune_epoch_end(self, run: Run, metrics: dict[str, float]) -> None:
        print(metrics["val_acc"])


class Leaving:
    @hookimpl
    def finetune_step_end(self) -> None:
        raise SystemExit(0)


class FinishedOnly:
    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        assert run.result is not None


class HearsErrors:
    @hookimpl
    def finetune_run_error(self, error: BaseException) -> None:
        raise OSError("no network")


class Steering:
    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        run.learning_rates["head"] = 1.0


class Rounding:
    @hookimpl
    def finetune_epoch_end(self, metrics: dict[str, float]) -> None:
        metrics["train_loss"] = round(metrics["train_loss"], 1)


class Keeping:
    @hookimpl
    def finetune_epoch_end(self, run: Run) -> None:
        run.state["mine"] = {1, 2}


class NotFinite:
    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        run.state["mine"] = float("nan")


class Forgetting:
    """Stops after two epochs that it counts in an attribute."""

    def __init__(self) -> None:
        self.epochs = 0

    @hookimpl
    def finetune_epoch_end(self, run: Run) -> None:
        self.epochs += 1
        if self.epochs == 2:
            run.stop("two are enough")


class Unprepared:
    """Expects to hear the beginning of a run."""

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        if not run.resumed:
            self.began = 1

    @hookimpl
    def finetune_epoch_end(self, run: Run) -> None:
        run.state["mine"] = self.began


class StateAtFirst:
    """Keeps something only where a run begins."""

    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        if run.resumed:
            run.state["resumed"] = 1


class Printing:
    @hookimpl
    def finetune_epoch_end(self, epoch: int) -> None:
        if epoch == 1:
            print("done")


class Seeding:
    @hookimpl
    def finetune_run_start(self) -> None:
        np.random.seed(0)


ONE = Quiet()
SEEDING = mine(Seeding)
BROKEN: list[tuple[str, Any, str, str]] = [
    ("no callback", Dataset(name="mine", build=print), "component", "finetune_callbacks returned Dataset("),
    (
        "loose options",
        mine(Quiet, Loose),
        "options",
        "an unknown key is accepted, so a misspelt key has no effect",
    ),
    (
        "fails",
        mine(lambda: 1 / 0),
        "build",
        "build raised ZeroDivisionError: division by zero; fix it; if users",
    ),
    (
        "one object for all",
        mine(lambda: ONE),
        "build",
        "build returned the same object twice, so runs would share it; create a new one each time",
    ),
    (
        "no hook",
        mine(dict),
        "hooks",
        "build returned {}, which has no event hook; add one, such as finetune_epoch_end",
    ),
    (
        "misspelt",
        mine(Misspelt),
        "hooks",
        "no hook named 'finetune_epoch_ends'; did you mean 'finetune_epoch_end'?",
    ),
    (
        "without @hookimpl",
        mine(Undecorated),
        "hooks",
        "'finetune_epoch_end' is missing @hookimpl; add the decorator",
    ),
    (
        "another argument",
        mine(Asking),
        "hooks",
        "'finetune_epoch_end' has the unknown argument 'model'; its arguments are run, epoch, metrics",
    ),
    (
        "no event",
        mine(Offering),
        "hooks",
        "'finetune_datasets' is not an event, so no run calls it; implement it in the plugin's module",
    ),
    (
        "fails at an event",
        mine(Failing),
        "events",
        "it failed in finetune_epoch_end: KeyError: 'val_acc'; fix it, and read only the arguments of the event",
    ),
    (
        "ends the process",
        mine(Leaving),
        "events",
        "it failed in finetune_step_end: SystemExit: 0; fix it, and read only the arguments of the event",
    ),
    (
        "runs that finish only",
        mine(FinishedOnly),
        "events",
        "in an interrupted run it failed in finetune_run_end: AssertionError: assert None is not None",
    ),
    (
        "fails when it hears of an error",
        mine(HearsErrors),
        "events",
        "in an interrupted run it failed in finetune_run_error: OSError: no network; check run.result",
    ),
    (
        "changes the run",
        mine(Steering),
        "run",
        "run.learning_rates was changed in finetune_epoch_start; treat it as read-only, and keep your own values in "
        "run.state",
    ),
    (
        "changes an argument",
        mine(Rounding),
        "run",
        "the argument metrics was changed in finetune_epoch_end; treat it as read-only, and keep your own values in "
        "run.state",
    ),
    (
        "a set",
        mine(Keeping),
        "state",
        "run.state['mine'] cannot be saved as JSON: Object of type set is not JSON serializable; store only",
    ),
    (
        "not a number",
        mine(NotFinite),
        "state",
        "run.state cannot be saved: Out of range float values are not JSON compliant",
    ),
    (
        "counts in an attribute",
        mine(Forgetting),
        "resume",
        "a run ends after epoch 2, but after epoch 3 if resumed in between; keep your state in run.state, not in "
        "attributes",
    ),
    (
        "not prepared to be resumed",
        mine(Unprepared),
        "resume",
        "failed in finetune_epoch_end: AttributeError: 'Unprepared' object has no attribute 'began'",
    ),
    (
        "another state",
        mine(StateAtFirst),
        "resume",
        "run.state has ['resumed'] after a resume, but [] without; set your keys in run.state from the first event",
    ),
    (
        "prints",
        mine(Printing),
        "process",
        "prints 'done\\n'; use run.say, findings or logging",
    ),
    ("seeds numpy", SEEDING, "process", "draws from or seeds the generator of numpy.random; use your"),
]


@pytest.mark.parametrize(("component", "rule", "text"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_a_broken_rule_says_what_to_do(component: Any, rule: str, text: str) -> None:
    deep = rule == "resume" or text.startswith("in an interrupted run") or component is SEEDING
    found = broken(check_callback, component, skip=() if deep else ("resume",))
    assert [each[0] for each in found] == [rule], found
    assert text in found[0][1]


def test_every_rule_is_broken_once() -> None:
    assert {rule for _, _, rule, _ in BROKEN} == RULES.keys()


def test_one_that_asks_for_everything_it_may_is_in_order() -> None:
    class Asking:
        @hookimpl
        def finetune_epoch_end(self, run: Run, epoch: int) -> None:
            count = run.state.get("mine", 0) + 1
            run.state["mine"] = count
            run.say(f"{len(run.augmented(2))} pictures, {len(run.predictions(2))} predictions")
            run.request_checkpoint(keep=1)
            if count == 2:
                run.stop("two are enough")

        @hookimpl(trylast=True)
        def finetune_run_end(self, run: Run) -> None:
            time.sleep(0)

    check_callback(mine(Asking))
