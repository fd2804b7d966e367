"""Choice of the device of a run, and of the form in which each of its stages trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.components import ImageSpec
from finetune.distributed import world as worlds
from finetune.features import identity
from finetune.machine import cpu, forms, speeds
from finetune.machine import device as devices
from finetune.machine.forms import Forms, Tail
from finetune.machine.kind import Settings
from finetune.machine.memory import read_available_memory_mb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from finetune.recipe.plan import Plan
    from finetune.recipe.runners import Runner
    from finetune.training.phases import Phase

SHARE = 0.8  # of the free memory, since the estimate excludes weights and other memory of the process


def set_up_device(runner: Runner, stage_forms: Forms | None = None) -> devices.Device:
    """Set up the device that a recipe asks for, for stages that train in ``stage_forms``."""
    settings = Settings(
        mode=runner.mode,
        amp=runner.amp,
        forms=stage_forms or Forms(),
        threads=getattr(runner, "threads", 0) or 0,
        memory_gb=getattr(runner, "memory_gb", 0) or 0,
    )
    return devices.set_up(device=runner.device, settings=settings)


def find_trained_stages(plan: Plan, planned: Sequence[Phase]) -> tuple[str, ...]:
    """Return the stages from the first one that trains in any phase to the last, without the head."""
    stages = plan.backbone.component.stages
    trained = {name for phase in planned for name in phase.trainable}
    first = min((number for number, stage in enumerate(stages) if stage in trained), default=len(stages))
    return stages[first:]


def choose_forms(plan: Plan, stages: tuple[str, ...], resume: Path | None) -> Forms:
    """Return the forms in which ``stages`` train; a resumed run keeps its forms."""
    backbone, runner = plan.backbone.component, plan.recipe.runner
    if backbone.matmul_form is None or not stages:
        return Forms()
    if runner.mode != "graph" or runner.amp == "O2" or (worlds.is_worker() and plan.recipe.train.sync_batch_norm):
        return Forms(why="the matmul form needs graph mode, no mixed precision and no synchronised BatchNorm")
    isa, fixed = forms.find_strongest_isa(), cpu.is_uncapped()
    begun = None if resume is None else forms.read_forms(resume, backbone.stages, cpu.PRODUCTS)
    if begun is not None and (isa == "avx512" or not begun.uncapped):
        return begun
    # Several processes cannot agree on the free memory before they are connected.
    free = None if worlds.is_worker() else read_available_memory_mb()
    free = None if free is None or plan.recipe.train.batch_size == "auto" else SHARE * free
    return forms.choose_forms(describe_tail(plan, stages), isa, fixed=fixed, free_mb=free)


def describe_tail(plan: Plan, stages: tuple[str, ...]) -> Tail:
    """Return the speed and memory of ``stages`` of the plan's backbone, as far as they are known."""
    backbone, section = plan.backbone.component, plan.recipe.image
    side = ImageSpec().size if section.size == "auto" else section.size
    values = backbone.activations(plan.backbone.options, side) if backbone.activations is not None else {}
    batch = 1 if plan.recipe.train.batch_size == "auto" else plan.recipe.train.batch
    return Tail(
        stages=stages,
        table=frozenset(backbone.matmul_form_avx2),
        measured=speeds.read_speeds(backbone.name, identity.hash_code(backbone)),
        values={stage: batch * count for stage, count in values.items()},
    )
