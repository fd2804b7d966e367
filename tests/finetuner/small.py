"""Finetuners that are fitted quickly, and what tests look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from finetune import Finetuner
from tests.features import tiny

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from finetune.run import Run


# No graph is compiled: that would take longer than all the steps.
NANO: dict[str, Any] = {
    "backbone": "resnext_nano",
    "weights": "none",
    "device": "cpu",
    "image": {"size": 32, "resize": 36},
    "train": {"batch_size": 8},
    "runner": {"mode": "pynative"},
    "progress": False,
}


def tiny_finetuner(output: Path, *, plugins: Sequence[object] = (), **more: Any) -> Finetuner:
    """Return a ``Finetuner`` of a network with three small stages, which trains in well under a second."""
    sections = {**NANO, "backbone": "tiny", "image": {"size": 16, "resize": 18}, "output": output, **more}
    return Finetuner(**sections, plugins=[tiny.Tiny(), *plugins])


def planned(run: Run) -> Any:
    return run.recipe.model_dump(mode="json")


def pixels(paths: list[Path]) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in paths]


def weights(run: Run) -> str:
    """Return a hash of a run's final weights."""
    return tiny.weights(run.folder)


def grey() -> np.ndarray:
    return np.full((8, 8, 3), 128, np.uint8)
