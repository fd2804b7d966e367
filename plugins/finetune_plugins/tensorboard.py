"""Callback ``tensorboard``: logs curves, images, confusion matrix and recipe; its failures never stop a run."""

from __future__ import annotations

import json
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt

from finetune import Callback, Options, PluginError, Predicted, Run, hookimpl
from finetune_plugins import drawing
from finetune_plugins.drawing import Picture
from finetune_plugins.importing import block_torch

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

    from PIL.Image import Image


NOT_COMPARED = {"name", "output", "callbacks", "runner"}


class TensorBoard(Options):
    """What is logged in addition to the curves."""

    images: NonNegativeInt = 16
    """Number of augmented images and of predictions to log; 0 logs none."""


@hookimpl
def finetune_callbacks() -> Iterable[Callback]:
    """Return the callback ``tensorboard``."""
    yield Callback(name="tensorboard", options=TensorBoard, build=build)


def build(options: TensorBoard) -> Logger:
    """Return the callback; raises ``PluginError`` if its library is missing."""
    try:
        with block_torch():
            import tensorboardX  # noqa: F401  # so that a missing library is reported before the run
    except ImportError as error:
        raise PluginError(f"'tensorboard' needs tensorboardX ({error}); run: pip install tensorboardX") from error
    return Logger(options)


