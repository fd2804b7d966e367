"""What a phase is fed: images, or the features of its frozen trunk, kept from earlier epochs and runs or streamed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from finetune.data import targets
from finetune.data.loader import Batch, Loader
from finetune.data.seeding import Stream, generator
from finetune.model import modelfolder
from finetune.model.network import Trunk
from finetune.trunk import engines, identity
from finetune.trunk.features import FeatureLoader, TooLarge, fill, rounded, told
from finetune.trunk.keeping import GB, Keeper, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from finetune.data.labelled import Part
    from finetune.model.evaluation import Batches
    from finetune.training.prepare import Prepared
    from finetune.trunk.engines import Engine
    from finetune.trunk.store import Table

    Check = Callable[[], None]

PLAIN = 0  # the view of evaluation; the augmented ones count from 1


class Feed:
    """Batches for the tail of a network, the first ``first`` stages of which are frozen in this phase."""

    def __init__(
        self, prepared: Prepared, class_weights: NDArray[np.float32] | None, say: Callable[[str], None]
    ) -> None:
        self.prepared, self.recipe, self.data = prepared, prepared.plan.recipe, prepared.data
        self.class_weights, self.say = class_weights, say
        self.keeper = Keeper(int(self.recipe.cache.max_gb * GB), say)
        self.mixes = bool(self.recipe.train.mixup or self.recipe.train.cutmix)
        self._loaders: dict[tuple[str, bool, int], Loader] = {}
        self.enter(0, epochs=(), last=False)

    def enter(self, first: int, *, epochs: Sequence[int], last: bool) -> None:
        """Begin a phase of some epochs; its weights are looked at when the first batch is asked for.

        In the ``last`` phase the test images are wanted, too.
        """
        self.first, self.epochs, self.last = first, epochs, last
        self._large: set[tuple[str, int]] = set()
        self._notes: list[str] = []
        self._engine: Engine | None = None
        self._trunk: str | None = None
        self._shape: tuple[int, ...] | None = None
        self._kept: frozenset[str] | None = None
        self._open: dict[tuple[str, int], FeatureLoader] = {}

    def training(self, epoch: int, start: int, check: Check) -> Iterator[Batch]:
        """Return the batches of an epoch from number ``start`` on, each with soft targets."""
        if not self.first:
            return self._targeted(self.loader("train", train=True).epoch(epoch, start), epoch, start)
        if self._trunk is None:
            self.settle()
        view = self.view(epoch)
        self._say_notes()
        features = self._features("train", view, check) if self.keeps("train") else None
        if features is not None:
            return self._targeted(features.epoch(epoch, start), epoch, start)
        images = self.loader("train", train=True).epoch(epoch, start, view=view)
        return self._through(self._targeted(images, epoch, start), rounds=self.keeps("train"))

    def plain(self, part: str, check: Check) -> Batches:
        """Return a part as evaluation sees it: its features, or its images where nothing is frozen."""
        if not self.first:
            return self.loader(part)
        features = self._features(part, PLAIN, check) if self.keeps(part) else None
        self._say_notes()
        return features or Streamed(self.loader(part), partial(self._through, rounds=self.keeps(part)))

    def view(self, epoch: int) -> int:
        """Return the epoch whose augmentation an epoch gets: its own, or that of the view that is kept."""
        return (epoch - 1) % self.views + 1 if self.keeps("train") else epoch

    @property
    def views(self) -> int:
        """Return how many versions of each training image are kept."""
        return min(self.recipe.cache.views, self.recipe.train.epochs) if self.prepared.transforms else 1

    def keeps(self, part: str) -> bool:
        """Tell whether the features of a part are to be kept: decided once a phase, the same in every run."""
        if not self.first or self.recipe.cache.features == "off" or (part == "train" and self.mixes):
            return False
        if self._kept is None:
            self._kept = self._plan()
        return part in self._kept

    def _plan(self) -> frozenset[str]:
        """Choose the parts whose features fit, say so, and make room for them."""
        wanted = self._all_wanted()
        if not all(each.entry.known().get("seconds") for several in wanted.values() for each in several):
            self.engine()  # may be another than expected
            wanted = self._all_wanted()
        shape = next((tuple(known["shape"]) for each in wanted["valid"] if (known := each.entry.known())), None)
        self._shape = shape or self.shape()
        sizes = self.sizes(self._shape)
        chosen = self.fitting(sizes)
        for name in (name for name in sizes if name not in chosen):
            limit = f"{sizes[name] / GB:.3g} GB, and cache.max_gb={self.recipe.cache.max_gb:g} does not allow it"
            self._notes.append(f"features of the {name} images are computed in every epoch: they take {limit}")
        keep = [each for name, several in wanted.items() if name in chosen for each in several]
        self.keeper.begin(keep, self._shape)
        self._tell({name: wanted[name] for name in wanted if name in chosen})
        return chosen

    def _all_wanted(self) -> dict[str, list[Wanted]]:
        return {name: [self._wanted(name, view) for view in views] for name, views in self._views().items()}

    def _views(self) -> dict[str, Sequence[int]]:
        """Return the views of each part that could be kept in this phase."""
        views = sorted({(epoch - 1) % self.views + 1 for epoch in self.epochs})
        found: dict[str, Sequence[int]] = {"train": views} if views and not self.mixes else {}
        found["valid"] = [PLAIN]
        if self.last and self.data.test is not None:
            found["test"] = [PLAIN]
        return found

    def sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """Return what the features of each part would take, in bytes, for those of one image."""
        return {
            name: len(views) * len(getattr(self.data, name)) * 2 * prod(shape) for name, views in self._views().items()
        }

    def fitting(self, sizes: Mapping[str, int]) -> frozenset[str]:
        """Return the parts that fit into what may be kept, the most wanted first."""
        left = self.keeper.limit
        chosen: list[str] = []
        for name, size in sizes.items():
            if size <= left:
                left, chosen = left - size, [*chosen, name]
        return frozenset(chosen)

    def _tell(self, wanted: Mapping[str, Sequence[Wanted]]) -> None:
        """Say what of the features is there, and what is to be computed."""
        known = {name: [each.entry.known().get("seconds") for each in several] for name, several in wanted.items()}
        there = {name: sum(seconds is not None for seconds in each) for name, each in known.items()}
        lacks = {name: len(each) - there[name] for name, each in known.items()}
        about, stage = self._computes(), self.prepared.network.names[self.first - 1]
        by = f"by {about['name']} in {about['precision'].replace('f32', 'fp32')}"
        if any(there.values()):
            spent = sum(seconds for each in known.values() for seconds in each if seconds)
            what = self._counted(there)
            self._notes.append(
                f"features after {stage}: {what} reused, computed {by} before; about {spent:.1f} s saved"
            )
        if any(lacks.values()) and not self.keeper.problem:
            once = "computed once and kept, a view when its first epoch comes,"
            self._notes.append(f"features after {stage}: {self._counted(lacks)} {once} {by}")
        if not wanted or self.keeper.problem:
            self._notes.append(f"stages up to {stage} are computed in every epoch, {by}")

    def _counted(self, views: Mapping[str, int]) -> str:
        """Return numbers of photos and views in words."""
        names = {"train": "training", "valid": "validation", "test": "test"}
        parts = []
        for name, count in views.items():
            several = (
                f" in {count} view{'' if count == 1 else 's'}" if name == "train" and self.prepared.transforms else ""
            )
            parts += [f"{len(getattr(self.data, name)):,} {names[name]} photos{several}"] if count else []
        return ", ".join(parts)

    def _wanted(self, part: str, view: int) -> Wanted:
        about = {
            "versions": identity.versions(),
            "trunk": self.trunk,
            "engine": self._computes(),
            "image": modelfolder.image_record(self.prepared.image),
            "images": identity.of_images(getattr(self.data, part)),
            "view": self._augmentation(view) if view != PLAIN else "plain",
        }
        return Wanted(about=about, count=len(getattr(self.data, part)))

    def _computes(self) -> dict[str, Any]:
        """Return what computes the trunk, as far as it decides on bits."""
        device = self.prepared.device
        about = self._engine.about if self._engine else engines.expected(self.recipe.trunk, device.name)
        own = (
            {"isa": device.isa, "products": self.prepared.products is not None} if about["name"] == "mindspore" else {}
        )
        return {**about, **own, "device": device.name, "processor": identity.processor()}

    def _augmentation(self, view: int) -> dict[str, Any]:
        steps = [
            (each.component, each.options.model_dump(mode="json", by_alias=True)) for each in self.prepared.plan.augment
        ]
        said = [[component.name, options, identity.of_code(component)] for component, options in steps]
        return {"seed": self.recipe.seed, "number": view, "augment": said}

    @property
    def trunk(self) -> dict[str, Any]:
        """Return what the trunk is: its stages, their code and their weights."""
        if self._trunk is None:
            self._trunk = self._digest()
        component, options = self.prepared.plan.backbone.component, self.prepared.backbone_options
        return {
            "stages": list(self.prepared.network.names[: self.first]),
            "pooled": self.first == len(self.prepared.network.stages),
            "backbone": [component.name, options.model_dump(mode="json"), identity.of_code(component)],
            "amp": self.prepared.device.amp,
            "weights": self._trunk,
        }

    def fits(self) -> bool:
        """Tell whether the frozen stages of the network hold the weights that the phase's features are made with."""
        return self._trunk is None or self._trunk == self._digest()

    def _digest(self) -> str:
        network = self.prepared.network
        return identity.of_arrays((p.name, p.asnumpy()) for p in network.parameters_of(network.names[: self.first]))

    def _say_notes(self) -> None:
        while self._notes:
            self.say(self._notes.pop(0))

    def settle(self) -> None:
        """Note the weights of the frozen stages, which the network holds now."""
        if self.first:
            self._trunk = self._digest()

    def finish(self) -> None:
        """Ask for no features of training images any more."""
        self.epochs = ()

    def _features(self, part: str, view: int, check: Check) -> FeatureLoader | None:
        """Return kept features; None where the disk does not take them, or float16 does not hold them."""
        if (part, view) in self._large:
            return None
        if (part, view) not in self._open:
            train, chunk = view != PLAIN, engines.chunk_for(self.prepared.device.name)
            loader = self.loader(part, train=train, ordered=chunk)

            def missing(table: Table) -> int:
                said = told(
                    f"the {part} images" + (f", view {view} of {self.views}" if train else ""),
                    len(loader.part),
                    self.say,
                )
                return fill(table, loader, max(view, 1), self.engine, said, check)

            try:
                kept = self.keeper.open(self._wanted(part, view), self.shape, chunk, missing, check)
            except TooLarge as error:
                self._large.add((part, view))
                self.say(f"features of the {part} images are computed in every epoch: {error}")
                return None
            if kept is None:
                return None
            self._open[part, view] = FeatureLoader(
                part=loader.part, kept=kept, batch_size=self.recipe.train.batch_size, seed=self.recipe.seed, train=train
            )
        return self._open[part, view]

    def engine(self) -> Engine:
        """Return what computes the trunk."""
        if self._engine is None:
            network, products = self.prepared.network, self.prepared.products
            cell, own = Trunk(network, self.first), products and Trunk(network, self.first, products)
            section, device = self.recipe.trunk, self.prepared.device.name
            self._engine = engines.build(cell, self._sample(), section, self.say, own=own, device=device)
        return self._engine

    def _sample(self) -> NDArray[np.float32]:
        batches = self.loader("train", train=True, ordered=engines.chunk_for(self.prepared.device.name)).epoch(1)
        images = next(batches).images
        batches.close()
        return images

    def shape(self) -> tuple[int, ...]:
        """Return the shape of one image's features."""
        if self._shape is None:
            engine = self.engine()
            self._shape = engine.shape or tuple(engine(self._sample()).shape[1:])
        return self._shape

    def _targeted(self, batches: Iterator[Batch], epoch: int, start: int) -> Iterator[Batch]:
        """Give batches their soft targets, and blend their images where the recipe says so."""
        train, loss = self.recipe.train, self.recipe.loss
        per_epoch = -(-len(self.data.train) // (train.batch_size * train.accumulate)) * train.accumulate
        for at, batch in enumerate(batches, (epoch - 1) * per_epoch + start):
            rows = (batch.labels, batch.weights, len(self.data.classes))
            soft, images = targets.soft_targets(*rows, loss.label_smoothing, self.class_weights), batch.images
            if self.mixes:
                rng = generator(Stream.MIX, self.recipe.seed, at)
                images, soft = targets.mix(images, soft, mixup=train.mixup, cutmix=train.cutmix, rng=rng)
            yield replace(batch, images=images, targets=soft)

    def _through(self, batches: Iterator[Batch], *, rounds: bool) -> Iterator[Batch]:
        """Put the images of batches through the trunk, which works on the next ones meanwhile.

        Where features should have been kept, they are rounded as those are, so that the run sees the same numbers.
        """
        pending: deque[Batch] = deque()

        def images() -> Iterator[NDArray[np.float32]]:
            for batch in batches:
                pending.append(batch)
                yield batch.images

        for features in self.engine().run(images()):
            yield replace(pending.popleft(), images=rounded(features) if rounds else features)

    def loader(self, part: str, *, train: bool = False, ordered: int = 0) -> Loader:
        """Return the loader of a part's images; ``ordered`` is the batch size for those that are to be kept."""
        key = (part, train, ordered)
        if key not in self._loaders:
            self._loaders[key] = Loader(
                getattr(self.data, part),
                self.prepared.image,
                batch_size=ordered or self.recipe.train.batch_size,
                workers=self.prepared.workers,
                seed=self.recipe.seed,
                transforms=self.prepared.transforms if train else (),
                train=train,
                shuffled=not ordered,
            )
        return self._loaders[key]

    def close(self) -> None:
        """End the threads of all loaders."""
        for loader in self._loaders.values():
            loader.close()


@dataclass(frozen=True, slots=True)
class Streamed:
    """A part whose images go through the trunk whenever it is evaluated."""

    loader: Loader
    through: Callable[[Iterator[Batch]], Iterator[Batch]]

    @property
    def part(self) -> Part:
        """Return the part."""
        return self.loader.part

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield its batches of features."""
        return self.through(self.loader.epoch(epoch))
