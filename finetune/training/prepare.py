"""Preparation of a run: data, weights, device, network, phases and plugins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.data import heldback, targets
from finetune.data import loading as datas
from finetune.data.scan import make_progress
from finetune.distributed import launch
from finetune.distributed import world as worlds
from finetune.errors import PluginError, UsageError
from finetune.machine import device as devices
from finetune.machine import forms
from finetune.machine.environment import count_usable_cores
from finetune.model import modelfolder
from finetune.network import engines
from finetune.plugins import HERE, Origin, Plugins
from finetune.training import (
    batchsize,
    choosing,
    constant,
    defaults,
    frozen_stages,
    phases,
    preflight,
    pretrained,
    records,
    saving,
    trial,
)
from finetune.weights import fetching, labels, preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.components import ImageSpec, Options, Transform
    from finetune.data.loading import Data
    from finetune.distributed.world import World
    from finetune.network.network import Network, Stages
    from finetune.recipe.models import Recipe
    from finetune.recipe.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that a run needs to start."""

    plan: Plan
    plugins: Plugins
    data: Data
    image: ImageSpec
    transforms: tuple[Transform, ...]
    native: Callable[[], list[Any] | None]
    device: devices.Device
    world: World
    workers: int
    network: Network
    matmul_form: Stages | None
    backbone_options: Options
    phases: tuple[phases.Phase, ...]
    weights: dict[str, Any]


