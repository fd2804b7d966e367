"""Augmentations of a plan: what each does to an image, named after its plugin, and their native form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import PluginError

if TYPE_CHECKING:
    import numpy as np

    from finetune.catalogue import Catalogue
    from finetune.components import Augmentation, ImageSpec, Pixels, Transform
    from finetune.recipe.plan import Chosen, Plan


def transform(chosen: Chosen[Augmentation], image: ImageSpec, catalogue: Catalogue) -> Transform:
    """Return what one augmentation of the recipe does."""
    found: Transform = catalogue.call(chosen.component, "build", chosen.component.build, chosen.options, image)
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
    found = catalogue.call(chosen.component, "native", make, chosen.options, image)
    return None if found is None else list(found)
