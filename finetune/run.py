"""Runs as plugins see them: state, history, and requests to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from finetune.recipe.models import Recipe

Lines = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best epoch so far and its value of ``evaluate.metric``."""

    epoch: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A validation image with its true class and its predicted class; ``path`` is its file or its name."""

    pixels: NDArray[np.uint8]
    label: str
    predicted: str
    probability: float
    path: str = ""


@dataclass(slots=True, kw_only=True, repr=False)
class Run:
    """One fine-tuning run: its recipe, its progress, and the requests that a plugin may make.

    ``epoch`` and ``step`` count from 1 and are 0 before the first; ``class_counts`` are the training images of each
    class; ``history`` has the lines of ``metrics.jsonl``; ``confusion[true, predicted]`` is from the last evaluation.
    ``state`` is for plugins: values under their own name (JSON only) are saved in each checkpoint and restored on
    resume.
    """

    folder: Path
    recipe: Recipe
    recipe_text: str
    classes: tuple[str, ...]
    stages: tuple[str, ...]
    device: str
    steps_per_epoch: int
    images: dict[str, int]
    class_counts: dict[str, int] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    resumed: bool = False
    epoch: int = 0
    step: int = 0
    phase: int = 0
    trainable: tuple[str, ...] = ()
    learning_rates: dict[str, float] = field(default_factory=dict)
    history: Lines = field(default_factory=list)
    best: Best | None = None
    confusion: NDArray[np.int64] | None = None
    state: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    stop_reason: str | None = None
    messages: list[str] = field(default_factory=list)
    sections: list[dict[str, Any]] = field(default_factory=list)
    checkpoint_keep: int | None = None
    _augmented: Callable[[int], Sequence[NDArray[np.uint8]]] | None = None
    _predictions: Callable[[int], Sequence[Predicted]] | None = None
    _heat_maps: Callable[[int], Sequence[Predicted]] | None = None
    _say: Callable[[str], None] = print

    def __repr__(self) -> str:
        best = f", best epoch {self.best.epoch}: {self.best.value:.4f}" if self.best else ""
        return f"Run({str(self.folder)!r}, epoch {self.epoch}{best})"

    def _repr_html_(self) -> str:
        from finetune.display import html

        return html.render_run(self)

    def stop(self, reason: str) -> None:
        """End the run after this epoch, as finished; the reason is printed and logged."""
        self.stop_reason = self.stop_reason or reason

    def request_checkpoint(self, *, keep: int = 2) -> None:
        """Request a checkpoint after all plugins have handled this step or epoch; the newest ``keep`` stay on disk.

        It is written in the background. If an epoch takes less time than twenty checkpoints, its checkpoint is
        postponed to a later epoch; the checkpoint of the last epoch is always written.
        """
        self.checkpoint_keep = keep

    def add_section(self, title: str, text: str = "", rows: Sequence[Sequence[str]] = ()) -> None:
        """Add a section to ``report.html``, or replace the one of this title; ``rows`` are those of a table.

        Call it before the run ends, for example in ``finetune_epoch_end``.
        """
        section = {"title": title, "text": text, "rows": [[str(cell) for cell in row] for row in rows]}
        self.sections = [*(each for each in self.sections if each["title"] != title), section]

    def say(self, message: str) -> None:
        """Print a line to the user and write it to ``log.txt``."""
        self.messages.append(message)
        self._say(message)

    def augmented(self, count: int) -> Sequence[NDArray[np.uint8]]:
        """Return the first ``count`` training images as augmented in this epoch, HWC uint8 RGB."""
        return self._augmented(count) if self._augmented else []

    def predictions(self, count: int) -> Sequence[Predicted]:
        """Return ``count`` predictions of the last evaluation, with confident mistakes first."""
        return self._predictions(count) if self._predictions else []

    def heat_maps(self, count: int) -> Sequence[Predicted]:
        """Return what ``predictions`` returns, with the heat map of the predicted class over each image.

        There are none before the run has finished, and for networks without maps.
        """
        return self._heat_maps(count) if self._heat_maps else []