def prepare(
    plan: Plan,
    catalogue: Catalogue,
    *,
    resume: Path | None = None,
    watchers: Sequence[object] = (),
    say: Callable[[str], None] = print,
    tried: int = trial.RUN,
) -> Prepared:
    """Check and build everything that a run needs, cheapest first; errors are raised before anything is written.

    If the weights are missing, the run in ``resume`` provides their settings. With several processes, the first loads
    weights and data before the others, which reuse its downloads and caches, and only the first has plugins. ``tried``
    is the number of images of each split to test the pipelines with.
    """
    if resume is None:  # a resumed run has a complete recipe without defaults to report
        for note in plan.notes:
            say(note)
    preflight.check_device(plan)
    planned = plan_phases(plan)
    plan, asked = defaults.settle_start(plan, planned, say, resumed=resume is not None), plan
    world = join_processes(plan, planned, resume)
    plugins = collect_plugins(plan, catalogue, watchers)
    inputs = gather_inputs(plan, plugins, world, resume=resume, say=say)
    plan = defaults.settle_length(plan, planned, inputs.data, world.size, say)
    planned = plan_phases(plan)
    check_inputs(plan, inputs, world, tried=tried, say=say, asked=asked.recipe)
    device = prepare_device(plan, planned, resume, say)
    check_device(plan, device, say)
    network, report = build_network(plan, inputs, world)
    if asked.recipe.train.batch_size == "auto":
        plan = batchsize.fit_memory(plan, network, planned, side=inputs.image.size, world=world, say=say)
    records.check_mixing(plan.recipe, len(inputs.data.train), world.size)
    return Prepared(
        plan=plan,
        plugins=plugins if world.is_main else Plugins(),
        data=inputs.data,
        image=inputs.image,
        transforms=inputs.transforms,
        native=partial(frozen_stages.build_native_operations, plan, inputs.image),
        device=device,
        world=world,
        workers=inputs.workers,
        network=network,
        matmul_form=adapt_network(network, plan, device, world),
        backbone_options=inputs.options,
        phases=planned,
        weights=inputs.begun.weights if inputs.begun else report | {"preprocessing": inputs.expected.report()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of a run: weights and the preprocessing that they expect, data and transforms.

    ``begun`` replaces weights that are missing; ``classes`` are those of a pretrained classifier that is kept.
    """

    source: fetching.Source | None
    begun: saving.Start | None
    options: Options
    expected: preprocessing.Preprocessing
    image: ImageSpec
    transforms: tuple[Transform, ...]
    classes: tuple[str, ...] | None
    data: Data
    workers: int


def gather_inputs(
    plan: Plan,
    plugins: Plugins,
    world: World,
    *,
    resume: Path | None,
    say: Callable[[str], None],
) -> Inputs:
    """Load the weights and the data of a plan, in the order that finds mistakes fastest."""
    recipe, backbone = plan.recipe, plan.backbone.component
    workers = count_usable_cores() if recipe.runner.workers == "auto" else recipe.runner.workers
    method = records.read_split_method(resume)
    load = partial(records.load_data, plan, workers, make_progress(say), method=method)
    # Load data before a download, so that a mistake in the data does not cost one; weights on disk are checked first.
    downloads = world.broadcast(fetching.must_download(recipe.backbone.weights, backbone))
    data = world.main_process_first(load) if downloads else None
    resolve = partial(pretrained.resolve_weights, plan, plugins, say)
    source, begun = world.main_process_first(lambda: saving.find_start(resolve, resume, backbone.options, say))
    keeps = pretrained.keeps_head(plan)
    classes = (begun.classes if begun else labels.keep_classes(source, say)) if keeps else None
    expected = preprocessing.find_preprocessing(source, backbone)
    if not expected.certain and (image := saving.read_image(resume)):  # as when the run started
        expected = replace(expected, image=modelfolder.record_image(image), certain=True)
    image = begun.image if begun else pretrained.choose_image_spec(plan, expected, say)
    transforms = tuple(frozen_stages.build_transform(chosen, image) for chosen in plan.augment)
    data = data or world.main_process_first(load)
    if source is not None and resume is None:
        heldback.warn_of_overlap(source.path, data, say)
    if source is not None and classes is not None:
        labels.check_classes(source, classes, data.classes)
    if classes is not None and {*data.classes} <= {*classes}:
        data = datas.relabel_data(data, classes)
    return Inputs(
        source=source,
        begun=begun,
        options=begun.options if begun else pretrained.choose_backbone_options(plan, source),
        expected=expected,
        image=image,
        transforms=transforms,
        classes=classes,
        data=data,
        workers=workers,
    )


def check_inputs(
    plan: Plan,
    inputs: Inputs,
    world: World,
    *,
    tried: int,
    say: Callable[[str], None],
    asked: Recipe,
) -> None:
    """Raise the errors that would stop a run on this data: options, class weights, mixing, images that fail.

    ``asked`` is the recipe before ``auto`` values were chosen by the data.
    """
    recipe, data = plan.recipe, inputs.data
    constant.check_options(plan, data, say, asked)
    targets.compute_class_weights(recipe.loss.class_weights, data.train.labels, data.classes)
    records.check_mixing(recipe, len(data.train), world.size)
    with world.collective():
        if world.is_main:
            trial.try_images(
                data, trial.Trial(spec=inputs.image, transforms=inputs.transforms, seed=recipe.seed, most=tried)
            )


def check_device(plan: Plan, device: devices.Device, say: Callable[[str], None]) -> None:
    """Raise ``UsageError`` for an engine that the device does not support; warn if a better device is unusable."""
    if plan.recipe.inference.engine == "openvino" and (reason := engines.explain_unavailable(device.name)):
        raise UsageError(f"inference.engine=openvino cannot be used: {reason}; set inference.engine=auto")
    if device.odd:
        say(f"warning: {device.why}")


def build_network(plan: Plan, inputs: Inputs, world: World) -> tuple[Network, dict[str, Any]]:
    """Build the network, equal in all processes, and the report on its weights; a plugin's backbone is checked."""
    backbone, classes = plan.backbone, len(inputs.data.classes)
    keeps = pretrained.keeps_head(plan)
    network, report = pretrained.build_network(plan, inputs.options, inputs.source, classes, keep_head=keeps)
    if backbone.origin.foreign:
        backbone.call("stages", network.check_features, backbone.component, inputs.image.size)
    world.broadcast_parameters(list(network.get_parameters()))
    return network, report


def adapt_network(network: Network, plan: Plan, device: devices.Device, world: World) -> Stages | None:
    """Adapt a network to the device and the processes; return the stages that train in matmul form, if any."""
    from finetune.network.network import build_matmul_form

    if device.amp == "O2":
        pretrained.set_mixed_precision(network)
    if world.size > 1 and plan.recipe.train.sync_batch_norm:
        from finetune.network.batchnorm import synchronise_batch_norm

        synchronise_batch_norm(network, world.size)
        return None
    return build_matmul_form(plan.backbone.component, network, device.forms)


def join_processes(plan: Plan, planned: Sequence[phases.Phase], resume: Path | None) -> World:
    """Connect to the processes that train together; a process without MindSpore's launcher is alone."""
    if not worlds.is_worker():
        return worlds.SINGLE_PROCESS
    prepare_device(plan, planned, resume, lambda message: None)  # reported later, only by the first process
    world = worlds.join_processes()
    launch.check_size(plan.recipe, world.size)
    return world


def prepare_device(
    plan: Plan, planned: Sequence[phases.Phase], resume: Path | None, say: Callable[[str], None]
) -> devices.Device:
    """Set up the device for the stages that a plan trains, and report the form of each stage."""
    backbone, stages = plan.backbone.component, choosing.find_trained_stages(plan, planned)
    device = choosing.set_up_device(plan.recipe.runner, choosing.choose_forms(plan, stages, resume))
    if device.name != "cpu":
        return device
    if device.forms.uncapped and backbone.matmul_form is None:
        text = f"{backbone.name}: convolutions are slow in this process, which was set up for a different network"
        say(f"{text}; start a new process")
    if backbone.matmul_form is not None and stages:
        say(forms.describe_forms(stages, device.forms))
    return device


def plan_phases(plan: Plan) -> tuple[phases.Phase, ...]:
    """Return the phases of the recipe's freezing policy, for ``HORIZON`` epochs if their number is not chosen yet.

    A head that starts fitted has a phase of its own, epoch 0.
    """
    train = plan.recipe.train
    epochs = defaults.HORIZON if train.epochs == "auto" else train.epochs
    freezer, stages = plan.freezer, (*plan.backbone.component.stages, "head")
    policy = freezer.build()

    def answer(epoch: int, names: tuple[str, ...]) -> frozenset[str]:
        found = freezer.call("policy", policy, epoch, names)
        if isinstance(found, str) or not isinstance(found, Iterable) or not all(isinstance(s, str) for s in found):
            got = f"returned {found!r:.80}, not stages; return a set of names, such as {{'head'}}"
            raise PluginError(got)
        return frozenset(found)

    with freezer.attribute("policy"):
        planned = phases.plan(answer, stages, epochs, name=freezer.component.name)
    return (phases.FITTING, *planned) if train.epochs != "auto" and defaults.is_fitted(plan.recipe) else planned


def collect_plugins(plan: Plan, catalogue: Catalogue, watchers: Sequence[object]) -> Plugins:
    """Return the plugin manager of this run: installed plugins, the recipe's callbacks in order, and watchers."""
    plugins = catalogue.plugins.copy()
    for watcher in watchers:
        name = type(watcher).__name__.lower()
        plugins.register(watcher, Origin(name=name, distribution=HERE, version="-"))
    for chosen in reversed(plan.callbacks):  # the last registered is called first
        callback = chosen.build()
        if not any(name.startswith("finetune_") for name in dir(callback)):
            got = f"build of callback '{chosen.component.name}' returned {callback!r:.80}, which has no event hook"
            raise PluginError(f"{chosen.origin}: {got}; add one, such as finetune_epoch_end")
        plugins.register(callback, chosen.origin)
    return plugins
