"""Resuming: restores a checkpoint when a run is resumed, or rolled back after it diverged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import DivergedError, FinetuneError, UsageError
from finetune.training import changes, older, records, saving
from finetune.training.optimizers import LossScale
from finetune.training.saving import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.training.training_run import TrainingRun

ROLLBACKS = 3  # per run; if these do not help, the problem is a different one


def has_checkpoint(training: TrainingRun) -> bool:
    """Return whether the run has a checkpoint; a run that was killed before its first one restarts in its folder."""
    found: bool = training.world.broadcast(
        bool(saving.list_checkpoints(training.saver.folder)) or (training.saver.folder / saving.BEST).exists()
    )
    trained: bool = training.world.broadcast(records.has_trained(training.run.folder))
    if not found and not trained:
        training.run.say("no checkpoint yet; restarting the run in its folder")
    return found or trained  # trained but without checkpoints: resuming will raise an error


def resume_run(training: TrainingRun) -> int:
    """Restore the newest readable checkpoint and return the epoch to continue with; raises if not allowed."""
    with training.world.collective():
        saved, broken = saving.load_newest(training.saver.folder)
    for problem in broken:
        training.run.say(f"not used: {problem}")
    steps = training.world.gather(saved.state["step"])
    if len({*steps}) > 1:
        raise UsageError(f"the machines of this run have different checkpoints, at steps {steps}; share the run folder")
    folder = training.run.folder
    if not training.extended:  # an extension still has to measure some values
        adopt_settled(training, saved.state["recipe"])
    changed = changes.check_same(
        saved.state,
        training.prepared,
        training.run.say,
        folder=folder,
        allow=training.allow_changed,
        extended=training.extended,
    )
    restore_state(training, saved, changed=changed)
    if changed and training.run.best and changes.is_judged_differently(saved.state, training.prepared):
        training.run.best = None
        training.run.say("the best epoch is chosen from the following epochs: earlier ones were evaluated differently")
    if training.extended:
        extend_run(training)
    if changed or training.extended:
        training.save_changed()
    elif training.world.is_main and changes.is_moved(saved.state, training.prepared):
        records.write_recipe(training.prepared, folder)
        records.write_data(training.prepared, folder)
    where = f"{training.done} of the {training.run.steps_per_epoch} steps of epoch {training.run.epoch}"
    training.run.say(f"resumed after step {training.run.step}: {where}")
    return training.run.epoch + training.is_epoch_closed()


def adopt_settled(training: TrainingRun, recorded: Mapping[str, Any]) -> None:
    """Adopt values of the ``recorded`` recipe of a checkpoint that are not chosen yet in the training's recipe."""
    for (section, key), value in older.OPEN.items():
        own, then = getattr(training.recipe, section), recorded.get(section, {})
        if getattr(own, key, None) == value and then.get(key, value) != value:
            training.settle(section, **{key: then[key]})
    training.write_settled()


def extend_run(training: TrainingRun) -> None:
    """Continue a finished run, and report how the learning rate continues."""
    run, first = training.run, training.run.epoch + training.is_epoch_closed()
    run.stop_reason = None
    if training.recipe.optimizer.lr == "auto":  # the run only fitted its head
        rate = "the learning rate is measured"
    else:
        trainer = training.trainer
        rate = f"the learning rate continues at {trainer.compute_rate(trainer.locate_step(first, 0)):.2g}"
    schedule = f"the schedule is computed over all {training.epochs} epochs; {rate}"
    epochs = f"epochs {first} to {training.epochs}" if first < training.epochs else f"epoch {first}"
    run.say(f"extending {run.folder}: {epochs}; {schedule}")


def restore_state(training: TrainingRun, saved: saving.Checkpoint, *, changed: bool = False) -> None:
    """Restore the complete state of a checkpoint or, if the recipe ``changed``, as much of it as possible."""
    state, run = RunState.from_json(saved.state), training.run
    run.epoch = state.epoch
    training.enter(training.find_phase(run.epoch))
    if changed:
        adapt_state(training, saved)
    else:
        training.trainer.restore(saved.select, state.updates)
    training.phase_data.frozen.record_weights()
    training.trainer.global_step = max(0, state.step - 1)
    if training.trainer.scaling and state.scaling:
        training.trainer.update_loss_scale(LossScale(**state.scaling))
        training.trainer.take_overflows(lambda message: None)
    training.fitted = state.fitted
    run.history, run.step, run.state = state.history, state.step, state.plugins
    run.best, run.stop_reason = state.best, state.stop_reason
    training.frozen = training.trainer.hash_frozen() if changed else state.frozen
    training.seconds, training.done = state.seconds, state.done
    training.loss_sum, training.images = state.loss_sum, state.images
    training.reduce_interval(state.rollbacks)
    if changed and not training.is_epoch_closed():
        training.done = 0
    if training.world.is_main:
        records.keep_history(training.prepared, run)
        saving.relink_best(training.saver.folder, saved, best=training.is_best())


def adapt_state(training: TrainingRun, saved: saving.Checkpoint) -> None:
    """Load the weights of a checkpoint into a run whose recipe changed; state that does not fit is reset."""
    network = {p.name: tuple(p.shape) for p in training.network.get_parameters()}
    if {name: array.shape for name, array in saved.select("network").items()} != network:
        raise UsageError("the changed recipe builds a different network; start a new run")
    if not training.trainer.restore_what_fits(saved.select, saved.state["updates"]):
        training.run.say("optimizer state reset: the recipe uses a different optimizer")
    state = saved.state
    is_closed = bool(state["history"]) and state["history"][-1]["epoch"] == state["epoch"]
    if state["done"] and not is_closed:
        training.run.say(f"restarting epoch {state['epoch']}: its steps may have changed")


def roll_back(training: TrainingRun, error: DivergedError) -> int:
    """Go back to the newest checkpoint with half the learning rate; return the epoch to continue with.

    Raises ``error`` if the recipe does not allow that, and ``DivergedError`` without a checkpoint or after too many
    rollbacks.
    """
    if training.recipe.train.on_nonfinite != "rollback":
        raise error
    training.saver.flush()
    training.tell()
    training.world.barrier()
    times = training.rollbacks + 1
    if times > ROLLBACKS:
        raise DivergedError(f"{error}; {ROLLBACKS} rollbacks did not help") from error
    try:
        saved, _ = saving.load_newest(training.saver.folder)
    except FinetuneError:
        raise DivergedError(f"{error}; there is no checkpoint to roll back to yet") from error
    restore_state(training, saved)
    training.reduce_interval(times)
    training.run.say(f"warning: {error}")
    back = f"rolled back to step {training.run.step}"
    training.run.say(f"{back}; from now on the learning rate is {training.trainer.slower:g} times that of the schedule")
    return training.run.epoch + training.is_epoch_closed()
