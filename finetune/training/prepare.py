"""Everything that must stand before the first step: data, weights, device, network, phases, plugins of the run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.components import ImageSpec, Options
from finetune.data import heldback, splitfile, targets
from finetune.data import loading as datas
from finetune.data.scan import told
from finetune.devices import device as devices
from finetune.devices import forms
from finetune.errors import PluginError, UsageError
from finetune.files.promise import public
from finetune.machine.cores import usable_cores
from finetune.parallel import launch
from finetune.parallel import world as worlds
from finetune.plugins import HERE, Origin, Plugins, named
from finetune.training import batchsize, choosing, constant, phases, preflight, start, trial
from finetune.trunk import engines
from finetune.weights import fetching, labels, loading, preprocessing, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np

    from finetune.catalogue import Catalogue
    from finetune.components import Augmentation, Pixels, Transform
    from finetune.data.loading import Data
    from finetune.data.scan import Progress
    from finetune.data.splits import Method
    from finetune.model.model import Model
    from finetune.model.network import Network, Stages
    from finetune.parallel.world import World
    from finetune.recipe.models import Recipe
    from finetune.recipe.plan import Chosen, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that could begin."""

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
    products: Stages | None
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
    """Check and build what a run needs, cheapest first; whatever is wrong is raised before anything is written.

    Where the weights are gone, the run in ``resume`` says what they asked for. Of several processes the first looks at
    weights and data before the others, which find what it downloaded and noted, and it alone has plugins. ``tried``
    is how many images of each split are put through the pipelines.
    """
    plan = batchsize.resumed(plan, resume, catalogue)
    recipe = plan.recipe
    for note in plan.notes:
        say(note)
    preflight.check_device(plan)
    workers = usable_cores() if recipe.runner.workers == "auto" else recipe.runner.workers
    planned = plan_phases(plan, catalogue)
    world = meet(plan, planned, resume)
    plugins = run_plugins(plan, catalogue, watchers)
    asked = plan.backbone.component.options
    load = partial(load_data, plan, catalogue, workers, told(say), method=split_method(resume))
    # A mistake in the data is not to cost a download; weights that are here are looked at first, which takes no time.
    downloads = world.from_first(sources.must_download(recipe.backbone.weights, plan.backbone.component))
    data = world.in_turn(load) if downloads else None
    source, begun = world.in_turn(lambda: start.found(partial(resolve, plan, plugins, say), resume, asked, say))
    options = begun.options if begun else backbone_options(plan, source)
    classes = (begun.classes if begun else labels.kept(source, say)) if keeps_head(plan) else None
    expected = preprocessing.find_preprocessing(source, plan.backbone.component)
    image = begun.image if begun else image_spec(plan, expected, say)
    transforms = tuple(transform(chosen, image, catalogue) for chosen in plan.augment)
    data = data or world.in_turn(load)
    if source is not None and resume is None:
        heldback.warn_of_overlap(source.path, data, say)
    if source is not None and classes is not None:
        labels.check(source, classes, data.classes)
    if classes is not None and {*data.classes} <= {*classes}:
        data = datas.relabelled(data, classes)
    constant.check_options(plan, data, catalogue, say)
    targets.class_weights(recipe.loss.class_weights, data.train.labels, data.classes)
    check_mixing(recipe, len(data.train), world.size)
    with world.together():
        if world.first:
            trial.try_images(data, trial.Trial(spec=image, transforms=transforms, seed=recipe.seed, most=tried))
    device = device_for(plan, planned, resume, say)
    if recipe.trunk.engine == "openvino" and (reason := engines.unavailable(device.name)):
        raise UsageError(f"trunk.engine=openvino cannot be used: {reason}; write trunk.engine=auto")
    if device.odd:
        say(f"warning: {device.why}")
    network, report = build_network(plan, catalogue, options, source, len(data.classes), keep_head=keeps_head(plan))
    if catalogue.origin(plan.backbone.component).foreign:
        guarded(
            catalogue, plan.backbone.component, "stages", network.check_features, plan.backbone.component, image.size
        )
    world.same_everywhere(list(network.get_parameters()))
    size = {"side": image.size, "images": len(data.train)}
    plan = batchsize.settled(plan, network, planned, **size, world=world, say=say)
    check_mixing(plan.recipe, len(data.train), world.size)
    if device.amp == "O2":
        mixed_precision(network)
    synchronised = world.size > 1 and recipe.train.sync_batch_norm
    if synchronised:
        from finetune.parallel.batchnorm import synchronise

        synchronise(network, world.size)
    from finetune.model.network import product_form

    return Prepared(
        plan=plan,
        plugins=plugins if world.first else Plugins(),
        data=data,
        image=image,
        transforms=transforms,
        native=partial(native_operations, plan, image, catalogue),
        device=device,
        world=world,
        workers=workers,
        network=network,
        products=None if synchronised else product_form(plan.backbone.component, network, device.forms),
        backbone_options=options,
        phases=planned,
        weights=begun.weights if begun else report | {"preprocessing": expected.report()},
    )


