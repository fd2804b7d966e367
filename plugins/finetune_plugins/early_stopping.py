"""Callback ``early_stopping``: ends a run that no longer improves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeFloat, PositiveInt, field_validator

from finetune import Callback, Finding, Options, Run, RunFacts, did_you_mean, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "early_stopping"
METRICS = ("accuracy", "top5", "macro_f1", "loss")


class EarlyStopping(Options):
    """Which metric must improve, and how long the run waits for it."""

    metric: str | None = None
    """`accuracy`, `top5`, `macro_f1` or `loss` of the validation images; by default `evaluate.metric`."""
    patience: PositiveInt = 5
    """Number of evaluations without improvement after which the run ends."""
    min_delta: NonNegativeFloat = 0.0
    """An improvement counts only if it is larger than this."""

    @field_validator("metric")
    @classmethod
    def known(cls, metric: str | None) -> str | None:
        """Accept a metric as ``accuracy`` or as ``val_accuracy``."""
        name = metric and metric.removeprefix("val_")
        if name is not None and name not in METRICS:
            raise ValueError(f"no metric named '{metric}'{did_you_mean(name, METRICS)}")
        return name


@hookimpl
def finetune_callbacks() -> Iterable[Callback]:
    """Return the callback ``early_stopping``."""
    yield Callback(name=NAME, options=EarlyStopping, build=Watcher, check=check)


def check(options: EarlyStopping, facts: RunFacts) -> Iterator[Finding]:
    """Yield options with which the callback would end every run, or no run."""
    metric = options.metric or facts.recipe.evaluate.metric
    if metric in facts.constant:
        text = f"{metric} is always {facts.constant[metric]:g} with {facts.classes} classes, so it never improves"
        yield Finding(severity="error", subject="metric", text=f"{text}; write accuracy, macro_f1 or loss")
    if metric not in ("loss", "auto") and options.min_delta >= 1:
        text = f"{metric} is in 0..1, so no evaluation counts as an improvement; write a share such as 0.01"
        yield Finding(severity="error", subject="min_delta", text=text)
    count = facts.evaluations
    if options.patience >= count - 1:
        text = f"the run has {count} evaluation{'s' * (count > 1)}, so it cannot end early"
        remedy = "lower patience, raise train.epochs, or remove the callback"
        yield Finding(severity="note", subject="patience", text=f"{text}; {remedy}")


class Watcher:
    """Counts the evaluations since the best one; the count is in ``run.state``, so that a resumed run continues it."""

    def __init__(self, options: EarlyStopping) -> None:
        self.options = options

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Restart the count in a run that this callback stopped and that is now extended."""
        state = run.state.get(NAME, {})
        if state.pop("stopped", False) and run.stop_reason is None:
            state["waited"] = 0

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        """Compare an evaluation with the best one, and stop the run if patience is exhausted."""
        from finetune import is_better  # needs NumPy, which commands do not import at start

        metric = self.options.metric or run.recipe.evaluate.metric
        value = metrics.get(f"val_{metric}")
        if value is None:
            return
        state = run.state.setdefault(NAME, {"best": None, "epoch": 0, "waited": 0})
        if is_better(metric, value, state["best"], by=self.options.min_delta):
            state.update(best=value, epoch=epoch, waited=0)
            return
        state["waited"] += 1
        if state["waited"] >= self.options.patience:
            state["stopped"] = True
            run.stop(describe_stop(metric, state))


def describe_stop(metric: str, state: dict[str, Any]) -> str:
    """Return the reason for the end of the run, with the best value and its epoch."""
    waited = f"{state['waited']} evaluation{'s' if state['waited'] != 1 else ''}"
    best = "" if state["best"] is None else f"; best {state['best']:.4g} in epoch {state['epoch']}"
    return f"val_{metric} did not improve for {waited}{best}"
