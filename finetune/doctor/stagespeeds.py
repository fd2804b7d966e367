"""Stage speeds: times the training step of each stage of a backbone in both forms."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import ImageSpec
from finetune.machine import device
from finetune.machine.forms import CONVOLUTIONS, MATMUL, Forms
from finetune.machine.kind import Settings, import_mindspore

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.components import Backbone
    from finetune.network.network import Network

BATCH, ROUNDS = 8, 3
AVX512 = "avx512"


def time_stages(backbone: Backbone, *, uncapped: bool, side: int = ImageSpec().size) -> dict[str, dict[str, float]]:
    """Return milliseconds by kind and stage; ``uncapped`` times only the matmul form, with AVX-512.

    ``side`` is the side of the square images in pixels.
    """
    from finetune.network.network import Network, build_matmul_form, build_stages

    device.set_up(device="cpu", settings=Settings(forms=Forms(uncapped=uncapped)))
    ms = import_mindspore()
    network = Network(build_stages(backbone, backbone.options()), ms.nn.Identity())
    made = build_matmul_form(backbone, network, Forms(matmul=backbone.stages))
    rng = np.random.default_rng(0)
    given = rng.standard_normal((BATCH, 3, side, side), np.float32)
    kinds = {AVX512: made} if uncapped else {CONVOLUTIONS: None, MATMUL: made}
    found: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    for number, stage in enumerate(backbone.stages):
        steps = {kind: build_step(network, number, given, form) for kind, form in kinds.items()}
        for kind, milliseconds in time_in_turn(steps).items():
            found[kind][stage] = milliseconds
        given = compute_output(network, number, given, next(iter(kinds.values())))
    return found


def time_in_turn(steps: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the shortest time of each step in milliseconds; the steps alternate, after one call that compiles."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for step in steps.values():
        step()
    for _ in range(ROUNDS):
        for kind, step in steps.items():
            began = time.perf_counter()
            step()
            times[kind].append(time.perf_counter() - began)
    return {kind: round(1000 * min(each), 3) for kind, each in times.items()}


def build_step(network: Network, number: int, given: Any, form: Any) -> Callable[[], object]:
    """Return a function that computes a stage and its gradients, including the input's unless it is the first stage."""
    from finetune.network.network import Chain, is_statistic

    ms = import_mindspore()
    chain = Chain(network, slice(number, number + 1), form)
    chain.set_train(True)
    learnt = [p for p in chain.get_parameters() if p.requires_grad and not is_statistic(p)]

    def total(x: Any) -> Any:
        return chain(x).sum()

    differentiate = ms.value_and_grad(total, 0 if number else None, learnt)
    maps = ms.Tensor(given)
    return lambda: differentiate(maps)[0].asnumpy()


def compute_output(network: Network, number: int, given: Any, form: Any) -> Any:
    from finetune.network.network import Chain

    ms = import_mindspore()
    return Chain(network, slice(number, number + 1), form).set_train(False)(ms.Tensor(given)).asnumpy()
