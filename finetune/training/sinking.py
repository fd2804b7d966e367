"""Steps whose inputs MindSpore's dataset pipeline sends to the device ahead of time, by its queue."""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import mindspore as ms
import mindspore.dataset as ds

from finetune.data import pipeline
from finetune.errors import DataError, FinetuneError, PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from mindspore import Tensor
    from numpy.typing import NDArray

    from finetune.data.pipeline import Rows
    from finetune.recipe.models import Recipe
    from finetune.training.feed import Feed
    from finetune.training.prepare import Prepared
    from finetune.training.step import TrainStep
    from finetune.training.trainer import Trainer

    Arguments = tuple[NDArray[Any] | np.float32, ...]

AHEAD = 4  # steps in the making; MindSpore's own 16 would hold gigabytes
COLUMNS = ("images", "targets", "count", "mask", "rate", "power1", "power2", "decay")
MADE_BY = {"native": "MindSpore's own operations", "processes": "worker processes", "threads": "threads"}
ERRORS: dict[str, type[FinetuneError]] = {"DataError": DataError, "PluginError": PluginError}


def count_steps(recipe: Recipe, default: int, first: int, say: Callable[[str], None]) -> int:
    """Return how many steps of a phase are sent to the device at once, 0 for one by one.

    ``default`` is what ``auto`` means on this device; ``first`` is the number of the stage that the phase feeds.
    """
    runner = recipe.runner
    if runner.sink == "off":
        return 0
    summed = recipe.train.accumulate > 1
    if first or summed:
        why = "train.accumulate sums up gradients step by step" if summed else "this phase trains from features"
        if runner.sink != "auto":
            say(f"runner.sink={runner.sink} is not used: {why}")
        return 0
    return default if runner.sink == "auto" else runner.sink


def open_sink(
    prepared: Prepared,
    trainer: Trainer,
    feed: Feed,
    at_once: int,
    say: Callable[[str], None],
    first: int,
    step: TrainStep,
    updates: int,
) -> Sink:
    """Return the sink of a phase's steps from number ``first`` on, before which it has made ``updates``."""
    phase, queue = trainer.phase, prepared.device.kind.queue
    assert phase is not None
    loader, each = feed.loader("train", train=True), trainer.steps_per_epoch
    operations, how = choose_pipeline(prepared, at_once, mixes=feed.views.mixes, say=say)

    def arguments() -> Iterator[Arguments]:
        make = feed.described if how != "threads" else partial(feed.training, check=lambda: None)
        for epoch in range(first // each + 1, phase.last + 1):
            start = max(0, first - (epoch - 1) * each)
            for at, batch in enumerate(make(epoch, start), trainer.at(epoch, start)):
                yield trainer.arguments(batch, at, updates + at - first + 1)

    ds.config.set_prefetch_size(AHEAD)
    wanted = range(first, phase.last * each)
    if how == "threads":
        return whole(step, arguments, len(wanted), queue=queue)
    if operations is not None:
        images = pipeline.build_native_dataset(loader, wanted, operations, prepared.workers)
    else:
        images = pipeline.build_process_dataset(loader, wanted, prepared.workers)
    return beside(step, images, arguments, queue=queue)


def choose_pipeline(
    prepared: Prepared, at_once: int, *, mixes: bool, say: Callable[[str], None]
) -> tuple[list[Any] | None, str]:
    """Return MindSpore's operations where they make the images, and what makes them."""
    wanted = prepared.plan.recipe.runner.pipeline
    operations = prepared.native() if wanted in ("auto", "native") and not mixes else None
    if wanted == "native" and operations is None:
        why = "mixup and cutmix need whole batches" if mixes else "this augmentation has no operations of MindSpore's"
        say(f"runner.pipeline=native is not used: {why}")
    how = "threads" if mixes or wanted == "threads" else "native" if operations is not None else "processes"
    say(f"{at_once} steps are sent to the device at once, their images made by {MADE_BY[how]}")
    return operations, how


class Sink:
    """The steps of a phase from one on, each begun by a call; what it returns may be read back later.

    On a device with a queue MindSpore fills that ahead, and the step takes its inputs from there. Elsewhere the step
    is called with them, one after the other.
    """

    def __init__(self, step: TrainStep, dataset: Any, sources: list[Any], *, queue: bool) -> None:
        self.sources, self._dataset, self._queue = sources, dataset, queue
        if queue:
            self._next: Callable[[], tuple[Tensor, Tensor]] = ms.data_sink(step, dataset, jit_config=ms.JitConfig())
        else:
            with warnings.catch_warnings():
                # Python 3.12 warns of worker processes that are forked beside threads, as MindSpore's are.
                warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
                self._rows = dataset.create_tuple_iterator(num_epochs=1, do_copy=False)
            self._next = lambda: step(*next(self._rows))

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Begin the next step, and return its loss and what its update returns."""
        try:
            return self._next()
        except RuntimeError as error:
            raise self._meant(error) from None

    def _meant(self, error: RuntimeError) -> Exception:
        """Return what went wrong in the pipeline, of which MindSpore makes an error of its own."""
        for source in self.sources:
            if source.problem is not None:
                problem: Exception = source.problem
                return problem
        told = re.search(rf"\.({'|'.join(ERRORS)}): (.+)", str(error))  # of another process there is only the text
        return ERRORS[told[1]](told[2].strip()) if told else error

    def close(self) -> None:
        """Stop what fills the queue."""
        if self._queue:
            self._dataset.__transfer_dataset__.stop_send()
        else:
            self._rows.stop()


class Told:
    """Arguments of one step after another, for MindSpore to ask for; ``problem`` is what went wrong.

    MindSpore asks for their number before it begins, and would else count them by making them all.
    """

    def __init__(self, arguments: Callable[[], Iterator[Arguments]], steps: int) -> None:
        self.arguments, self.steps = arguments, steps
        self.problem: Exception | None = None

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Arguments]:
        try:
            yield from self.arguments()
        except Exception as error:
            self.problem = error
            raise


def whole(step: TrainStep, arguments: Callable[[], Iterator[Arguments]], steps: int, *, queue: bool) -> Sink:
    """Return the sink of steps whose arguments are all made here."""
    told = Told(arguments, steps)
    return Sink(step, _dataset(told, COLUMNS), [told], queue=queue)


def beside(
    step: TrainStep, images: tuple[Any, Rows], arguments: Callable[[], Iterator[Arguments]], *, queue: bool
) -> Sink:
    """Return the sink of steps whose images a dataset makes, and all other arguments are made here."""
    dataset, rows = images
    told = Told(lambda: (each[1:] for each in arguments()), len(rows.steps))
    return Sink(step, ds.zip((dataset, _dataset(told, COLUMNS[1:]))), [rows, told], queue=queue)


def _dataset(told: Told, columns: tuple[str, ...]) -> Any:
    return ds.GeneratorDataset(told, list(columns), shuffle=False, python_multiprocessing=False)
