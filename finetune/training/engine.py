"""Engine: one fine-tuning run, from a plan to a model folder. ``train`` is the loop."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.distributed import launch
from finetune.distributed.world import PeerFailed, is_worker
from finetune.errors import DataError, DivergedError, Interrupted, PluginError, ResourceError
from finetune.machine import interrupts
from finetune.training import check, finished, finishing, fitting, lr_finder, preflight, resuming, runfolder, saving
from finetune.training.prepare import prepare
from finetune.training.training_run import TrainingRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan
    from finetune.run import Run
    from finetune.training.prepare import Prepared


def fine_tune(
    plan: Plan,
    catalogue: Catalogue,
    *,
    resume: Path | None = None,
    allow_changed: bool = False,
    extend: int | None = None,
    watchers: Sequence[object] = (),
    say: Callable[[str], None] = print,
) -> Run:
    """Fine-tune according to the plan and return the run; with ``resume``, continue the run in that folder.

    ``allow_changed`` accepts a recipe that differs from the run's, as long as the network is the same. ``extend``
    trains a finished run for that many more epochs. ``watchers`` are objects with event hooks. Raises ``FinetuneError``
    for any problem, and ``Interrupted`` after a signal, when the state has been saved in the run folder.
    """
    extended = False
    if resume is not None:
        plan, done, extended = finished.decide_resume(
            resume, plan, catalogue, extend=extend, allow_changed=allow_changed, say=say
        )
        if done is not None:
            return done
    launch.refuse_alone(plan.recipe)
    if not is_worker():  # the parent has checked already
        preflight.check_machine(plan, resume)
    prepared = prepare(plan, catalogue, resume=resume, watchers=watchers, say=say)
    with open_run_folder(prepared, resume) as folder, interrupts.watch_signals() as stop:
        training = TrainingRun(
            prepared, folder, say=say, resumed=resume is not None, allow_changed=allow_changed, extended=extended
        )
        supervise(training, stop)
    return training.run


@contextmanager
def open_run_folder(prepared: Prepared, resume: Path | None) -> Iterator[Path]:
    """Yield the folder of a run, new or to resume; the first process locks it inside the block."""
    recipe, world = prepared.plan.recipe, prepared.world
    folder = resume
    with ExitStack() as stack:
        with world.collective():
            if world.is_main:
                if resume is None:
                    check.check_disk(prepared)
                folder = resume or runfolder.create_folder(recipe.output, recipe.name)
                stack.enter_context(runfolder.Lock(folder))
        yield Path(world.broadcast(str(folder)))


def supervise(training: TrainingRun, stop: interrupts.Stop) -> None:
    """Run the loop; however it ends, notify every plugin and let every plugin close."""
    run, plugins = training.run, training.plugins
    try:
        try:
            train(training, stop)
        except interrupts.StopRequested:
            training.save()
            training.world.barrier()
            interrupted = Interrupted(stop.signal, f"saved and stopped in epoch {run.epoch}, step {run.step}")
            interrupted.everywhere = True
            raise interrupted from None
    except BaseException as error:
        if isinstance(error, PluginError | DataError | PeerFailed):  # raised between steps or within a block
            training.save_after_error()
        elif isinstance(error, ResourceError) and saving.list_checkpoints(training.saver.folder):
            run.say(f"free some disk space, then resume with: finetune run --resume {run.folder}")
        for failure in plugins.fire_all("finetune_run_error", run=run, error=error):
            run.say(f"warning: {failure}")
        raise
    finally:
        failures = plugins.fire_all("finetune_run_end", run=run)
        for failure in failures:
            run.say(f"warning: {failure}")
        training.close()
    if failures:
        raise failures[0]


def train(training: TrainingRun, stop: interrupts.Stop) -> None:
    """Train all remaining epochs, then test and save the best weights."""
    epoch = start(training)  # 0 if the head is fitted first
    training.plugins.fire("finetune_run_start", run=training.run)

    while epoch <= training.epochs and training.run.stop_reason is None:
        try:
            train_epoch(training, epoch, stop)
            epoch += 1
        except DivergedError as error:
            epoch = resuming.roll_back(training, error)

    finishing.finish(training, stop.check)


def start(training: TrainingRun) -> int:
    """Write the records of a new run, or restore the newest checkpoint; return the first epoch to train."""
    if training.resumed and resuming.has_checkpoint(training):
        return resuming.resume_run(training)
    training.write_start()
    return training.prepared.phases[0].first


def train_epoch(training: TrainingRun, epoch: int, stop: interrupts.Stop) -> None:
    """Train the remaining steps of an epoch, evaluate it, and save it."""
    run, plugins = training.run, training.plugins
    training.begin_epoch(epoch)
    if lr_finder.is_open(training):
        lr_finder.settle_rate(training, stop.check)
        training.save_settled()
    plugins.fire("finetune_epoch_start", run=run, epoch=epoch)

    if epoch == 0:
        fitting.fit_head(training, stop.check)
    else:
        train_steps(training, epoch, stop)

    metrics = training.end_epoch(stop.check)
    plugins.fire("finetune_epoch_end", run=run, epoch=epoch, metrics=metrics)
    training.agree(stop.check)
    training.save_epoch()


def train_steps(training: TrainingRun, epoch: int, stop: interrupts.Stop) -> None:
    """Make the remaining steps of an epoch, and save within the epoch if a plugin asks for it."""
    for block in training.iterate_blocks(epoch, stop.check):
        for loss in training.train(block):
            training.plugins.fire("finetune_step_end", run=training.run, step=training.run.step, loss=loss)
        training.save_step()