class Logger:
    """Logs the run to ``tensorboard/`` in the run folder; all tags count steps of the run.

    A resumed run discards the entries that were logged after its checkpoint.
    """

    def __init__(self, options: TensorBoard) -> None:
        self.options = options
        self.file: EventFile | None = None
        self.failure: str | None = None
        self.finished = True
        self.clock = 0.0

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Open an event file, and log the recipe if it is the first file."""
        with self.harmless(run):
            folder = run.folder / "tensorboard"
            first = not any(folder.glob(PATTERN))
            self.file = EventFile(folder, first_step=run.step + 1)
            if first:
                self.text(run.step, "recipe", indent_text(run.recipe_text))

    @hookimpl
    def finetune_epoch_start(self, run: Run, epoch: int) -> None:
        """Log a new phase: the stages that train, and augmented training images."""
        with self.harmless(run):
            if all(line["phase"] != run.phase for line in run.history):
                self.text(run.step + 1, "stages", describe_stages(run, epoch))
                self.augmented(run)
        self.clock = time.monotonic()

    @hookimpl
    def finetune_step_end(self, run: Run, step: int, loss: float) -> None:
        """Log loss, speed and learning rates."""
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        with self.harmless(run):
            speed = {"step/images_per_second": count_images(run, step) / max(seconds, 1e-6)}
            rates = {f"learning_rate/{group}": rate for group, rate in run.learning_rates.items()}
            self.scalars(step, {"step/loss": loss} | speed | rates)

    @hookimpl
    def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        """Log the epoch's metrics, and after an evaluation the confusion matrix and predictions."""
        with self.harmless(run):
            self.scalars(run.step, {make_tag(name): value for name, value in metrics.items() if is_number(value)})
            if any(name.startswith("val_") for name in metrics):
                self.confusion(run, epoch)
                self.predictions(run)

    @hookimpl
    def finetune_run_error(self, run: Run, error: BaseException) -> None:
        """Remember that the run has no final metrics."""
        self.finished = False

    @hookimpl
    def finetune_run_end(self, run: Run) -> None:
        """Log the final metrics with the values of the recipe, and write the queued entries."""
        with self.harmless(run):
            if self.finished and run.history:
                self.hparams(run)
                self.heat_maps(run)
        if self.file is not None:
            self.file.close()
            self.failure = self.file.failure
        if self.failure is not None:
            run.say(f"tensorboard: logging incomplete ({self.failure})")

    @contextmanager
    def harmless(self, run: Run) -> Iterator[None]:
        """Turn the first failure of logging into a warning, after which nothing more is logged."""
        failure = None
        try:
            yield
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        if self.file is not None:
            failure = failure or self.file.failure
        if failure is not None and self.failure is None:
            self.failure = failure
            run.say(f"tensorboard: logging stops at step {run.step}, training continues ({failure})")
            if self.file is not None:
                self.file.fail(failure)

    def put(self, step: int, draw: Draw) -> None:
        """Pass a summary to the writer, unless logging has ended."""
        if self.file is not None:
            self.file.put(step, draw)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers by tag; NaN is kept."""

        def draw() -> Any:
            from tensorboardX.proto.summary_pb2 import Summary

            return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

        self.put(step, draw)

    def text(self, step: int, name: str, markdown: str) -> None:
        """Log text as Markdown."""

        def draw() -> Any:
            from tensorboardX import summary

            return summary.text(name, markdown)

        self.put(step, draw)

    def picture(self, step: int, name: str, paint: Callable[[], Image], kind: str) -> None:
        """Log an image, drawn and encoded as PNG or JPEG in the writer's thread."""

        def draw() -> Any:
            from tensorboardX.proto.summary_pb2 import Summary

            image, file = paint(), BytesIO()
            image.save(file, kind, quality=90)
            content = Summary.Image(
                height=image.height, width=image.width, colorspace=3, encoded_image_string=file.getvalue()
            )
            return Summary(value=[Summary.Value(tag=name, image=content)])

        self.put(step, draw)

    def augmented(self, run: Run) -> None:
        """Log training images as augmented in this epoch."""
        if self.options.images and self.failure is None:
            pictures = [Picture(pixels=pixels) for pixels in run.augmented(self.options.images)]
            if pictures:
                self.picture(run.step + 1, "images/augmented", lambda: drawing.draw_sheet(pictures), "JPEG")

    def predictions(self, run: Run) -> None:
        """Log validation images, each with its true and its predicted class."""
        if self.options.images and self.failure is None:
            numbers = {name: number for number, name in enumerate(run.classes)}
            pictures = [
                Picture(pixels=each.pixels, caption=make_caption(each, numbers))
                for each in run.predictions(self.options.images)
            ]
            if pictures:
                self.picture(run.step, "images/predictions", lambda: drawing.draw_sheet(pictures), "JPEG")

    def heat_maps(self, run: Run) -> None:
        """Log where the final network sees the predicted classes, for the last predictions."""
        if self.options.images and self.failure is None:
            numbers = {name: number for number, name in enumerate(run.classes)}
            shown = run.heat_maps(self.options.images)
            pictures = [Picture(pixels=each.pixels, caption=make_caption(each, numbers)) for each in shown]
            if pictures:
                self.picture(run.step, "images/heat_maps", lambda: drawing.draw_sheet(pictures), "JPEG")

    def confusion(self, run: Run, epoch: int) -> None:
        """Log the confusion matrix of the last evaluation."""
        if run.confusion is not None:
            counts = run.confusion.copy()
            right, images = int(counts.trace()), int(counts.sum())
            title = f"epoch {epoch}: {right} of {images} images correct ({right / max(images, 1):.1%})"
            self.picture(run.step, "confusion", lambda: drawing.draw_matrix(counts, run.classes, title), "PNG")

    def hparams(self, run: Run) -> None:
        """Log the recipe's values and the final metrics, for comparing runs."""
        metrics = collect_final(run)
        values = dict(flatten_values(run.recipe.model_dump(mode="json", exclude=NOT_COMPARED)))

        def draw() -> Any:
            from tensorboardX import summary
            from tensorboardX.proto.summary_pb2 import Summary

            together = Summary()
            for part in summary.hparams(values, metrics):
                together.MergeFrom(part)
            return together

        self.put(run.step, draw)
        self.scalars(run.step, metrics)


def make_caption(each: Predicted, numbers: Mapping[str, int]) -> drawing.Caption:
    """Return the lines below a prediction: the true class, the prediction in blue or red, and the file's name."""
    colour = drawing.RIGHT if each.label == each.predicted else drawing.WRONG
    name, guess = (drawing.make_drawable(text, f"class {numbers[text]}") for text in (each.label, each.predicted))
    lines: list[tuple[str, tuple[int, int, int]]] = [(name, drawing.BLACK), (f"{each.probability:.0%} {guess}", colour)]
    if each.path:
        lines.append((drawing.make_drawable(PurePath(each.path).name, "file"), drawing.GREY))
    return tuple(lines)


def describe_stages(run: Run, epoch: int) -> str:
    """Return the stages that train from an epoch on, and those that are frozen, as Markdown."""
    frozen = [stage for stage in run.stages if stage not in run.trainable]
    return (
        f"phase {run.phase}, from epoch {epoch} on\n\n"
        f"* training: {', '.join(run.trainable)}\n* frozen: {', '.join(frozen) or 'none'}"
    )


