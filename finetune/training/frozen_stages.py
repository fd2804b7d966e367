"""Frozen stages of a phase: the engine that computes them, and everything that affects the bits of their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from finetune.errors import PluginError
from finetune.features import identity
from finetune.features.cache import GB, Request
from finetune.model import modelfolder
from finetune.network import engines
from finetune.network.network import Trunk

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from finetune.network.engines import Engine
    from finetune.recipe.models import Recipe
    from finetune.training.prepare import Prepared

    Sample = Callable[[], NDArray[np.float32]]
    from collections.abc import Mapping, Sequence

    Wants = Mapping[str, Sequence[Request]]
    from finetune.catalogue import Chosen
    from finetune.components import Augmentation, ImageSpec, Pixels, Transform
    from finetune.recipe.plan import Plan


def build_transform(chosen: Chosen[Augmentation], image: ImageSpec) -> Transform:
    """Build one augmentation of the recipe."""
    found: Transform = chosen.build(image)
    if not callable(found):
        got = f"build of augmentation '{chosen.component.name}' returned {found!r:.80}, not a function"
        raise PluginError(f"{chosen.origin}: {got}; return a function of pixels and a generator")
    origin = chosen.origin
    return PluginTransform(found, f"'{chosen.component.name}' of {origin}", origin.remedy) if origin.foreign else found


@dataclass(frozen=True, slots=True)
class PluginTransform:
    """An augmentation of an installed plugin, with the plugin's name for error messages."""

    transform: Transform
    name: str
    remedy: str

    @property
    def certain(self) -> Transform:
        """The augmentation with all its random steps always applied, if it offers that."""
        certain = getattr(self.transform, "certain", None)
        return self if certain is None else PluginTransform(certain, self.name, self.remedy)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return self.transform(pixels, rng)


def build_native_operations(plan: Plan, image: ImageSpec) -> list[Any] | None:
    """Return the recipe's augmentation as operations of MindSpore's pipeline; None if there are none."""
    if len(plan.augment) != 1 or (make := plan.augment[0].component.native) is None:
        return None
    (chosen,) = plan.augment
    found = chosen.call("native", make, chosen.options, image)
    return None if found is None else list(found)


LEAST = 0.1  # the fewest saved seconds to report


class Views:
    """The views of each part in the ``epochs`` of a phase; test images only have one in the ``last`` phase.

    ``fitted`` are additional views of the training images, which the head is fitted to.
    """

    def __init__(self, prepared: Prepared, epochs: Sequence[int], *, last: bool, fitted: Sequence[int] = ()) -> None:
        self.prepared, self.epochs, self.last, self.fitted = prepared, epochs, last, fitted
        recipe = prepared.plan.recipe
        self.mixes = bool(recipe.train.mixup or recipe.train.cutmix)
        self.count = max(1, min(recipe.cache.views, recipe.train.length)) if prepared.transforms else 1

    @property
    def most(self) -> int:
        """The number of augmented views: those that the head is fitted to, or those of a phase that trains."""
        return max(self.fitted, default=0) or self.count

    def view_of_epoch(self, epoch: int) -> int:
        """Return the view of the training images in an epoch."""
        return (epoch - 1) % self.count + 1

    def views_by_part(self) -> dict[str, Sequence[int]]:
        """Return the views of each part that could be cached, the most important part first."""
        trained = set() if self.mixes else {self.view_of_epoch(epoch) for epoch in self.epochs}
        views = sorted({*trained, *self.fitted})
        found: dict[str, Sequence[int]] = {"train": views} if views else {}
        if self.prepared.data.valid is not None:
            found["valid"] = [PLAIN]
        if self.last and self.prepared.data.test is not None:
            found["test"] = [PLAIN]
        return found

    def compute_sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """Return the size in bytes of the features of each part, given the shape of one image's features."""
        data = self.prepared.data
        return {
            name: len(views) * len(getattr(data, name)) * 2 * prod(shape)
            for name, views in self.views_by_part().items()
        }

    def format_count(self, views: Mapping[str, int]) -> str:
        """Format the numbers of images and views by part."""
        parts = []
        for name, count in views.items():
            several = (
                f" in {count} view{'' if count == 1 else 's'}" if name == "train" and self.prepared.transforms else ""
            )
            parts += [f"{len(getattr(self.prepared.data, name)):,} {NAMES[name]} images{several}"] if count else []
        return ", ".join(parts)


def select_fitting(sizes: Mapping[str, int], limit: int) -> frozenset[str]:
    """Return the parts that fit into ``limit`` bytes, in order of preference."""
    chosen: list[str] = []
    for name, size in sizes.items():
        if size <= limit:
            limit, chosen = limit - size, [*chosen, name]
    return frozenset(chosen)


def report_too_large(sizes: Mapping[str, int], chosen: frozenset[str], max_gb: float) -> list[str]:
    """Return messages about the parts that exceed the recipe's limit."""
    return [
        f"features of the {name} images are computed in every epoch: they need {size / GB:.3g} GB, "
        f"more than cache.max_gb={max_gb:g} allows"
        for name, size in sizes.items()
        if name not in chosen
    ]


