"""Optimizers as cells over exactly the parameters that train; the learning rate comes in with every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from finetune.recipe.models import AdamW, Sgd

if TYPE_CHECKING:
    from collections.abc import Sequence


class AdamWUpdate(nn.Cell):
    """AdamW (Loshchilov and Hutter 2019): Adam with bias correction, and decay that does not pass through it."""

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


def build(section: AdamW | Sgd, parameters: Sequence[Parameter], stages: tuple[str, ...]) -> nn.Cell:
    """Return the optimizer of a recipe over ``parameters``; ``stages`` is the whole network's order, head last."""
    scales = [layer_scale(section, str(p.name).split(".", 1)[0], stages) for p in parameters]
    if isinstance(section, AdamW):
        return AdamWUpdate(section, parameters, scales)
    return SgdUpdate(section, parameters, scales)


def layer_scale(section: AdamW | Sgd, stage: str, stages: tuple[str, ...]) -> float:
    """Return the factor on a stage's learning rate: 1 for the head, ``layer_decay`` less for each stage below."""
    return float(section.layer_decay ** (len(stages) - 1 - stages.index(stage)))


def decays(parameter: Parameter) -> bool:
    """Tell whether weight decay applies: to weights of layers, not to biases and norms, which have one axis."""
    return len(parameter.shape) > 1