def check_mixing(recipe: Recipe, images: int, processes: int) -> None:
    """Raise ``UsageError`` where mixup or cutmix would never find a second image to blend with.

    A batch size that is yet to be chosen counts as large enough.
    """
    used = [name for name in ("mixup", "cutmix") if getattr(recipe.train, name)]
    size = recipe.train.batch_size
    if used and min(images, images if size == "auto" else size // processes) < 2:
        each = " of each device" * (processes > 1)
        what = f"it blends pairs of images, and a batch{each} has one"
        raise UsageError(f"train.{used[0]} has no effect: {what}; raise train.batch_size or set train.{used[0]}=0")


def meet(plan: Plan, planned: Sequence[phases.Phase], resume: Path | None) -> World:
    """Return the processes that train together: this one alone, unless MindSpore's launcher started it."""
    if not worlds.is_member():
        return worlds.ALONE
    device_for(plan, planned, resume, lambda message: None)  # it is reported later, by the first process alone
    world = worlds.join()
    launch.fits(plan.recipe, world.size)
    return world


def device_for(
    plan: Plan, planned: Sequence[phases.Phase], resume: Path | None, say: Callable[[str], None]
) -> devices.Device:
    """Set up the device for what a plan trains on it, and report the form that each stage trains in."""
    backbone, stages = plan.backbone.component, choosing.trained_stages(plan, planned)
    device = devices.for_runner(plan.recipe.runner, choosing.forms_for(plan, stages, resume))
    if device.name != "cpu":
        return device
    if device.forms.uncapped and backbone.products is None:
        text = f"{backbone.name}: convolutions are slow in this process, which was set up for another network"
        say(f"{text}; start a new process")
    if backbone.products is not None and stages:
        say(forms.describe(stages, device.forms))
    return device


def plan_phases(plan: Plan, catalogue: Catalogue) -> tuple[phases.Phase, ...]:
    """Return the phases that the recipe's freezing policy gives."""
    freezer, stages = plan.freezer.component, (*plan.backbone.component.stages, "head")
    policy = guarded(catalogue, freezer, "build", freezer.build, plan.freezer.options)

    def answer(epoch: int, names: tuple[str, ...]) -> frozenset[str]:
        found = guarded(catalogue, freezer, "policy", policy, epoch, names)
        if isinstance(found, str) or not isinstance(found, Iterable) or not all(isinstance(s, str) for s in found):
            got = f"returned {found!r:.80}, not stages; return a set of names, such as {{'head'}}"
            raise PluginError(got)
        return frozenset(found)

    with named(catalogue.origin(freezer), f"policy of freezer '{freezer.name}'"):
        return phases.plan(answer, stages, plan.recipe.train.epochs, name=freezer.name)


def run_plugins(plan: Plan, catalogue: Catalogue, watchers: Sequence[object]) -> Plugins:
    """Return a manager of this run's own: installed plugins, the recipe's callbacks in their order, and watchers."""
    plugins = catalogue.plugins.copy()
    for watcher in watchers:
        name = type(watcher).__name__.lower()
        plugins.register(watcher, Origin(name=name, distribution=HERE, version="-"))
    for chosen in reversed(plan.callbacks):  # the last registered is called first
        callback = guarded(catalogue, chosen.component, "build", chosen.component.build, chosen.options)
        if not any(name.startswith("finetune_") for name in dir(callback)):
            got = f"build of callback '{chosen.component.name}' returned {callback!r:.80}, which has no event hook"
            raise PluginError(f"{catalogue.origin(chosen.component)}: {got}; give it one, such as finetune_epoch_end")
        plugins.register(callback, catalogue.origin(chosen.component))
    return plugins


def transform(chosen: Chosen[Augmentation], image: ImageSpec, catalogue: Catalogue) -> Transform:
    """Return what one augmentation of the recipe does."""
    found: Transform = guarded(catalogue, chosen.component, "build", chosen.component.build, chosen.options, image)
    if not callable(found):
        got = f"build of augmentation '{chosen.component.name}' returned {found!r:.80}, not a function"
        raise PluginError(f"{catalogue.origin(chosen.component)}: {got}; return one of pixels and a generator")
    origin = catalogue.origin(chosen.component)
    return Attributed(found, f"'{chosen.component.name}' of {origin}", origin.remedy) if origin.foreign else found


@dataclass(frozen=True, slots=True)
class Attributed:
    """An augmentation of an installed plugin, which failures are to name."""

    transform: Transform
    name: str
    remedy: str

    @property
    def certain(self) -> Transform:
        """Return the augmentation with all that it does by chance, as far as it offers that."""
        certain = getattr(self.transform, "certain", None)
        return self if certain is None else Attributed(certain, self.name, self.remedy)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Return what the augmentation makes of an image."""
        return self.transform(pixels, rng)


def native_operations(plan: Plan, image: ImageSpec, catalogue: Catalogue) -> list[Any] | None:
    """Return the recipe's augmentation as operations of MindSpore's pipeline, None where there are none."""
    if len(plan.augment) != 1 or (make := plan.augment[0].component.native) is None:
        return None
    (chosen,) = plan.augment
    found = guarded(catalogue, chosen.component, "native", make, chosen.options, image)
    return None if found is None else list(found)


def guarded(catalogue: Catalogue, component: Any, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a component's function; what it raises names its plugin."""
    with named(catalogue.origin(component), f"{what} of {component.kind} '{component.name}'"):
        return function(*arguments)


def resolve(plan: Plan, plugins: Plugins, say: Callable[[str], None]) -> sources.Source | None:
    """Return the file of the plan's weights, None for a random start; what should be known of it is said."""
    source = sources.resolve(plan.recipe.backbone.weights, plan.backbone.component, fetching.asking(plugins))
    if source is not None and source.note:
        say(source.note)
    return source


def keeps_head(plan: Plan) -> bool:
    """Tell whether the classifier of the weights is kept."""
    return getattr(plan.recipe.head, "keep_pretrained", False)


def split_method(resume: Path | None) -> Method:
    """Return how the run in a folder split its images, for it to keep its split."""
    if resume is None:
        return "hash"
    try:
        about = json.loads((resume / "data.json").read_text(encoding="utf-8"))
        return "stratified" if about["split"]["method"] == "stratified" else "hash"
    except (OSError, ValueError, KeyError, TypeError):  # runs of earlier versions have no split.csv
        return "hash" if (resume / splitfile.NAME).exists() else "stratified"


def load_data(plan: Plan, catalogue: Catalogue, workers: int, progress: Progress, *, method: Method = "hash") -> Data:
    """Return the data of a plan, scanned, split and with one class map."""
    chosen, recipe = plan.dataset, plan.recipe
    with named(catalogue.origin(chosen.component), f"build of dataset '{chosen.component.name}'"):
        whose = f"{origin}: " if (origin := catalogue.origin(chosen.component)).foreign else ""
        return datas.load(
            chosen.component,
            chosen.options,
            recipe.dataset,
            recipe.seed,
            workers,
            progress,
            whose=whose,
            method=method,
            color=recipe.image.color,
        )


def image_spec(plan: Plan, expected: preprocessing.Preprocessing, say: Callable[[str], None]) -> ImageSpec:
    """Return the preprocessing: what the recipe says, and for ``auto`` what the weights expect.

    Where what the weights expect is not certain, that is said, unless the recipe states it.
    """
    section, defaults = plan.recipe.image, ImageSpec(**expected.image)
    said = {name: getattr(section, name) for name in ImageSpec.__slots__}
    auto = {name for name, value in said.items() if value == "auto"}
    if message := expected.message(auto):
        say(message)
    spec = {name: getattr(defaults, name) if name in auto else value for name, value in said.items()}
    if "resize" in auto and "size" not in auto:  # keep the share of the picture that the crop shows
        spec["resize"] = round(spec["size"] * defaults.resize / defaults.size)
    if spec["resize"] < spec["size"]:
        raise UsageError(f"image.resize={spec['resize']} is smaller than image.size={spec['size']}; make it larger")
    return ImageSpec(**spec)


def backbone_options(plan: Plan, source: sources.Source | None) -> Options:
    """Return the backbone's options, those that belong to its weights filled in where the recipe is silent."""
    chosen = plan.backbone
    if source is None:
        return chosen.options
    belonging = loading.peek(source, chosen.component)
    said = {name: getattr(chosen.options, name) for name in chosen.options.model_fields_set}
    silent = {name: value for name, value in belonging.items() if said.get(name, "auto") == "auto"}
    return chosen.component.options.model_validate({**said, **silent})


def build_network(
    plan: Plan, catalogue: Catalogue, options: Options, source: sources.Source | None, classes: int, *, keep_head: bool
) -> tuple[Network, dict[str, Any]]:
    """Return the network with its pretrained weights in place, and the report on them."""
    import mindspore as ms

    from finetune.model import heads
    from finetune.model.network import HEAD, Network, assign, build_stages

    component, recipe = plan.backbone.component, plan.recipe
    ms.set_seed(recipe.seed)
    stages = guarded(catalogue, component, "build", build_stages, component, options)
    network = Network(stages, heads.build(recipe.head, component.features, classes, recipe.seed))
    if source is None:
        return network, {"source": "none", "loaded": [], "reinitialised": [p.name for p in network.get_parameters()]}
    expected = {p.name: tuple(p.shape) for p in network.get_parameters()}
    head = frozenset(p.name for p in network.parameters_of([HEAD]))
    loaded = loading.load(source, component, expected, head=head, keep_head=keep_head)
    assign((p for p in network.get_parameters() if p.name in loaded.tensors), loaded.tensors)
    return network, loaded.report | origin(source)


def origin(source: sources.Source) -> dict[str, Any]:
    """Return what is known of where weights come from: ``verified`` says what their hash was compared with."""
    about: dict[str, Any] = {"verified": source.verified}
    if source.record is not None:
        about |= {key: getattr(source.record, key) for key in ("licence", "citation", "accuracy")}
        about |= {"origin": source.record.source, "address": public(source.record.url)}
    return about


def mixed_precision(network: Network) -> None:
    """Let the network compute in float16, BatchNorm and what follows the logits in float32; weights stay float32."""
    import mindspore as ms

    ms.amp.auto_mixed_precision(network, "O2")


def pretrained(plan: Plan, catalogue: Catalogue, *, head: bool = False, say: Callable[[str], None] = print) -> Model:
    """Return the pretrained network of a plan without training it: good for ``embed``, and with ``head`` to predict.

    With ``head`` it has the classifier and the classes of its weights, else a random classifier of one class.
    """
    from finetune.model.model import Model
    from finetune.model.network import product_form

    device = devices.for_runner(plan.recipe.runner)
    source = resolve(plan, catalogue.plugins.copy(), say)
    options = backbone_options(plan, source)
    classes = labels.kept(source, say) if head else ("-",)
    network, report = build_network(plan, catalogue, options, source, len(classes), keep_head=head)
    expected = preprocessing.find_preprocessing(source, plan.backbone.component)
    report |= {"preprocessing": expected.report()}
    about = {"classes": list(classes), "features": plan.backbone.component.features, "weights": report, "metrics": {}}
    return Model(
        network=network,
        about=about,
        image=image_spec(plan, expected, say),
        catalogue=catalogue,
        products=product_form(plan.backbone.component, network, device.forms),
        trunk=plan.recipe.trunk,
        device=device.name,
        say=say,
    )
