"""State of a run: the content of a checkpoint besides arrays, as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from finetune.run import Best

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The progress and history of a run.

    Attributes:
        epoch: The current epoch; 0 is the epoch that fits the head.
        step: Optimizer steps of all epochs so far.
        done: Optimizer steps of the current epoch so far.
        loss_sum: The sum of the losses of this epoch's images so far.
        images: The number of images in ``loss_sum``.
        updates: Updates of the phase's optimizer so far.
        seconds: Seconds of all complete epochs.
        best: The best epoch so far.
        history: The lines of ``metrics.jsonl``.
        plugins: The states of plugins, by name.
        stop_reason: Why the run stops early, if it does.
        frozen: A digest of each array that is frozen in this phase, by name.
        identity: Recipe, data, network and weights of the run.
        fitted: How the head was fitted; older checkpoints lack this.
        rollbacks: How often the run was rolled back; older checkpoints lack this.
        scaling: The state of the loss scale; older checkpoints lack this.
    """

    epoch: int
    step: int
    done: int
    loss_sum: float
    images: int
    updates: int
    seconds: float
    best: Best | None
    history: list[dict[str, Any]]
    plugins: dict[str, Any]
    stop_reason: str | None
    frozen: dict[str, str]
    identity: Mapping[str, Any] = field(default_factory=dict)
    fitted: dict[str, Any] | None = None
    rollbacks: int = 0
    scaling: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert the state to the JSON of a checkpoint."""
        best = None if self.best is None else {"epoch": self.best.epoch, "value": self.best.value}
        stored = {name: getattr(self, name) for name in _STORED}
        return {**stored, "best": best, **self.identity}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RunState:
        """Read the state of a checkpoint, including those of older versions."""
        own = {name: stored[name] for name in _STORED if name in stored}
        best = Best(**stored["best"]) if stored["best"] else None
        identity = {name: value for name, value in stored.items() if name not in _STORED}
        return cls(**{**own, "best": best, "identity": identity})


# In the order in which checkpoints store them.
_STORED = (
    *("epoch", "step", "done", "loss_sum", "images", "updates", "seconds", "best", "history", "fitted"),
    *("plugins", "stop_reason", "rollbacks", "scaling", "frozen"),
)
assert {*_STORED, "identity"} == {each.name for each in fields(RunState)}
