"""Optimizers as cells over the parameters that train; the learning rate is an input of every step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from finetune.errors import DivergedError
from finetune.recipe.models import AdamW, Constant, Cosine, Sgd, StepDecay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.training.phases import Phase


class AdamWUpdate(nn.Cell):
    """AdamW (Loshchilov and Hutter 2019): Adam with bias correction and decoupled weight decay."""

    def __init__(self, section: AdamW, parameters: Sequence[Parameter], scales: Sequence[float]) -> None:
        super().__init__(auto_prefix=False)
        self.parameters_ = ParameterTuple(parameters)
        self.first = self.parameters_.clone(prefix="first", init="zeros")
        self.second = self.parameters_.clone(prefix="second", init="zeros")
        self.scales = tuple(scales)
        self.decays = tuple(section.weight_decay if decays(p) else 0.0 for p in parameters)
        self.beta1, self.beta2 = section.betas
        self.eps = section.eps
        self.kernel = ops.Adam()

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor, power1: Tensor, power2: Tensor) -> Tensor:
        """Update every parameter in place."""
        for i in range(len(self.scales)):
            parameter = self.parameters_[i]
            lr = rate if self.scales[i] == 1.0 else rate * self.scales[i]
            if self.decays[i] > 0.0:
                ops.assign(parameter, parameter * (1.0 - lr * self.decays[i]))
            moments = (self.first[i], self.second[i])
            self.kernel(parameter, *moments, power1, power2, lr, self.beta1, self.beta2, self.eps, gradients[i])
        return rate


class SgdUpdate(nn.Cell):
    """SGD with momentum; weight decay is added to the gradient."""

    def __init__(self, section: Sgd, parameters: Sequence[Parameter], scales: Sequence[float]) -> None:
        super().__init__(auto_prefix=False)
        self.parameters_ = ParameterTuple(parameters)
        self.velocity = self.parameters_.clone(prefix="velocity", init="zeros")
        self.scales = tuple(scales)
        self.decays = tuple(section.weight_decay if decays(p) else 0.0 for p in parameters)
        self.momentum = section.momentum
        self.kernel = ops.ApplyMomentum()

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor, power1: Tensor, power2: Tensor) -> Tensor:
        """Update every parameter in place."""
        for i in range(len(self.scales)):
            parameter = self.parameters_[i]
            gradient = gradients[i]
            if self.decays[i] > 0.0:
                gradient = gradient + parameter * self.decays[i]
            self.kernel(parameter, self.velocity[i], rate * self.scales[i], gradient, self.momentum)
        return rate


def build_optimizer(section: AdamW | Sgd, parameters: Sequence[Parameter], stages: tuple[str, ...]) -> nn.Cell:
    """Build the optimizer of a recipe for ``parameters``; ``stages`` are all stages of the network, head last."""
    scales = [compute_layer_scale(section, str(p.name).split(".", 1)[0], stages) for p in parameters]
    if isinstance(section, AdamW):
        return AdamWUpdate(section, parameters, scales)
    return SgdUpdate(section, parameters, scales)


def compute_layer_scale(section: AdamW | Sgd, stage: str, stages: tuple[str, ...]) -> float:
    """Return the factor on a stage's learning rate: 1 for the head, times ``layer_decay`` for each stage below."""
    return float(section.layer_decay ** (len(stages) - 1 - stages.index(stage)))


def decays(parameter: Parameter) -> bool:
    """Return whether weight decay applies: to layer weights, not to biases and norms, which have one axis."""
    return len(parameter.shape) > 1


def compute_factor(section: Cosine | StepDecay | Constant, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the factor on the learning rate at optimizer step ``step``, counted from 0 over the complete run.

    Warm-up rises linearly and reaches 1 at its last step. The cosine schedule is that of SGDR (Loshchilov and Hutter
    2017) without restarts.
    """
    warmup = round(section.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if isinstance(section, Cosine):
        progress = (step - warmup) / max(1, epochs * steps_per_epoch - warmup)
        return section.final + (1.0 - section.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if isinstance(section, StepDecay):
        return section.gamma ** (step // (section.every * steps_per_epoch))
    return 1.0


def compute_phase_factor(
    section: Cosine | StepDecay | Constant, phase: Phase | None, step: int, steps_per_epoch: int
) -> float:
    """Return the warm-up factor of the phase at a step of the run; 1 if only the head trains."""
    if phase is None or phase.trainable == ("head",):
        return 1.0
    first, steps = (phase.first - 1) * steps_per_epoch, (phase.last - phase.first + 1) * steps_per_epoch
    warmup = round(section.phase_warmup * steps)
    return min(1.0, (step - first + 1) / warmup) if step >= first and warmup else 1.0


START = 2.0**10
LARGEST = 2.0**24
PATIENCE = 1000  # steps without an overflow until the scale is doubled


@dataclass(frozen=True, slots=True)
class LossScale:
    """``value`` multiplies the loss before float16 gradients are taken (Micikevicius et al. 2018).

    ``good`` counts the steps since the last change, ``overflows`` all skipped steps. The scale is a power of two, so
    scaling is exact.
    """

    value: float = START
    good: int = 0
    overflows: int = 0

    def after_steps(self, *, finite: bool) -> LossScale:
        """Return the scale after a step; raises ``DivergedError`` if no scale is small enough."""
        if not finite and self.value <= 1.0:
            remedy = "lower optimizer.lr or set runner.amp=off"
            raise DivergedError(f"the gradients are not finite at any loss scale; {remedy}")
        if not finite:
            return LossScale(value=self.value / 2.0, overflows=self.overflows + 1)
        if self.good + 1 >= PATIENCE and self.value < LARGEST:
            return replace(self, value=self.value * 2.0, good=0)
        return replace(self, good=self.good + 1)

    def to_json(self) -> dict[str, float]:
        """Return the scale for a checkpoint."""
        return asdict(self)