def summarise_features(
    views: Views, wanted: Wants, computes: Mapping[str, Any], stage: str, *, keeps: bool
) -> list[str]:
    """Return messages about which features after a stage are cached, and which have to be computed."""
    known = {name: [each.find_seconds() for each in several] for name, several in wanted.items()}
    there = {name: sum(seconds is not None for seconds in each) for name, each in known.items()}
    lacks = {name: len(each) - there[name] for name, each in known.items()}
    by, notes = f"by {computes['name']} in {computes['precision'].replace('f32', 'fp32')}", []
    if any(there.values()):
        spent = sum(seconds for each in known.values() for seconds in each if seconds)
        what = views.format_count(there)
        saved = f"; about {spent:.1f} s saved" if spent >= LEAST else ""
        notes.append(f"features after {stage}: {what} reused, computed earlier {by}{saved}")
    if any(lacks.values()) and keeps:
        later = lacks.get("train", 0) > 1 and not views.fitted
        each = ", each view in the first epoch that uses it" if later else ""
        notes.append(f"features after {stage}: {views.format_count(lacks)} computed once and cached, {by}{each}")
    if not wanted or not keeps:
        notes.append(describe_streaming(stage, computes))
    return notes


def describe_streaming(stage: str, computes: Mapping[str, Any]) -> str:
    """Return the message about the engine of stages whose outputs are not cached."""
    by = f"{computes['name']} in {computes['precision'].replace('f32', 'fp32')}"
    return f"stages up to {stage} are computed in every epoch, by {by}"


NAMES = {"train": "training", "valid": "validation", "test": "test"}
PLAIN = 0  # the view of evaluation; the augmented ones count from 1


class FrozenStages:
    """The first ``first`` stages of a network; ``sample`` returns a few training images (N, 3, side, side)."""

    def __init__(self, prepared: Prepared, first: int, sample: Sample, say: Callable[[str], None]) -> None:
        self.prepared, self.first, self.say = prepared, first, say
        self.chunk = engines.choose_chunk(prepared.device.name)
        self._sample = sample
        self._engine: Engine | None = None
        self._weights: str | None = None
        self._shape: tuple[int, ...] | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages."""
        return tuple(self.prepared.network.names[: self.first])

    @property
    def settled(self) -> bool:
        """Whether the weights have been recorded."""
        return self._weights is not None

    def record_weights(self) -> None:
        """Record the current weights of the stages."""
        self._weights = self._hash_weights()

    def is_fitting(self) -> bool:
        """Return whether the network still has the recorded weights; True if none were recorded."""
        return self._weights is None or self._weights == self._hash_weights()

    def _hash_weights(self) -> str:
        parameters = self.prepared.network.get_parameters_of(self.stages)
        return identity.hash_arrays((p.name, p.asnumpy()) for p in parameters)

    def get_engine(self) -> Engine:
        """Return the engine that computes the stages, built on first use."""
        if self._engine is None:
            network, matmul_form = self.prepared.network, self.prepared.matmul_form
            cell, own = Trunk(network, self.first), matmul_form and Trunk(network, self.first, matmul_form)
            section, device = self.prepared.plan.recipe.inference, self.prepared.device.name
            self._engine = engines.build_engine(cell, self._sample(), section, self.say, own=own, device=device)
            self._engine.backend.settle()
        return self._engine

    def release_engine(self) -> None:
        """Free as much memory as possible until the engine is used again."""
        if self._engine is not None:
            self._engine.backend.rest()

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Set the shape of one image's features, as known from the cache."""
        self._shape = shape

    def find_shape(self) -> tuple[int, ...]:
        """Return the shape of one image's features."""
        if self._shape is None:
            engine = self.get_engine()
            self._shape = engine.shape or tuple(engine(self._sample()).shape[1:])
        return self._shape

    def make_request(self, part: str, view: int) -> Request:
        """Return the cache request for the features of a view of a part."""
        labelled = getattr(self.prepared.data, part)
        about = {
            "versions": identity.list_versions(),
            "trunk": self._describe_trunk(),
            "engine": self.describe_engine(),
            "image": modelfolder.record_image(self.prepared.image),
            "images": identity.hash_images(labelled),
            "view": self._describe_augmentation(view) if view != PLAIN else "plain",
        }
        name = f"{NAMES[part]} images" + (f", view {view}" if view != PLAIN else "")
        return Request(about=about, count=len(labelled), name=name)

    def _describe_trunk(self) -> dict[str, Any]:
        if self._weights is None:
            self.record_weights()
        component, options = self.prepared.plan.backbone.component, self.prepared.backbone_options
        return {
            "stages": list(self.stages),
            "pooled": self.first == len(self.prepared.network.stages),
            "backbone": [component.name, options.model_dump(mode="json"), identity.hash_code(component)],
            "amp": self.prepared.device.amp,
            "weights": self._weights,
        }

    def describe_engine(self) -> dict[str, Any]:
        """Return everything about the engine and the processor that affects the bits of features."""
        device, recipe = self.prepared.device, self.prepared.plan.recipe
        about = self._engine.about if self._engine else engines.describe_expected(recipe.inference, device.name)
        own = {"isa": device.isa, "products": self._describe_form()} if about["name"] == "mindspore" else {}
        return {**about, **own, "device": device.name, "processor": identity.describe_processor()}

    def _describe_form(self) -> bool | list[str]:
        """Return True if all stages are in matmul form, else the frozen stages that are, or False if none is."""
        matmul_form = self.prepared.matmul_form or {}
        if len(matmul_form) == len(self.prepared.network.stages):
            return True
        return [stage for stage in self.stages if stage in matmul_form] or False

    def _describe_augmentation(self, view: int) -> dict[str, Any]:
        plan = self.prepared.plan
        steps = [(each.component, each.options.model_dump(mode="json", by_alias=True)) for each in plan.augment]
        about = [[component.name, options, identity.hash_code(component)] for component, options in steps]
        return {"seed": plan.recipe.seed, "number": view, "augment": about}


def list_head_views(recipe: Recipe) -> tuple[int, ...]:
    """Return the views of each training image to fit the head to: the plain one, then augmented ones."""
    count = getattr(recipe.head, "views", 0)
    return (PLAIN, *range(1, count + 1))
