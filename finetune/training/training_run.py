"""Training run: the state of a run and its steps."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data import targets
from finetune.data.loader import describe_batches
from finetune.errors import DivergedError, FinetuneError
from finetune.machine import environment
from finetune.model.metrics import is_better
from finetune.network import network
from finetune.network.network import read_values
from finetune.recipe import masking
from finetune.recipe import plan as plans
from finetune.run import Best
from finetune.training import data_sink, defaults, pictures, records
from finetune.training.frozen_stages import list_head_views
from finetune.training.judge import Judge
from finetune.training.phase_data import PhaseData
from finetune.training.saving import CheckpointWriter, NoCheckpointWriter, RunState, Snapshot
from finetune.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.components import Pixels
    from finetune.data.loader import Batch
    from finetune.model.evaluation import Evaluation
    from finetune.run import Predicted
    from finetune.training.phases import Phase
    from finetune.training.prepare import Prepared

Check = Callable[[], None]


class TrainingRun:
    """The state of one run; ``done`` counts the completed steps of the current epoch."""

    def __init__(
        self,
        prepared: Prepared,
        folder: Path,
        *,
        say: Callable[[str], None],
        resumed: bool,
        allow_changed: bool = False,
        extended: bool = False,
    ) -> None:
        # MindSpore writes dumps of graphs that fail to compile here instead of into the current folder.
        os.environ.setdefault("MS_OM_PATH", str(folder))
        self.prepared, self.recipe, self.data = prepared, prepared.plan.recipe, prepared.data
        self.plugins, self.network, self.resumed = prepared.plugins, prepared.network, resumed
        self.world = prepared.world
        self.allow_changed, self.extended = allow_changed, extended
        self.epochs = self.recipe.train.length
        self.trainer = Trainer.for_network(prepared)
        self.phase_data = PhaseData(prepared, self.compute_class_weights(), self._say)
        self.judge = Judge(prepared, self._say)
        self.done, self.loss_sum, self.images, self.seconds = 0, 0.0, 0, 0.0
        self.evaluation: Evaluation | None = None
        self.estimate: Evaluation | None = None  # out-of-fold estimate of the fitted head
        self.fitted: dict[str, Any] | None = None  # how the head was fitted
        self.frozen: dict[str, str] = {}
        self.compared, self.rollbacks, self.finishing = 0, 0, False
        self.unwritten = False  # whether the recipe has values that are not in its file yet
        self.sinking = 0  # steps per block that are sent to the device in this phase; 0 for single steps
        # Steps of a block that are made but not counted yet; None while their number is unknown.
        self.left: list[tuple[Sequence[Batch], float]] | None = []
        self.run = records.create_run(prepared, folder, say=say, resumed=resumed, steps=self.trainer.steps_per_epoch)
        self.saver = (CheckpointWriter if self.world.is_main else NoCheckpointWriter)(folder / "checkpoints", self._say)
        self.run._augmented = self._show_augmented
        self.run._predictions = self._show_predictions

    def compute_class_weights(self) -> NDArray[np.float32] | None:
        """Return the weight of each class in the loss; None if classes are not weighted."""
        return targets.compute_class_weights(self.recipe.loss.class_weights, self.data.train.labels, self.data.classes)

    def _show_augmented(self, count: int) -> list[Pixels]:
        return pictures.show_augmented(self.phase_data, max(1, self.run.epoch), self.prepared.image, count)

    def _show_predictions(self, count: int) -> list[Predicted]:
        return pictures.show_predictions(self.data, self.evaluation, self.prepared.image, count)

    def write_start(self) -> None:
        """Write the records of a new run."""
        if self.world.is_main:
            records.write_start(self.prepared, self.run)
        records.say_findings(self.data.report["findings"], self.run.say)

    def settle(self, section: str, **values: Any) -> None:
        """Set values that the recipe left ``auto``.

        They are written to a checkpoint before the run's ``recipe.yaml``, so that a run that is killed at any moment
        resumes with the same choice, or repeats it from the same state.
        """
        self.prepared = replace(self.prepared, plan=defaults.replace_values(self.prepared.plan, section, **values))
        self.recipe = self.trainer.recipe = self.prepared.plan.recipe
        self.phase_data.replace_recipe(self.prepared, self.compute_class_weights())
        self.run.recipe = masking.mask_recipe(self.recipe)
        self.run.recipe_text = environment.mask_secrets(plans.dump_plan(self.prepared.plan))
        self.unwritten = True

    def save_settled(self) -> None:
        """Write a checkpoint and then the recipe, if a value was chosen since the last time."""
        if self.unwritten:
            self.begin_to_save()
            self.saver.join()
            self.tell()
            self.write_settled()

    def write_settled(self) -> None:
        """Write the recipe, if a value was chosen since the last time."""
        if self.unwritten and self.world.is_main:
            records.write_recipe(self.prepared, self.run.folder)
        self.unwritten = False

    def reduce_interval(self, rollbacks: int) -> None:
        """Halve the learning rate once for each rollback of the run."""
        self.rollbacks, self.trainer.slower = rollbacks, 0.5**rollbacks

    def is_epoch_closed(self) -> bool:
        """Return whether the epoch is complete, with a line in the history."""
        return bool(self.run.history) and self.run.history[-1]["epoch"] == self.run.epoch

    def begin_epoch(self, epoch: int) -> None:
        """Enter the epoch and its phase; a new phase freezes its stages and builds its own optimizer."""
        if epoch != self.run.epoch:
            self.run.epoch, self.done = epoch, 0
        if self.done == 0:
            self.loss_sum, self.images = 0.0, 0
        phase = self.find_phase(epoch)
        if phase != self.trainer.phase:
            self.saver.join()
            self.check_frozen()
            self.enter(phase)
            self.frozen = self.trainer.hash_frozen()
        self.trainer.training_mode()
        self.run.checkpoint_keep = None
        self.began, self.images_before = time.monotonic(), self.images

    def find_phase(self, epoch: int) -> Phase:
        """Return the phase that an epoch belongs to."""
        return next(phase for phase in self.prepared.phases if phase.first <= epoch <= phase.last)

    def enter(self, phase: Phase) -> None:
        """Set up training step, data and evaluation of a phase."""
        first = len(network.find_trunk(self.network.names, phase.trainable))
        self.trainer.enter(phase, first, self.prepared.matmul_form)
        last, fits = phase == self.prepared.phases[-1], phase.number == 0
        epochs = () if fits else range(phase.first, phase.last + 1)
        self.phase_data.enter(first, epochs=epochs, last=last, fitted=list_head_views(self.recipe) if fits else ())
        default = self.prepared.device.kind.sink
        self.sinking = data_sink.count_steps(self.recipe, default, first, self._say)
        self.judge.reset()
        self.run.phase, self.run.trainable = phase.number, phase.trainable

    def iterate_blocks(self, epoch: int, check: Check) -> Iterator[list[list[Batch]]]:
        """Yield blocks of the remaining optimizer steps of the epoch, as batches, once all processes have theirs.

        A block has the steps that are sent to the device at once. ``check`` is called after each and may raise to stop.
        """
        size = self.recipe.train.accumulate
        if self.sinking:
            batches = self.phase_data.iterate_targets(epoch, self.done)
        else:
            batches = self.phase_data.iterate_training(epoch, self.done * size, check)
        steps = iter(lambda: list(islice(batches, size)), [])
        done = False
        while True:
            with self.world.collective():
                if done:
                    check()
                block = list(islice(steps, self.sinking or 1))
            if not block:
                return
            yield block
            done = True

    def train(self, block: Sequence[Sequence[Batch]]) -> Iterator[float]:
        """Train the steps of a block, and yield the loss of each; raises ``DivergedError`` if a loss is not finite."""
        epoch = self.run.epoch
        self.left = None if self.sinking else []
        if self.sinking:
            at = self.trainer.locate_step(epoch, self.done)
            open_sink = partial(
                data_sink.open_sink, self.prepared, self.trainer, self.phase_data, self.sinking, self._say, at
            )
            losses = self.trainer.run_sink(len(block), open_sink)
        else:
            losses = [self.trainer.step(batches, epoch, self.done + i) for i, batches in enumerate(block)]
        self.left = list(zip(block, losses, strict=True))
        while self.left:
            yield self._count_step(*self.left.pop(0))

    def _count_step(self, batches: Sequence[Batch], loss: float) -> float:
        self.trainer.global_step = self.trainer.locate_step(self.run.epoch, self.done)
        if not math.isfinite(loss):
            rate = self.trainer.compute_rate()
            where = f"in epoch {self.run.epoch}, step {self.run.step + 1}, at learning rate {rate:.3g}"
            raise DivergedError(
                f"the loss became {loss} {where}; lower optimizer.lr or set train.clip_norm=1.0 "
                f"(batch: {describe_batches(self.data.train, batches)})"
            )
        images = sum(batch.count for batch in batches)
        self.done, self.run.step = self.done + 1, self.run.step + 1
        self.loss_sum, self.images = self.loss_sum + loss * images, self.images + images
        self.run.learning_rates = self.trainer.compute_rates()
        return loss

    def end_epoch(self, check: Check) -> dict[str, Any]:
        """Evaluate if the recipe asks for it, update the best epoch, and return the line for ``metrics.jsonl``."""
        seconds = time.monotonic() - self.began
        epoch = self.run.epoch
        line: dict[str, Any] = {
            "epoch": epoch,
            "phase": self.run.phase,
            "trainable": list(self.run.trainable),
            "train_loss": self.loss_sum / self.images,
        }
        self._check_weights()
        if epoch % self.recipe.evaluate.every == 0 or epoch == self.epochs:
            line |= {f"val_{name}": value for name, value in self._evaluate(check).items()}
        line |= {"lr": self.trainer.compute_rate() if epoch else 0.0, **self.trainer.take_overflows(self.run.say)}
        line["images_per_second"] = round((self.images - self.images_before) / max(seconds, 1e-9), 2)
        line["seconds"] = round(time.monotonic() - self.began, 3)
        self.seconds += line["seconds"]
        self.run.history.append(line)
        if self.world.is_main:
            records.keep_history(self.prepared, self.run)
            records.log_line(self.run.folder, json.dumps(line))
        return line

    def agree(self, check: Check) -> None:
        """Share requests of the first process's plugins with all processes; ``check`` may raise to stop."""
        self.run.stop_reason = self.world.broadcast(self.run.stop_reason)
        with self.world.collective():
            check()

    def _check_weights(self) -> None:
        for name, array in read_values(p for p in self.network.get_parameters() if p.requires_grad).items():
            if not np.isfinite(array).all():
                raise DivergedError(f"weight '{name}' is not finite after epoch {self.run.epoch}; lower optimizer.lr")

    def _evaluate(self, check: Check) -> dict[str, float]:
        metric = self.recipe.evaluate.metric
        if self.data.valid is not None:
            with self.read_best_weights():
                others = bool(self.trainer.average)
                self.evaluation = self.judge.evaluate("valid", check, self.phase_data, others=others)
        elif self.run.epoch == 0 and self.estimate is not None:
            self.evaluation = self.estimate
        else:  # no images were held back, so no epoch can be chosen as the best
            self.run.best = None
            return {}
        if not all(map(math.isfinite, self.evaluation.metrics.values())):
            raise DivergedError(f"the validation loss is not finite in epoch {self.run.epoch}; lower optimizer.lr")
        self.run.confusion = self.evaluation.confusion
        value = self.evaluation.metrics[metric]
        if is_better(metric, value, self.run.best.value if self.run.best else None):
            self.run.best = Best(epoch=self.run.epoch, value=value)
        return self.evaluation.metrics

    def _say(self, message: str) -> None:
        self.run.say(message)

    def read_best_weights(self) -> records.SwappedWeights:
        """Put the moving average, if there is one, into the network inside a block."""
        if self.trainer.average:
            self.saver.join()
        return records.SwappedWeights(self.network, self.trainer.read_weights() if self.trainer.average else None)

    def save_step(self) -> None:
        """Start writing a checkpoint within an epoch, if a plugin asked for one."""
        self.tell()
        if self.run.checkpoint_keep is not None:
            self.begin_to_save()
        self.run.checkpoint_keep = None

    def save_epoch(self) -> None:
        """Write a checkpoint if a plugin asked for one, if the run ends, or to preserve the best weights."""
        last = self.run.epoch == self.epochs or self.run.stop_reason is not None
        best = self.is_best() and self.recipe.evaluate.restore_best
        if last:
            self.save()
            self.write_settled()
        elif self.unwritten:
            self.save_settled()
        elif (self.run.checkpoint_keep is not None or best) and self.saver.is_due():
            self.begin_to_save()
        elif best:
            self.saver.hold(self._take_snapshot(kept=True))
        self.tell()

    def begin_to_save(self) -> None:
        """Start writing a checkpoint of the current state in the background."""
        self.tell()
        self.saver.keep = self.run.checkpoint_keep or self.saver.keep
        self._check_weights()
        self.saver.begin(self._take_snapshot(kept=True))

    def save(self) -> None:
        """Write a checkpoint of the complete state, wait for it, and notify plugins."""
        if self.trainer.phase is None or self.finishing:
            return  # nothing was trained yet, or the network no longer has the last weights
        self.saver.keep = self.run.checkpoint_keep or self.saver.keep
        self._check_weights()
        self.saver.write(self._take_snapshot())
        self.tell()

    def save_changed(self) -> None:
        """Write the checkpoint and the records of a run that resumes with a different recipe or images."""
        with self.world.collective():
            if self.world.is_main:
                self.saver.write(self._take_snapshot())
                records.write_changed(self.prepared, self.run.folder)

    def tell(self) -> None:
        """Notify plugins of the checkpoints that were written since the last call."""
        for epoch, path, best in self.saver.take_finished():
            self.plugins.fire("finetune_checkpoint_saved", run=self.run, epoch=epoch, path=path, best=best)

    def save_after_error(self) -> None:
        """Write a checkpoint after a failure elsewhere, without plugins, and report where it is."""
        if self.run.step == 0 or self.finishing or not self.world.is_main:
            return
        if self.left is None:
            self.run.say("no checkpoint was saved within a block of steps; resume from the previous one")
            return
        try:
            while self.left:  # the weights are those at the end of the block
                self._count_step(*self.left.pop(0))
            self.saver.write(self._take_snapshot(strict=False))
        except FinetuneError as error:
            self.run.say(f"no checkpoint could be written: {error}")
        else:
            saved = f"saved step {self.run.step} in {self.saver.folder}"
            self.run.say(f"{saved}; resume with: finetune run --resume {self.run.folder}")

    def _take_snapshot(self, *, kept: bool = False, strict: bool = True) -> Snapshot:
        state = self._make_state(strict=strict).to_json()
        return Snapshot(self.trainer.read_arrays(kept=kept), state, best=self.is_best())

    def is_best(self) -> bool:
        """Return whether the run is at the end of its best epoch."""
        best = self.run.best
        return best is not None and best.epoch == self.run.epoch and self.is_epoch_closed()

    def _make_state(self, *, strict: bool) -> RunState:
        run = self.run
        return RunState(
            epoch=run.epoch,
            step=run.step,
            done=self.done,
            loss_sum=self.loss_sum,
            images=self.images,
            updates=self.trainer.updates,
            seconds=self.seconds,
            best=run.best,
            history=[dict(line) for line in run.history],
            fitted=self.fitted,
            plugins=records.copy_plugin_states(run.state, self.plugins.origins.values(), strict=strict),
            stop_reason=run.stop_reason,
            rollbacks=self.rollbacks,
            scaling=self.trainer.scaling.to_json() if self.trainer.scaling else None,
            frozen=self.frozen,
            identity=records.describe_identity(self.prepared),
        )

    def check_frozen(self) -> None:
        """Check that the frozen arrays of the current phase have not changed since it started."""
        if self.trainer.phase is None:
            return
        now = self.trainer.hash_frozen()
        self.compared += len(self.frozen)
        if changed := [name for name, before in self.frozen.items() if now[name] != before]:
            what = f"{len(changed)} frozen arrays changed in phase {self.run.phase}: {', '.join(changed[:5])}"
            raise FinetuneError(f"{what}; please report this bug")

    def close(self) -> None:
        """Stop the loaders' threads, and wait for a checkpoint that is being written."""
        self.saver.join()
        self.trainer.end_sink()
        self.phase_data.close()
