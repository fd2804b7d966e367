"""Data sink: MindSpore's dataset pipeline sends the inputs of steps to the device ahead of time."""

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
    from finetune.training.phase_data import PhaseData
    from finetune.training.prepare import Prepared
    from finetune.training.step import TrainStep
    from finetune.training.trainer import Trainer

    Arguments = tuple[NDArray[Any] | np.float32, ...]

AHEAD = 4  # steps to prefetch; MindSpore's default of 16 would take gigabytes
COLUMNS = ("images", "targets", "count", "mask", "rate", "power1", "power2", "decay")
MADE_BY = {"native": "MindSpore's own operations", "processes": "worker processes", "threads": "threads"}
ERRORS: dict[str, type[FinetuneError]] = {"DataError": DataError, "PluginError": PluginError}


def count_steps(recipe: Recipe, default: int, first: int, say: Callable[[str], None]) -> int:
    """Return how many steps of a phase are sent to the device at once; 0 for single steps.

    ``default`` is the value of ``auto`` on this device; ``first`` is the number of the first stage that the phase runs.
    """
    runner = recipe.runner
    if runner.sink == "off":
        return 0
    summed = recipe.train.accumulate > 1
    if first or summed:
        why = "train.accumulate sums gradients step by step" if summed else "this phase trains on features"
        if runner.sink != "auto":
            say(f"runner.sink={runner.sink} is not used: {why}")
        return 0
    return default if runner.sink == "auto" else runner.sink


def open_sink(
    prepared: Prepared,
    trainer: Trainer,
    phase_data: PhaseData,
    at_once: int,
    say: Callable[[str], None],
    first: int,
    step: TrainStep,
    updates: int,
) -> Sink:
    """Return the sink of a phase's steps, starting with number ``first``, after ``updates`` optimizer updates."""
    phase, queue = trainer.phase, prepared.device.kind.queue
    assert phase is not None
    loader, each = phase_data.get_loader("train", train=True), trainer.steps_per_epoch
    operations, how = choose_pipeline(prepared, at_once, mixes=phase_data.views.mixes, say=say)

    def arguments() -> Iterator[Arguments]:
        make = (
            phase_data.iterate_targets if how != "threads" else partial(phase_data.iterate_training, check=lambda: None)
        )
        for epoch in range(first // each + 1, phase.last + 1):
            start = max(0, first - (epoch - 1) * each)
            for at, batch in enumerate(make(epoch, start), trainer.locate_step(epoch, start)):
                yield trainer.make_arguments(batch, at, updates + at - first + 1)

    ds.config.set_prefetch_size(AHEAD)
    wanted = range(first, phase.last * each)
    if how == "threads":
        return sink_arguments(step, arguments, len(wanted), queue=queue)
    if operations is not None:
        images = pipeline.build_native_dataset(loader, wanted, operations, prepared.workers)
    else:
        images = pipeline.build_process_dataset(loader, wanted, prepared.workers)
    return sink_images(step, images, arguments, queue=queue)


def choose_pipeline(
    prepared: Prepared, at_once: int, *, mixes: bool, say: Callable[[str], None]
) -> tuple[list[Any] | None, str]:
    """Choose what prepares the images; return MindSpore's operations if it is these, and the name of the choice."""
    wanted = prepared.plan.recipe.runner.pipeline
    operations = prepared.native() if wanted in ("auto", "native") and not mixes else None
    if wanted == "native" and operations is None:
        why = "mixup and cutmix need complete batches" if mixes else "this augmentation has no MindSpore operations"
        say(f"runner.pipeline=native is not used: {why}")
    how = "threads" if mixes or wanted == "threads" else "native" if operations is not None else "processes"
    say(f"{at_once} steps are sent to the device at once; images are prepared by {MADE_BY[how]}")
    return operations, how


class Sink:
    """The steps of a phase; each call starts the next one, and the tensors that it returns may be read later.

    On a device with a queue, MindSpore fills the queue ahead, and the step takes its inputs from there. On other
    devices, the step is called with its inputs.
    """

    def __init__(self, step: TrainStep, dataset: Any, sources: list[Any], *, queue: bool) -> None:
        self.sources, self._make_dataset, self._queue = sources, dataset, queue
        if queue:
            self._next: Callable[[], tuple[Tensor, Tensor]] = ms.data_sink(step, dataset, jit_config=ms.JitConfig())
        else:
            with warnings.catch_warnings():
                # Python 3.12 warns about forks in a process with threads, which MindSpore's worker processes are.
                warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
                self._rows = dataset.create_tuple_iterator(num_epochs=1, do_copy=False)
            self._next = lambda: step(*next(self._rows))

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Start the next step, and return its loss and the output of its update."""
        try:
            return self._next()
        except RuntimeError as error:
            raise self._find_meant(error) from None

    def _find_meant(self, error: RuntimeError) -> Exception:
        """Return the original error in the pipeline, which MindSpore wraps in its own error."""
        for source in self.sources:
            if source.problem is not None:
                problem: Exception = source.problem
                return problem
        told = re.search(rf"\.({'|'.join(ERRORS)}): (.+)", str(error))  # only text comes from other processes
        return ERRORS[told[1]](told[2].strip()) if told else error

    def close(self) -> None:
        """Stop filling the queue."""
        if self._queue:
            self._make_dataset.__transfer_dataset__.stop_send()
        else:
            self._rows.stop()


class StepArguments:
    """The arguments of consecutive steps, for MindSpore to iterate over; ``problem`` is the error that ended them.

    MindSpore needs the length before it starts, and would otherwise determine it by computing all of them.
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


def sink_arguments(step: TrainStep, arguments: Callable[[], Iterator[Arguments]], steps: int, *, queue: bool) -> Sink:
    """Return the sink of steps whose arguments all come from this process."""
    told = StepArguments(arguments, steps)
    return Sink(step, _make_dataset(told, COLUMNS), [told], queue=queue)


def sink_images(
    step: TrainStep, images: tuple[Any, Rows], arguments: Callable[[], Iterator[Arguments]], *, queue: bool
) -> Sink:
    """Return the sink of steps whose images come from a dataset, and all other arguments from this process."""
    dataset, rows = images
    told = StepArguments(lambda: (each[1:] for each in arguments()), len(rows.steps))
    return Sink(step, ds.zip((dataset, _make_dataset(told, COLUMNS[1:]))), [rows, told], queue=queue)


def _make_dataset(told: StepArguments, columns: tuple[str, ...]) -> Any:
    return ds.GeneratorDataset(told, list(columns), shuffle=False, python_multiprocessing=False)
