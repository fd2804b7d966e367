"""The frozen stages of a phase: what computes them, and everything that decides on the bits of what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.features import identity
from finetune.features.keeping import Wanted
from finetune.model import modelfolder
from finetune.network import engines
from finetune.network.network import Trunk

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from finetune.network.engines import Engine
    from finetune.training.prepare import Prepared

    Sample = Callable[[], NDArray[np.float32]]

NAMES = {"train": "training", "valid": "validation", "test": "test"}
PLAIN = 0  # the view of evaluation; the augmented ones count from 1


class Frozen:
    """The first ``first`` stages of a network; ``sample`` returns a few of its images, (N, 3, side, side)."""

    def __init__(self, prepared: Prepared, first: int, sample: Sample, say: Callable[[str], None]) -> None:
        self.prepared, self.first, self.say = prepared, first, say
        self.chunk = engines.chunk_for(prepared.device.name)
        self._sample = sample
        self._engine: Engine | None = None
        self._weights: str | None = None
        self._shape: tuple[int, ...] | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages."""
        return tuple(self.prepared.network.names[: self.first])

    @property
    def settled(self) -> bool:
        """Tell whether the weights have been looked at."""
        return self._weights is not None

    def settle(self) -> None:
        """Note the weights of the stages, which the network holds now."""
        self._weights = self._digest()

    def fits(self) -> bool:
        """Tell whether the network holds the weights that were noted, if any were."""
        return self._weights is None or self._weights == self._digest()

    def _digest(self) -> str:
        parameters = self.prepared.network.parameters_of(self.stages)
        return identity.of_arrays((p.name, p.asnumpy()) for p in parameters)

    def engine(self) -> Engine:
        """Return what computes the stages."""
        if self._engine is None:
            network, products = self.prepared.network, self.prepared.products
            cell, own = Trunk(network, self.first), products and Trunk(network, self.first, products)
            section, device = self.prepared.plan.recipe.trunk, self.prepared.device.name
            self._engine = engines.build(cell, self._sample(), section, self.say, own=own, device=device)
            self._engine.backend.settle()
        return self._engine

    def rest(self) -> None:
        """Take as little memory as can be until the engine is asked for again."""
        if self._engine is not None:
            self._engine.backend.rest()

    def expect(self, shape: tuple[int, ...]) -> None:
        """Take the shape of one image's features from what is kept of them."""
        self._shape = shape

    def shape(self) -> tuple[int, ...]:
        """Return the shape of one image's features."""
        if self._shape is None:
            engine = self.engine()
            self._shape = engine.shape or tuple(engine(self._sample()).shape[1:])
        return self._shape

    def wanted(self, part: str, view: int) -> Wanted:
        """Return the entry of the cache that holds, or would hold, the features of a view of a part."""
        labelled = getattr(self.prepared.data, part)
        about = {
            "versions": identity.versions(),
            "trunk": self._trunk(),
            "engine": self.computes(),
            "image": modelfolder.image_record(self.prepared.image),
            "images": identity.of_images(labelled),
            "view": self._augmentation(view) if view != PLAIN else "plain",
        }
        name = f"{NAMES[part]} photos" + (f", view {view}" if view != PLAIN else "")
        return Wanted(about=about, count=len(labelled), name=name)

    def _trunk(self) -> dict[str, Any]:
        if self._weights is None:
            self.settle()
        component, options = self.prepared.plan.backbone.component, self.prepared.backbone_options
        return {
            "stages": list(self.stages),
            "pooled": self.first == len(self.prepared.network.stages),
            "backbone": [component.name, options.model_dump(mode="json"), identity.of_code(component)],
            "amp": self.prepared.device.amp,
            "weights": self._weights,
        }

    def computes(self) -> dict[str, Any]:
        """Return what computes the stages, as far as it decides on bits."""
        device, recipe = self.prepared.device, self.prepared.plan.recipe
        about = self._engine.about if self._engine else engines.expected(recipe.trunk, device.name)
        own = {"isa": device.isa, "products": self._form()} if about["name"] == "mindspore" else {}
        return {**about, **own, "device": device.name, "processor": identity.processor()}

    def _form(self) -> bool | list[str]:
        """Return whether all stages are in matmul form, or which of the frozen ones are."""
        products = self.prepared.products or {}
        if len(products) == len(self.prepared.network.stages):
            return True
        return [stage for stage in self.stages if stage in products] or False

    def _augmentation(self, view: int) -> dict[str, Any]:
        plan = self.prepared.plan
        steps = [(each.component, each.options.model_dump(mode="json", by_alias=True)) for each in plan.augment]
        said = [[component.name, options, identity.of_code(component)] for component, options in steps]
        return {"seed": plan.recipe.seed, "number": view, "augment": said}
