"""Trainer: builds the training step of each phase and runs it on batches."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from finetune.distributed.world import SINGLE_PROCESS
from finetune.network import heads
from finetune.network.network import Network, Tail, assign_values, is_statistic, read_values
from finetune.recipe.models import AdamW, Recipe
from finetune.training import optimizers, step
from finetune.training.optimizers import LossScale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from finetune.data.loader import Batch
    from finetune.distributed.world import World
    from finetune.network.network import Stages
    from finetune.training.data_sink import Sink
    from finetune.training.phases import Phase
    from finetune.training.prepare import Prepared
    from finetune.training.step import TrainStep

    Arrays = tuple[NDArray[np.float32] | np.float32, ...]


class Trainer:
    """Trains a network: ``enter`` a phase, then ``step`` through batches, in all processes at the same time.

    ``updates`` counts the optimizer's updates in this phase, since each phase has an optimizer of its own.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        *,
        features: int,
        images: int,
        amp: str,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.recipe, self.network, self.world = recipe, network, world
        self.features = features
        # A backbone may have constants, which no phase trains.
        self.learnt = {p.name: p.requires_grad and not is_statistic(p) for p in network.get_parameters()}
        self.scaling = LossScale() if amp == "O2" else None
        self._overflows = 0
        self.steps_per_epoch = math.ceil(images / (recipe.train.batch * recipe.train.accumulate))
        self.average = self._make_average() if recipe.train.ema is not None else {}
        self.updates, self.global_step = 0, 0
        self.slower = 1.0  # factor on the learning rate after rollbacks
        self._sink: Sink | None = None
        self.phase: Phase | None = None

    @classmethod
    def for_network(cls, prepared: Prepared) -> Trainer:
        """Return the trainer of a run."""
        return cls(
            prepared.plan.recipe,
            prepared.network,
            features=prepared.plan.backbone.component.features,
            images=len(prepared.data.train),
            amp=prepared.device.amp,
            world=prepared.world,
        )

    def _make_average(self) -> dict[str, Parameter]:
        copies = ParameterTuple(self.network.get_parameters()).clone(prefix="average", init="same")
        return {p.name: copy for p, copy in zip(self.network.get_parameters(), copies, strict=True)}

    def enter(self, phase: Phase, first: int = 0, matmul_form: Stages | None = None) -> None:
        """Freeze all stages except the phase's, and build optimizer and step for those.

        The inputs of the step are those of stage number ``first``: images, or features of the frozen stages before it.
        ``matmul_form`` are the stages that compute in matmul form, if any.
        """
        self.phase, self.updates = phase, 0
        self.end_sink()
        for parameter in self.network.get_parameters():
            parameter.requires_grad = self.learnt[parameter.name] and parameter.name.split(".", 1)[0] in phase.trainable
        trainable = [p for p in self.network.get_parameters() if p.requires_grad]
        self.optimizer = optimizers.build_optimizer(self.recipe.optimizer, trainable, self.network.names)
        averaged = [p for p in self.network.get_parameters_of(phase.trainable) if p.name in self.average]
        average = [self.average[p.name] for p in averaged]
        self._scale = Parameter(to_scalar(self.scaling.value), name="scale") if self.scaling else None
        gradients = step.Gradients(Tail(self.network, first, matmul_form), trainable, self._scale, self.world.size)
        update: nn.Cell = step.Update(self.optimizer, self.recipe.train.clip_norm, averaged, average)
        update = step.Guarded(update, self.world.size) if self.scaling else update
        self.training_mode()
        moving = [p for p in self.network.get_parameters_of(phase.trainable) if is_statistic(p)]
        apart = moving and self.recipe.freeze.batch_norm != "frozen" and not self.recipe.train.sync_batch_norm
        self._averaged = step.Averaged(moving, self.world.size) if apart and self.world.size > 1 else None
        if self.recipe.train.accumulate == 1:
            self._whole = step.TrainStep(gradients, update)
        else:
            buffers = ParameterTuple(trainable).clone(prefix="sum", init="zeros")
            self._accumulate = step.Accumulate(gradients, buffers)
            self._apply = step.UpdateFromBuffers(update, buffers)

    def training_mode(self) -> None:
        """Put stages into the modes of the phase, after evaluation has put all of them into evaluation mode."""
        assert self.phase is not None
        frozen = self.recipe.freeze.batch_norm == "frozen"
        self.network.set_modes(self.phase.trainable, frozen_batch_norm=frozen)

    def step(self, batches: Sequence[Batch], epoch: int, number: int) -> float:
        """Make one optimizer step from one or more batches; return the mean loss of their images before the step.

        ``number`` counts the steps of the epoch from 0; together with the seed it determines all randomness. In mixed
        precision, a step whose gradients overflow changes only the loss scale.
        """
        self.global_step = step = self.locate_step(epoch, number)
        count = sum(batch.count for batch in batches)
        if self.recipe.train.accumulate == 1:
            summed, done = self._whole(*to_tensors(self.make_arguments(batches[0], step, self.updates + 1)))
            loss = float(summed.asnumpy())
        else:
            inputs = (self._make_inputs(batch, count, step, i) for i, batch in enumerate(batches))
            loss = sum(float(self._accumulate(*to_tensors(each)).asnumpy()) for each in inputs)
            done = self._apply(*to_tensors(self._make_scalars(step, self.updates + 1)))
        if self._averaged is not None:
            self._averaged()
        self.updates += self._finish_steps(done)
        return loss

    def locate_step(self, epoch: int, number: int) -> int:
        """Return the number of an epoch's step, counted from 0 over all epochs."""
        return (epoch - 1) * self.steps_per_epoch + number

    def run_sink(self, steps: int, sink: Callable[[TrainStep, int], Sink]) -> list[float]:
        """Start ``steps`` steps with inputs from a data sink, then return the mean loss of each.

        ``sink`` opens the data sink at the first call in a phase, given the step and the number of updates so far. In
        mixed precision all steps have the same loss scale, and a step that overflows counts as an update.
        """
        if self._sink is None:
            self._sink = sink(self._whole, self.updates)
        begun = []
        for _ in range(steps):
            begun.append(self._sink())
            if self._averaged is not None:
                self._averaged()
        losses = [float(loss.asnumpy()) for loss, _ in begun]
        for _, done in begun:
            self._finish_steps(done)
        self.updates += steps
        return losses

    def end_sink(self) -> None:
        """Close the data sink, if one is open."""
        if self._sink is not None:
            self._sink.close()
        self._sink = None

    def _finish_steps(self, done: Tensor) -> bool:
        """Return whether a step was made, and adjust the loss scale."""
        if self.scaling is None:
            return True
        finite = bool(done.asnumpy())
        self.update_loss_scale(self.scaling.after_steps(finite=finite))
        return finite

    def update_loss_scale(self, scaling: LossScale) -> None:
        """Set the loss scale."""
        self.scaling = scaling
        if self._scale is not None and float(self._scale.asnumpy()) != scaling.value:
            self._scale.set_data(to_scalar(scaling.value))

    def take_overflows(self, say: Callable[[str], None]) -> dict[str, int]:
        """In mixed precision, return how many steps of the run overflowed, and report new ones with ``say``."""
        if self.scaling is None:
            return {}
        steps = self.scaling.overflows - self._overflows
        self._overflows = self.scaling.overflows
        if steps:
            scale = f"the loss scale is now {self.scaling.value:g}"
            many = "1 step" if steps == 1 else f"{steps} steps"
            say(f"{many} overflowed in float16 and had no effect; {scale}")
        return {"overflows": self._overflows}

    def make_arguments(self, batch: Batch, step: int, update: int) -> Arrays:
        """Return the inputs of a step with one batch; ``step`` counts over the run, ``update`` in the phase.

        These are images or features (N, …), targets (N, classes), their count, the dropout mask, the learning rate,
        powers of the betas, and decay of the moving average. They do not depend on weights, so they can be made ahead.
        """
        return *self._make_inputs(batch, batch.count, step, 0), *self._make_scalars(step, update)

    def _make_inputs(self, batch: Batch, count: int, step: int, position: int) -> Arrays:
        assert batch.targets is not None
        at = step * self.recipe.train.accumulate + position
        every = len(batch.images) * self.world.size
        mask = heads.draw_dropout_mask(self.recipe.head, self.features, every, self.recipe.seed, at)
        if len(mask) > 1:
            mask = np.ascontiguousarray(np.array_split(mask, self.world.size)[self.world.rank])
        return batch.images, batch.targets, np.float32(count), mask

    def _make_scalars(self, step: int, update: int) -> Arrays:
        """Return learning rate, powers of the betas, and decay of the moving average."""
        beta1, beta2 = self.recipe.optimizer.betas if isinstance(self.recipe.optimizer, AdamW) else (0.0, 0.0)
        # A new average decays faster, so that the initial weights do not dominate it.
        ema = min(self.recipe.train.ema or 0.0, (1 + step) / (10 + step))
        return tuple(np.float32(each) for each in (self.compute_rate(step), beta1**update, beta2**update, ema))

    def compute_rate(self, step: int | None = None) -> float:
        """Return the head's learning rate at a step, by default the current one."""
        section, at = self.recipe.schedule, self.global_step if step is None else step
        factor = optimizers.compute_factor(section, at, self.steps_per_epoch, self.recipe.train.length)
        factor *= optimizers.compute_phase_factor(section, self.phase, at, self.steps_per_epoch)
        return self.recipe.optimizer.rate * factor * self.slower

    def compute_rates(self) -> dict[str, float]:
        """Return the learning rate of each stage that trains."""
        assert self.phase is not None
        names = self.network.names
        return {
            s: self.compute_rate() * optimizers.compute_layer_scale(self.recipe.optimizer, s, names)
            for s in self.phase.trainable
        }

    def read_arrays(self, *, kept: bool = False) -> dict[str, NDArray[np.float32]]:
        """Return network, optimizer and moving average by name, as in a checkpoint; valid until the next step.

        ``kept`` copies the arrays that this phase changes, so that all of them are valid until the phase ends.
        """
        assert self.phase is not None
        frozen = self.network.get_parameters_of(name for name in self.network.names if name not in self.phase.trainable)
        parts = {"network": self.network.get_parameters(), "optimizer": self._read_optimizer_state()}
        found = {f"{part}/{name}": a for part, ps in parts.items() for name, a in read_values(ps).items()}
        found |= {f"average/{name}": a for name, a in self.read_average().items()}
        changing = found.keys() - {f"network/{p.name}" for p in frozen} if kept else ()
        return found | {name: found[name].copy() for name in changing}

    def restore(self, part: Callable[[str], Mapping[str, NDArray[np.float32]]], updates: int) -> None:
        """Restore everything that ``read_arrays`` returned, by ``part(prefix)``; the phase must have been entered."""
        assign_values(self.network.get_parameters(), part("network"))
        assign_values(self._read_optimizer_state(), part("optimizer"))
        average = part("average")
        for name, parameter in self.average.items():
            parameter.set_data(Tensor(average[name]))
        self.updates = updates

    def restore_what_fits(self, part: Callable[[str], Mapping[str, NDArray[np.float32]]], updates: int) -> bool:
        """Restore the network, and the optimizer and the moving average if their shapes match.

        Returns whether the optimizer was restored. A new moving average starts with the weights.
        """
        network, state, average = part("network"), part("optimizer"), part("average")
        own = {p.name: tuple(p.shape) for p in self._read_optimizer_state()}
        fits = own == {name: array.shape for name, array in state.items()}
        assign_values(self.network.get_parameters(), network)
        if fits:
            assign_values(self._read_optimizer_state(), state)
        for name, parameter in self.average.items():
            parameter.set_data(Tensor(average.get(name, network[name])))
        self.updates = updates if fits else 0
        return fits

    def _read_optimizer_state(self) -> list[Parameter]:
        own = {id(p) for p in self.network.get_parameters()}
        return [p for p in self.optimizer.get_parameters() if id(p) not in own]

    def read_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights to evaluate and save, valid until the next step: the moving average if there is one."""
        return read_values(self.network.get_parameters()) | self.read_average()

    def read_average(self) -> dict[str, NDArray[np.float32]]:
        """Return the moving average of weights by name; empty if there is none."""
        return {name: p.asnumpy() for name, p in self.average.items()}

    def hash_frozen(self) -> dict[str, str]:
        """Return a digest of every array that must not change in this phase."""
        assert self.phase is not None
        names = [name for name in self.network.names if name not in self.phase.trainable]
        watched = self.network.get_parameters_of(names)
        if self.recipe.freeze.batch_norm == "frozen":
            watched += [p for p in self.network.get_parameters_of(self.phase.trainable) if is_statistic(p)]
        return {p.name: hash_array(p.asnumpy()) for p in watched}


def to_tensors(arrays: Arrays) -> tuple[Tensor, ...]:
    """Convert arrays to tensors; those of images share memory with the arrays."""
    return tuple(Tensor.from_numpy(each) if each.ndim > 1 else Tensor(each) for each in arrays)


def to_scalar(value: float) -> Tensor:
    """Return a 0-d float32 tensor."""
    return Tensor(np.float32(value))


def hash_array(array: NDArray[np.float32]) -> str:
    """Return a hash of an array's bytes."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
