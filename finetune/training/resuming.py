"""Back to a checkpoint: when a run is resumed, and when it is rolled back after it diverged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.errors import DivergedError, FinetuneError, UsageError
from finetune.run import Best
from finetune.training import changes, records, saving, settling
from finetune.training.optimizers import LossScale

if TYPE_CHECKING:
    from finetune.training.session import Session

ROLLBACKS = 3  # in one run, after which something else is wrong


def has_checkpoint(session: Session) -> bool:
    """Tell whether the run was killed after its first checkpoint; before that, it restarts in the same folder."""
    found: bool = session.world.from_first(
        bool(saving.steps(session.saver.folder)) or (session.saver.folder / saving.BEST).exists()
    )
    trained: bool = session.world.from_first(records.has_trained(session.run.folder))
    if not found and not trained:
        session.run.say("no checkpoint yet; restarting the run in its folder")
    return found or trained  # a run that trained and lost its checkpoints cannot be resumed, which is an error


def resume(session: Session) -> None:
    """Continue from the newest checkpoint that can be read; raises what forbids it."""
    with session.world.together():
        saved, broken = saving.newest(session.saver.folder)
    for problem in broken:
        session.run.say(f"not used: {problem}")
    steps = session.world.gather(saved.state["step"])
    if len({*steps}) > 1:
        raise UsageError(f"the machines of this run see different checkpoints, of steps {steps}; share the run folder")
    folder = session.run.folder
    if not session.extended:  # which leaves open what the run has not measured
        settling.adopt(session, saved.state["recipe"])
    changed = changes.check_same(
        saved.state,
        session.prepared,
        session.run.say,
        folder=folder,
        allow=session.allow_changed,
        extended=session.extended,
    )
    restore(session, saved, changed=changed)
    if changed and session.run.best and changes.is_judged_differently(saved.state, session.prepared):
        session.run.best = None
        session.run.say("the best epoch is chosen from the epochs that follow: earlier ones were judged differently")
    if session.extended:
        extend(session)
    if changed or session.extended:
        session.save_changed()
    elif session.world.first and changes.is_moved(saved.state, session.prepared):
        records.write_recipe(session.prepared, folder)
        records.write_data(session.prepared, folder)
    where = f"{session.done} of the {session.run.steps_per_epoch} steps of epoch {session.run.epoch}"
    session.run.say(f"resumed after step {session.run.step}: {where}")


def extend(session: Session) -> None:
    """Let a finished run continue to train, and say what that means for the learning rate."""
    run, first = session.run, session.run.epoch + session.epoch_is_closed()
    run.stop_reason = None
    if session.recipe.optimizer.lr == "auto":  # of a run that only fitted its head
        rate = "the learning rate is measured"
    else:
        rate = f"the learning rate continues at {session.trainer.rate(session.trainer.at(first, 0)):.2g}"
    schedule = f"the schedule is computed over all {session.epochs} epochs; {rate}"
    epochs = f"epochs {first} to {session.epochs}" if first < session.epochs else f"epoch {first}"
    run.say(f"extending {run.folder}: {epochs}; {schedule}")


def restore(session: Session, saved: saving.Checkpoint, *, changed: bool = False) -> None:
    """Put the whole state of a checkpoint in place; where the recipe ``changed``, as much of it as fits."""
    state, run = saved.state, session.run
    run.epoch = state["epoch"]
    session.enter(session.phase(run.epoch))
    if changed:
        adapt(session, saved)
    else:
        session.trainer.restore(saved.part, state["updates"])
    session.feed.frozen.settle()
    session.trainer.global_step = max(0, state["step"] - 1)
    if session.trainer.scaling and state.get("scaling"):  # older checkpoints do not say it
        session.trainer.rescale(LossScale(**state["scaling"]))
        session.trainer.overflowed(lambda message: None)
    session.fitted = state.get("fitted")
    run.history, run.step, run.state = state["history"], state["step"], state["plugins"]
    run.best = Best(**state["best"]) if state["best"] else None
    session.frozen = session.trainer.frozen() if changed else state["frozen"]
    session.seconds, run.stop_reason = state["seconds"], state["stop_reason"]
    session.done, session.loss_sum, session.images = state["done"], state["loss_sum"], state["images"]
    session.slow_down(state.get("rollbacks", 0))  # older checkpoints do not say it
    if changed and not session.epoch_is_closed():
        session.done = 0
    if session.world.first:
        records.keep_history(session.prepared, run)
        saving.relink_best(session.saver.folder, saved, best=session.is_best())


def adapt(session: Session, saved: saving.Checkpoint) -> None:
    """Take the weights of a checkpoint into a run whose recipe changed; what else does not fit is reset."""
    network = {p.name: tuple(p.shape) for p in session.network.get_parameters()}
    if {name: array.shape for name, array in saved.part("network").items()} != network:
        raise UsageError("the changed recipe makes another network than the run's; start a new run")
    if not session.trainer.restore_what_fits(saved.part, saved.state["updates"]):
        session.run.say("optimizer state reset: the recipe uses a different optimizer")
    state = saved.state
    is_closed = bool(state["history"]) and state["history"][-1]["epoch"] == state["epoch"]
    if state["done"] and not is_closed:
        session.run.say(f"restarting epoch {state['epoch']}: its steps may have changed")


def rollback(session: Session, error: DivergedError) -> int:
    """Go back to the newest checkpoint with half the learning rate; return the epoch to go on with.

    Raises ``error`` where the recipe does not want that, there is no checkpoint, or it was done too often.
    """
    if session.recipe.train.on_nonfinite != "rollback":
        raise error
    session.saver.flush()
    session.tell()
    session.world.wait()
    times = session.rollbacks + 1
    if times > ROLLBACKS:
        raise DivergedError(f"{error}; {ROLLBACKS} rollbacks did not help") from error
    try:
        saved, _ = saving.newest(session.saver.folder)
    except FinetuneError:
        raise DivergedError(f"{error}; there is no checkpoint to roll back to yet") from error
    restore(session, saved)
    session.slow_down(times)
    session.run.say(f"warning: {error}")
    back = f"rolled back to step {session.run.step}"
    session.run.say(f"{back}; the learning rate is {session.trainer.slower:g} of the schedule's from here on")
    return session.run.epoch + session.epoch_is_closed()
