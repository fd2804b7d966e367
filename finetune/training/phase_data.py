"""Phase data: batches of images, or of the features of frozen stages, either cached or computed on the fly."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from finetune.data import targets
from finetune.data.loader import Batch, Loader, Stream, make_generator
from finetune.distributed.world import SINGLE_PROCESS
from finetune.features.cache import GB, FeatureCache
from finetune.features.features import FeatureLoader, TooLarge, fill_table, report_progress, round_features
from finetune.network import engines
from finetune.training.frozen_stages import (
    PLAIN,
    FrozenStages,
    Views,
    describe_streaming,
    report_too_large,
    select_fitting,
    summarise_features,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from finetune.data.labelled import Part
    from finetune.features.cache import Request
    from finetune.features.store import Table
    from finetune.model.evaluation import Batches
    from finetune.training.prepare import Prepared

    Check = Callable[[], None]


class PhaseData:
    """Batches for the tail of a network whose first ``first`` stages are frozen in this phase."""

    def __init__(
        self, prepared: Prepared, class_weights: NDArray[np.float32] | None, say: Callable[[str], None]
    ) -> None:
        self.prepared, self.recipe, self.data = prepared, prepared.plan.recipe, prepared.data
        self.class_weights, self.say = class_weights, say
        self.world = prepared.world
        self.cache = FeatureCache(int(self.recipe.cache.max_gb * GB), say, self.world)
        self._loaders: dict[tuple[str, bool, int], Loader] = {}
        self.enter(0, epochs=(), last=False)

    def enter(self, first: int, *, epochs: Sequence[int], last: bool, fitted: Sequence[int] = ()) -> None:
        """Start a phase of ``epochs``; its weights are recorded when the first batch is requested.

        The ``last`` phase also needs the test images. ``fitted`` are the views of the training images that the head is
        fitted to.
        """
        self.first = first
        self.frozen = FrozenStages(self.prepared, first, self._sample, self.say)
        self.views = Views(self.prepared, epochs, last=last, fitted=fitted)
        self._large: set[tuple[str, int]] = set()
        self._notes: list[str] = []
        self._noted = False
        self._kept: frozenset[str] | None = None
        self._open: dict[tuple[str, int], FeatureLoader] = {}

    def replace_recipe(self, prepared: Prepared, class_weights: NDArray[np.float32] | None) -> None:
        """Replace the recipe after an ``auto`` value was chosen."""
        self.prepared, self.recipe, self.class_weights = prepared, prepared.plan.recipe, class_weights

    def iterate_training(self, epoch: int, start: int, check: Check) -> Iterator[Batch]:
        """Return the batches of an epoch with soft targets, starting with number ``start``."""
        if not self.first:
            return self._add_targets(self.get_loader("train", train=True).epoch(epoch, start), epoch, start)
        if not self.frozen.settled:
            self.frozen.record_weights()
        view = self.choose_view(epoch)
        self._say_notes()
        features = self._open_features("train", view, check) if self.is_cached("train") else None
        if features is not None:
            return self._add_targets(features.epoch(epoch, start), epoch, start)
        images = self.get_loader("train", train=True).epoch(epoch, start, view=view)
        return self._compute_features(self._add_targets(images, epoch, start), rounds=self.is_cached("train"))

    def iterate_targets(self, epoch: int, start: int) -> Iterator[Batch]:
        """Return the batches of an epoch with targets but without images, starting with number ``start``."""
        return self._add_targets(self.get_loader("train", train=True).iterate_labels(epoch, start), epoch, start)

    def get_evaluation_batches(self, part: str, check: Check) -> Batches:
        """Return a part for evaluation: its features, or its images if nothing is frozen."""
        if not self.first:
            return self.get_loader(part)
        features = self._open_features(part, PLAIN, check) if self.is_cached(part) else None
        self._say_notes()
        return features or Streamed(self.get_loader(part), partial(self._compute_features, rounds=self.is_cached(part)))

    def choose_view(self, epoch: int) -> int:
        """Return the epoch whose augmentation is used: the epoch itself, or that of a cached view."""
        return self.views.view_of_epoch(epoch) if self.is_cached("train") else epoch

    def is_cached(self, part: str) -> bool:
        """Return whether the features of a part are cached; decided once per phase, and the same in every run."""
        streams = part == "train" and self.views.mixes and not self.views.fitted
        if not self.first or self.recipe.cache.features == "off" or streams:
            self._note_streaming()
            return False
        if self._kept is None:
            self._kept = self._choose()
        return part in self._kept

    def _note_streaming(self) -> None:
        """Report once per phase which engine computes the stages whose outputs are not cached."""
        if self.first and not self._noted:
            self._noted = True
            self._notes.append(describe_streaming(self.frozen.stages[-1], self.frozen.describe_engine()))

    def _choose(self) -> frozenset[str]:
        """Choose the parts whose features fit into the cache, and make room for them."""
        wanted = self._list_requests()
        if not all(each.entry.read().get("seconds") for several in wanted.values() for each in several):
            self.frozen.get_engine()  # may differ from the expected engine
            wanted = self._list_requests()
        known = (each.entry.read() for several in wanted.values() for each in several)
        if shape := next((tuple(each["shape"]) for each in known if each), None):
            self.frozen.set_shape(shape)
        sizes = self.views.compute_sizes(self.frozen.find_shape())
        chosen = select_fitting(sizes, self.cache.limit)
        wanted = {name: several for name, several in wanted.items() if name in chosen}
        self.cache.begin([each for several in wanted.values() for each in several], self.frozen.find_shape())
        self._notes += report_too_large(sizes, chosen, self.recipe.cache.max_gb)
        stage, keeps = self.frozen.stages[-1], not self.cache.problem
        self._notes += summarise_features(self.views, wanted, self.frozen.describe_engine(), stage, keeps=keeps)
        return chosen

    def _list_requests(self) -> dict[str, list[Request]]:
        parts = self.views.views_by_part().items()
        return {name: [self.frozen.make_request(name, view) for view in views] for name, views in parts}

    def _say_notes(self) -> None:
        while self._notes:
            self.say(self._notes.pop(0))

    def finish_training(self) -> None:
        """Declare that no more features of training images are needed."""
        self.views.epochs = self.views.fitted = ()

    def gather(self, view: int, check: Check, part: str = "train") -> NDArray[np.float32]:
        """Return the features (N, width) of all images of a part in a view, in order; they are cached if possible."""
        if not self.frozen.settled:
            self.frozen.record_weights()
        features = self._open_features(part, view, check) if self.is_cached(part) else None
        self._say_notes()
        if features is not None:
            return features.kept.take(np.arange(len(features.part)))
        images = self.get_loader(part, train=view != PLAIN, ordered=self.frozen.chunk).epoch(max(view, 1))
        rows = []
        with self.world.collective():
            for batch in self._compute_features(images, rounds=True):
                rows.append(batch.images[batch.weights > 0])
                check()
        return np.concatenate(rows)

    def _open_features(self, part: str, view: int, check: Check) -> FeatureLoader | None:
        """Return cached features; None if they do not fit on the disk, or exceed the range of float16."""
        if (part, view) in self._large:
            return None
        if (part, view) not in self._open:
            train, frozen = view != PLAIN, self.frozen
            loader = self.get_loader(part, train=train, ordered=frozen.chunk)
            number = f", view {view} of {self.views.most}" if train else ""

            def missing(table: Table, shards: Sequence[int]) -> int:
                rows = sum(len(table.list_shards()[each]) for each in shards)
                whose = "" if self.world.size == 1 else ", this process's share"
                report = report_progress(f"the {part} images{number}{whose}", rows, self.say)
                return fill_table(table, loader, max(view, 1), frozen.get_engine, report, check, shards)

            try:
                kept = self.cache.open(frozen.make_request(part, view), frozen.find_shape, frozen.chunk, missing, check)
            except TooLarge as error:
                self._large.add((part, view))
                self.say(f"features of the {part} images are computed in every epoch: {error}")
                return None
            if kept is None:
                return None
            if self.first < len(self.prepared.network.stages):  # free memory for training
                self.frozen.release_engine()
            self._open[part, view] = FeatureLoader(
                part=loader.part,
                kept=kept,
                batch_size=self.recipe.train.batch,
                seed=self.recipe.seed,
                train=train,
                world=self.world,
            )
        return self._open[part, view]

    def _sample(self) -> NDArray[np.float32]:
        batches = self.get_loader("train", train=True, ordered=engines.choose_chunk(self.prepared.device.name)).epoch(1)
        images = next(batches).images
        batches.close()
        return images

    def _add_targets(self, batches: Iterator[Batch], epoch: int, start: int) -> Iterator[Batch]:
        """Add soft targets to batches, and blend their images if the recipe asks for mixup or cutmix."""
        train, loss = self.recipe.train, self.recipe.loss
        per_epoch = -(-len(self.data.train) // (train.batch * train.accumulate)) * train.accumulate
        for at, batch in enumerate(batches, (epoch - 1) * per_epoch + start):
            rows = (batch.labels, batch.weights, len(self.data.classes))
            soft, images = targets.make_soft_targets(*rows, loss.label_smoothing, self.class_weights), batch.images
            if self.views.mixes:
                # Each process blends its own images, so several processes blend differently from a single one.
                rng = make_generator(
                    Stream.MIX, self.recipe.seed, at, *([self.world.rank] if self.world.size > 1 else [])
                )
                images, soft = targets.mix(images, soft, mixup=train.mixup, cutmix=train.cutmix, rng=rng)
            yield replace(batch, images=images, targets=soft)

    def _compute_features(self, batches: Iterator[Batch], *, rounds: bool) -> Iterator[Batch]:
        """Compute the features of batches with the frozen stages, which work ahead.

        With ``rounds``, features are rounded like cached ones, so that the run sees the same numbers either way.
        """
        pending: deque[Batch] = deque()

        def images() -> Iterator[NDArray[np.float32]]:
            for batch in batches:
                pending.append(batch)
                yield batch.images

        for features in self.frozen.get_engine().run(images()):
            yield replace(pending.popleft(), images=round_features(features) if rounds else features)

    def get_loader(self, part: str, *, train: bool = False, ordered: int = 0) -> Loader:
        """Return the loader of a part's images; ``ordered`` is the batch size for images in order, to be cached."""
        key = (part, train, ordered)
        if key not in self._loaders:
            self._loaders[key] = Loader(
                getattr(self.data, part),
                self.prepared.image,
                batch_size=ordered or self.recipe.train.batch,
                workers=self.prepared.workers,
                seed=self.recipe.seed,
                transforms=self.prepared.transforms if train else (),
                train=train,
                shuffled=not ordered,
                world=SINGLE_PROCESS if ordered else self.world,
            )
        return self._loaders[key]

    def close(self) -> None:
        """Stop the threads of all loaders."""
        for loader in self._loaders.values():
            loader.close()


@dataclass(frozen=True, slots=True)
class Streamed:
    """A part whose features are computed at every evaluation."""

    loader: Loader
    through: Callable[[Iterator[Batch]], Iterator[Batch]]

    @property
    def part(self) -> Part:
        """The part that the batches come from."""
        return self.loader.part

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of features."""
        return self.through(self.loader.epoch(epoch))