def indent_text(text: str) -> str:
    """Return text as an indented Markdown code block, which its content cannot close."""
    lines = text.encode("utf-8", "backslashreplace").decode().splitlines()
    return "\n".join(f"    {line}" for line in lines)


def count_images(run: Run, step: int) -> int:
    """Return the number of images in a step; the last step of an epoch may have fewer."""
    size = run.recipe.train.batch * run.recipe.train.accumulate
    done = (step - 1) % run.steps_per_epoch * size
    return min(size, run.images["train"] - done)


def make_tag(name: str) -> str:
    """Return the tag of a metric, grouped by training, validation and epoch."""
    part, _, rest = name.partition("_")
    return f"{part}/{rest}" if part in ("train", "val") else f"epoch/{name}"


def is_number(value: object) -> bool:
    """Return whether a value can be drawn as a curve."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def collect_final(run: Run) -> dict[str, float]:
    """Return the metrics of the final weights: of the best or last epoch, and of the test."""
    best = run.best if run.recipe.evaluate.restore_best else None
    line = next((line for line in run.history if best and line["epoch"] == best.epoch), run.history[-1])
    values = {**line, **(run.result or {})}
    return {f"final/{k}": v for k, v in values.items() if k.startswith(("val_", "test_")) and is_number(v)}


def flatten_values(values: object, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested sections with dotted names; lists become text."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from flatten_values(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(values) if isinstance(values, list) else values


Draw = Callable[[], Any]
"""Creates a ``Summary``; the writing thread calls it."""

PATTERN = "events.out.tfevents.*"
WAITING = 10_000  # summaries; a thousand take about 1 MB
STALLED = 30.0  # seconds for one summary, after which the disk counts as hung


class EventFile:
    """Passes summaries to a writing thread; after the first failure it accepts no more, and ``failure`` is the reason.

    The library's own writer is not used: if a full disk ends its thread, its ``add_`` functions wait forever. The file
    name contains the time in microseconds, so that the files of a run sort in the order of writing. Entries of earlier
    files from ``first_step`` on are discarded by readers.
    """

    def __init__(self, folder: Path, *, first_step: int = 1) -> None:
        self.path = folder / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.first_step = first_step
        self.failure: str | None = None
        self._items: queue.Queue[tuple[int, float, Draw] | None] = queue.Queue(WAITING)
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="tensorboard", daemon=True)
        self._thread.start()

    def put(self, step: int, draw: Draw) -> None:
        """Queue a summary; waits if the steps are faster than the thread, but not for a hung disk."""
        item = (step, time.time(), draw)
        while self.failure is None:
            since = self._busy_since
            if since is not None and time.monotonic() - since > STALLED:
                self.fail(f"the disk has not answered for {STALLED:g} seconds")
            else:
                with suppress(queue.Full):
                    return self._items.put(item, timeout=0.1)

    def fail(self, reason: str) -> None:
        """Accept no more summaries, and let the thread end."""
        self.failure = self.failure or reason
        with suppress(queue.Full):  # the thread is not waiting then
            self._items.put_nowait(None)

    def close(self, patience: float = 60.0) -> None:
        """Write the queued summaries and close the file; gives up after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        if self.failure is None:
            with suppress(queue.Full):
                self._items.put(None, timeout=patience)
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self.fail(f"the disk has not answered for {patience:g} seconds")

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a killed process loses nothing that was written. Exclusive: nothing is overwritten.
            with open(self.path, "xb", buffering=0) as file:
                self._write_all(file)
                os.fsync(file.fileno())
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}")

    def _write_all(self, file: FileIO) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        write_event(file, Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Every file starts a session, including the first: readers treat the second start as the first restart.
        start = SessionLog(status=SessionLog.START)
        write_event(file, Event(wall_time=time.time(), step=self.first_step, session_log=start))
        while (item := self._items.get()) is not None and not self.failure:
            step, wall_time, draw = item
            self._busy_since = time.monotonic()
            write_event(file, Event(wall_time=wall_time, step=step, summary=draw()))
            self._busy_since = None


def write_event(file: FileIO, event: Any) -> None:
    """Append an event as a TFRecord: length, its checksum, content, its checksum; raises ``OSError`` on disk errors."""
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    record = length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
    rest = memoryview(record)
    while rest:
        rest = rest[file.write(rest) :]
    if os.fstat(file.fileno()).st_nlink == 0:  # writing to a removed file raises nothing
        raise FileNotFoundError(f"{file.name} was deleted")
