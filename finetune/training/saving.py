"""Checkpoints: written in the background, without losing the best epoch, and retried after disk errors."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, ResourceError, UsageError, WeightsError
from finetune.files.atomic import atomic_path
from finetune.model import modelfolder
from finetune.run import Best
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.components import ImageSpec, Options
    from finetune.training.prepare import Prepared
    from finetune.weights.fetching import Source


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


VERSION = 1
NAME = re.compile(r"step-(\d{8})\.safetensors")
BEST = "best.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Arrays by name, with prefix ``network/``, ``optimizer/`` or ``average/``, and the state as JSON."""

    arrays: dict[str, NDArray[Any]]
    state: dict[str, Any]

    def select(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays with a prefix, by their names without it."""
        start = len(prefix) + 1
        return {name[start:]: array for name, array in self.arrays.items() if name.startswith(f"{prefix}/")}


def save_checkpoint(
    folder: Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any], *, best: bool, keep: int
) -> Path:
    """Write ``step-N.safetensors``, also as ``best.safetensors`` if best, and keep the newest ``keep``."""
    path = folder / f"step-{state['step']:08d}.safetensors"
    tensorfile.write_tensors(
        path, dict(arrays), {"finetune": json.dumps({"version": VERSION, **state}, allow_nan=False)}
    )
    if best:
        link_best(path)
    for old in list_checkpoints(folder)[:-keep]:
        with suppress(OSError):  # already gone, or the disk refuses; the next save tries again
            old.unlink()
    return path


def link_best(path: Path) -> None:
    """Link a checkpoint as ``best.safetensors``, or copy it if the file system has no hard links."""
    with atomic_path(path.parent / BEST) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            temporary.write_bytes(path.read_bytes())


def relink_best(folder: Path, saved: Checkpoint, *, best: bool) -> None:
    """Link the checkpoint that a run resumes from as the best, if it is; the run may have been killed before that."""
    path = folder / f"step-{saved.state['step']:08d}.safetensors"
    if best and path.exists():
        link_best(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raises ``WeightsError`` if the file is not one."""
    file = tensorfile.read_tensors(path)
    try:
        state = json.loads(file.metadata["finetune"])
    except (KeyError, ValueError) as error:
        remedy = "to start from weights, set backbone.weights"
        raise WeightsError(f"{path} is not a checkpoint of a run; {remedy}") from error
    if state.get("version") != VERSION:
        has = f"{path} has checkpoint version {state.get('version')}, but this release reads version {VERSION}"
        raise WeightsError(f"{has}; use the release that wrote it")
    return Checkpoint(arrays=file.tensors, state=state)


def load_newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest readable checkpoint of a folder, and the errors of newer ones."""
    broken: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path), broken
        except WeightsError as error:
            broken.append(str(error))
    if broken:
        raise WeightsError("no checkpoint can be read: " + "; ".join(broken))
    raise UsageError(f"no checkpoint in {folder}; start a new run with `finetune run`")


KEEP = 2  # checkpoints to keep, unless a plugin sets the number
# The least time between checkpoints, as a multiple of the time that one takes: short epochs do not need a checkpoint
# each, since the work that a kill costs is repeated in the time of twenty checkpoints.
RARELY = 20
QUICK = 0.1  # a checkpoint that takes fewer seconds is written after every epoch


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The complete state of a run at one moment, and whether that is the end of its best epoch."""

    arrays: Mapping[str, NDArray[Any]]
    state: Mapping[str, Any]
    best: bool


Written = tuple[int, "Path", bool]  # epoch, path, best


class CheckpointWriter:
    """Writes snapshots in order, one at a time, in a background thread or while the caller waits."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say, self.keep = folder, say, KEEP
        self._held: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._written: list[Written] = []
        self._error: BaseException | None = None
        self._refused = False  # whether the disk refused the last checkpoint
        self._at, self._seconds = 0.0, 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def is_due(self) -> bool:
        """Return whether the next checkpoint is due, because enough time has passed or the last one failed."""
        if self.is_busy:
            return False
        return self._refused or self._seconds < QUICK or time.monotonic() - self._at >= RARELY * self._seconds

    def hold(self, best: Snapshot) -> None:
        """Keep the best epoch in memory until the next checkpoint is written."""
        self._held = best

    def write(self, now: Snapshot) -> None:
        """Write a snapshot, after the best epoch if that is still held; raises errors of the disk."""
        self.join()
        self._write(self._list_waiting(now))
        error, self._error = self._error, None
        if error is not None:
            raise error

    def begin(self, now: Snapshot) -> None:
        """Start writing a snapshot in the background; its arrays must not change any more."""
        self.join()
        self._thread = threading.Thread(target=self._write, args=(self._list_waiting(now),), name="checkpoint")
        self._thread.start()

    def flush(self) -> None:
        """Wait for the current write, and write the best epoch if that is still held."""
        self.join()
        if self._held is not None:
            self._write([self._held])
            self._held = self._held if self._refused else None

    def _list_waiting(self, now: Snapshot) -> list[Snapshot]:
        held, self._held = self._held, None
        return [now] if held is None or now.best else [held, now]

    def _write(self, snapshots: Sequence[Snapshot]) -> None:
        began, self._refused = time.monotonic(), False
        for number, each in enumerate(snapshots, 1):
            try:
                spare = len(snapshots) - number
                path = save_checkpoint(self.folder, each.arrays, each.state, best=each.best, keep=self.keep + spare)
            except BaseException as error:  # ``take_finished`` reports it to the run
                self._error, self._refused = error, isinstance(error, ResourceError)
                self._held = each if each.best else self._held
            else:
                self._written.append((each.state["epoch"], path, each.best))
        self._at = time.monotonic()
        self._seconds = (self._at - began) / len(snapshots)

    def take_finished(self) -> list[Written]:
        """Return what was written since the last call; reports a disk that refused, and raises any other error."""
        if self.is_busy:
            return []
        self._thread = None
        written, self._written = self._written, []
        error, self._error = self._error, None
        if isinstance(error, ResourceError):
            self.say(f"warning: no checkpoint was written: {error}; training continues and will retry")
        elif error is not None:
            raise error
        return written

    def join(self) -> None:
        """Wait for the current write."""
        if self._thread is not None:
            self._thread.join()


class NoCheckpointWriter(CheckpointWriter):
    """A saver that writes nothing, for all processes of a run except the first."""

    def write(self, now: Snapshot) -> None:
        """Do nothing."""

    def begin(self, now: Snapshot) -> None:
        """Do nothing."""

    def hold(self, best: Snapshot) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The start of a run, used in place of missing pretrained weights: the checkpoint contains every parameter."""

    options: Options
    image: ImageSpec
    classes: tuple[str, ...]
    weights: dict[str, Any]


def record_start(prepared: Prepared) -> dict[str, Any]:
    """Return the record of the start for a checkpoint, as it is read back from JSON."""
    record = {
        "weights": {"sha256": prepared.weights.get("sha256")},
        "backbone": prepared.backbone_options.model_dump(mode="json"),
        "image": modelfolder.record_image(prepared.image),
    }
    found: dict[str, Any] = json.loads(json.dumps(record))
    return found


def find_start(
    resolve: Callable[[], Source | None], folder: Path | None, options: type[Options], say: Callable[[str], None]
) -> tuple[Source | None, Start | None]:
    """Return the weights' file or, if it is missing and the run in ``folder`` resumes, the start of that run."""
    try:
        return resolve(), None
    except WeightsError as error:
        begun = None if folder is None else read_start(folder, options)
        if begun is None:
            raise
        say(f"continuing without the pretrained weights, because the checkpoint contains every parameter ({error})")
        return None, begun


def read_image(folder: Path | None) -> ImageSpec | None:
    """Return the preprocessing in the newest checkpoint of the run in a folder; None if it is not recorded."""
    if folder is None:
        return None
    with suppress(FinetuneError, KeyError):
        return modelfolder.load_image_spec(load_newest(folder / "checkpoints")[0].state["start"]["image"])
    return None


def read_start(folder: Path, options: type[Options]) -> Start | None:
    """Return the start of the run in a folder; None if its records are missing or of an older version."""
    state = load_newest(folder / "checkpoints")[0].state
    try:
        record = state["start"]
        return Start(
            options=options.model_validate_json(json.dumps(record["backbone"])),
            image=modelfolder.load_image_spec(record["image"]),
            classes=tuple(state["classes"]),
            weights=json.loads((folder / "weights.json").read_text(encoding="utf-8")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
