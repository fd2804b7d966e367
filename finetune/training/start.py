"""What the network of a run began with: kept in each checkpoint, so that a resumed run has the same one."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, WeightsError
from finetune.model import modelfolder
from finetune.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.components import ImageSpec, Options
    from finetune.training.prepare import Prepared
    from finetune.weights.fetching import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What stands for the weights that a run began with, where they are gone: the checkpoint holds every parameter."""

    options: Options
    image: ImageSpec
    classes: tuple[str, ...]
    weights: dict[str, Any]


def record(prepared: Prepared) -> dict[str, Any]:
    """Return what a checkpoint says of the start, as JSON gives it back."""
    said = {
        "weights": {"sha256": prepared.weights.get("sha256")},
        "backbone": prepared.backbone_options.model_dump(mode="json"),
        "image": modelfolder.image_record(prepared.image),
    }
    found: dict[str, Any] = json.loads(json.dumps(said))
    return found


def found(
    resolve: Callable[[], Source | None], folder: Path | None, options: type[Options], say: Callable[[str], None]
) -> tuple[Source | None, Start | None]:
    """Return the weights' file; where it is gone and the run in ``folder`` goes on, what stands for it."""
    try:
        return resolve(), None
    except WeightsError as error:
        begun = None if folder is None else read(folder, options)
        if begun is None:
            raise
        say(f"going on without the pretrained weights, since the checkpoint holds every parameter ({error})")
        return None, begun


def read_image(folder: Path | None) -> ImageSpec | None:
    """Return the preprocessing of the run in a folder, by its newest checkpoint; None where no checkpoint says it."""
    if folder is None:
        return None
    with suppress(FinetuneError, KeyError):
        return modelfolder.image_spec(checkpoint.newest(folder / "checkpoints")[0].state["start"]["image"])
    return None


def read(folder: Path, options: type[Options]) -> Start | None:
    """Return the start of the run in a folder; None where its records are of an older version or gone."""
    state = checkpoint.newest(folder / "checkpoints")[0].state
    try:
        said = state["start"]
        return Start(
            options=options.model_validate_json(json.dumps(said["backbone"])),
            image=modelfolder.image_spec(said["image"]),
            classes=tuple(state["classes"]),
            weights=json.loads((folder / "weights.json").read_text(encoding="utf-8")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
