"""Pretrained network of a plan: weights, backbone options, preprocessing and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.components import ImageSpec, Options
from finetune.errors import UsageError
from finetune.files.remote_file import strip_secrets
from finetune.training import choosing
from finetune.weights import fetching, labels, loading, preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.catalogue import Catalogue
    from finetune.model.model import Model
    from finetune.network.network import Network
    from finetune.plugins import Plugins
    from finetune.recipe.plan import Plan


def resolve_weights(plan: Plan, plugins: Plugins, say: Callable[[str], None]) -> fetching.Source | None:
    """Find the file of the plan's weights, None for a random start; report the source's note, if it has one."""
    source = fetching.resolve(
        plan.recipe.backbone.weights, plan.backbone.component, fetching.make_plugin_fetch(plugins)
    )
    if source is not None and source.note:
        say(source.note)
    return source


def keeps_head(plan: Plan) -> bool:
    """Return whether the classifier of the weights is kept."""
    return getattr(plan.recipe.head, "keep_pretrained", False)


def choose_image_spec(plan: Plan, expected: preprocessing.Preprocessing, say: Callable[[str], None]) -> ImageSpec:
    """Return the preprocessing: the values of the recipe, and for ``auto`` those that the weights expect.

    If it is uncertain what the weights expect, that is reported, unless the recipe sets the values.
    """
    section, defaults = plan.recipe.image, ImageSpec(**expected.image)
    values = {name: getattr(section, name) for name in ImageSpec.__slots__}
    auto = {name for name, value in values.items() if value == "auto"}
    if message := expected.message(auto):
        say(message)
    spec = {name: getattr(defaults, name) if name in auto else value for name, value in values.items()}
    if "resize" in auto and "size" not in auto:  # keep the share of the image that the crop shows
        spec["resize"] = round(spec["size"] * defaults.resize / defaults.size)
    if spec["resize"] < spec["size"]:
        raise UsageError(f"image.resize={spec['resize']} is smaller than image.size={spec['size']}; increase it")
    return ImageSpec(**spec)


def choose_backbone_options(plan: Plan, source: fetching.Source | None) -> Options:
    """Return the backbone's options; those that the recipe does not set are taken from the weights."""
    chosen = plan.backbone
    if source is None:
        return chosen.options
    belonging = loading.read_options(source, chosen.component)
    values = {name: getattr(chosen.options, name) for name in chosen.options.model_fields_set}
    silent = {name: value for name, value in belonging.items() if values.get(name, "auto") == "auto"}
    return chosen.component.options.model_validate({**values, **silent})


def build_network(
    plan: Plan, options: Options, source: fetching.Source | None, classes: int, *, keep_head: bool
) -> tuple[Network, dict[str, Any]]:
    """Build the network with its pretrained weights, and the report on them."""
    import mindspore as ms

    from finetune.network import heads
    from finetune.network.network import HEAD, Network, assign_values, build_stages

    component, recipe = plan.backbone.component, plan.recipe
    ms.set_seed(recipe.seed)
    stages = plan.backbone.call("build", build_stages, component, options)
    network = Network(stages, heads.build_head(recipe.head, component.features, classes, recipe.seed))
    if source is None:
        return network, {"source": "none", "loaded": [], "reinitialised": [p.name for p in network.get_parameters()]}
    expected = {p.name: tuple(p.shape) for p in network.get_parameters()}
    head = frozenset(p.name for p in network.get_parameters_of([HEAD]))
    loaded = loading.load(source, component, expected, head=head, keep_head=keep_head)
    assign_values((p for p in network.get_parameters() if p.name in loaded.tensors), loaded.tensors)
    return network, loaded.report | describe_origin(source)


def describe_origin(source: fetching.Source) -> dict[str, Any]:
    """Return the known facts about the origin of weights; ``verified`` tells what their hash was compared with."""
    about: dict[str, Any] = {"verified": source.verified}
    if source.record is not None:
        about |= {key: getattr(source.record, key) for key in ("licence", "citation", "accuracy")}
        about |= {"origin": source.record.source, "address": strip_secrets(source.record.url)}
    return about


def set_mixed_precision(network: Network) -> None:
    """Make the network compute in float16, except BatchNorm and everything after the logits; weights stay float32."""
    import mindspore as ms

    ms.amp.auto_mixed_precision(network, "O2")


def load_pretrained(
    plan: Plan, catalogue: Catalogue, *, head: bool = False, say: Callable[[str], None] = print
) -> Model:
    """Load the pretrained network of a plan without training it, for ``embed`` and, with ``head``, for ``predict``.

    With ``head`` it has the classifier and the classes of its weights, else a random classifier with one class.
    """
    from finetune.model.model import Model
    from finetune.network.network import build_matmul_form

    device = choosing.set_up_device(plan.recipe.runner)
    source = resolve_weights(plan, catalogue.plugins.copy(), say)
    options = choose_backbone_options(plan, source)
    classes = labels.keep_classes(source, say) if head else ("-",)
    network, report = build_network(plan, options, source, len(classes), keep_head=head)
    expected = preprocessing.find_preprocessing(source, plan.backbone.component)
    report |= {"preprocessing": expected.report()}
    about = {"classes": list(classes), "features": plan.backbone.component.features, "weights": report, "metrics": {}}
    return Model(
        network=network,
        about=about,
        image=choose_image_spec(plan, expected, say),
        catalogue=catalogue,
        matmul_form=build_matmul_form(plan.backbone.component, network, device.forms),
        inference=plan.recipe.inference,
        device=device.name,
        say=say,
    )
