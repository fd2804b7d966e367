"""Features of a part: computed once for every image and view, cached on disk, loaded in batches."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.loader import Batch, assign_batches, assign_rows, compute_order
from finetune.data.scan import hash_image
from finetune.distributed.world import SINGLE_PROCESS
from finetune.errors import DataError, FinetuneError, PluginError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from finetune.data.labelled import Part
    from finetune.data.loader import Loader
    from finetune.distributed.world import World
    from finetune.features.store import CachedRows, Table
    from finetune.network.engines import Engine

    Array = NDArray[np.float32]

PAUSE = 10.0  # seconds between two progress messages


class TooLarge(ResourceError):
    """A feature exceeds the range of float16, so none of the features of its view are cached."""


def fill_table(
    table: Table,
    loader: Loader,
    view: int,
    engine: Callable[[], Engine],
    report: Callable[[int], None],
    check: Callable[[], None],
    numbers: Sequence[int] | None = None,
) -> int:
    """Compute and write the missing shards of a table, or those in ``numbers``; return how many images were computed.

    ``loader`` yields the images in order; ``view`` is the epoch whose augmentation they get. ``report`` is called with
    the number of images done. ``check`` is called after each batch and may raise to stop; written shards are kept.
    Raises ``DataError`` if an image changed since the scan, and ``TooLarge`` if a feature exceeds float16.
    """
    done = 0
    for shards in group_runs(table.list_missing() if numbers is None else numbers):
        first = table.list_shards()[shards[0]].start // loader.batch_size
        with closing(loader.epoch(view, start=first)) as batches:
            computed = engine().run(each.images for each in batches)
            for number in shards:
                rows = table.list_shards()[number]
                pieces: list[NDArray[np.float16]] = []
                while len(pieces) * loader.batch_size < len(rows):
                    pieces.append(convert_to_half(next(computed)))
                    check()
                check_same(loader.part, rows)
                table.write(number, np.concatenate(pieces)[: len(rows)])
                done += len(rows)
                report(done)
            computed.close()
    return done


def group_runs(numbers: Sequence[int]) -> list[list[int]]:
    """Group ascending numbers into runs of consecutive numbers."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def convert_to_half(features: Array) -> NDArray[np.float16]:
    """Convert features to float16; raises ``TooLarge`` if one exceeds its range."""
    with np.errstate(over="ignore"):
        found = features.astype(np.float16)
    if not np.isfinite(found).all():
        raise TooLarge("its features exceed the range of float16")
    return found


def round_features(features: Array) -> Array:
    """Round features to float16 as in a table; images with features outside its range are left unchanged."""
    with np.errstate(over="ignore"):
        found = features.astype(np.float16).astype(np.float32)
    fits = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    found[~fits] = features[~fits]
    return found


def check_same(part: Part, rows: range) -> None:
    """Raise ``DataError`` for an image whose content changed since the scan."""
    for row in rows:
        name = part.describe(row)
        try:
            image = part.images[row]
            changed = hash_image(image) != part.hashes[row]
        except OSError:
            changed = True
        except FinetuneError:
            raise
        except Exception as error:  # the dataset's own code may raise anything
            raise PluginError(f"{name}: the dataset failed with {type(error).__name__}: {error}") from error
        if changed:
            remedy = "do not modify images during a run, and make sure the dataset returns the same pixels every time"
            raise DataError(f"'{name}' changed since the run started; {remedy}")


def report_progress(what: str, total: int, say: Callable[[str], None]) -> Callable[[int], None]:
    """Return a function that reports the progress of computing features every ``PAUSE`` seconds."""
    began = spoke = time.monotonic()

    def report(done: int) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke >= PAUSE:
            spoke = now
            say(f"features of {what}: {done:,} of {total:,} images, {done / (now - began):.3g} a second")

    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureLoader:
    """Loads batches of cached features in place of images, in the same order and shares as the images."""

    part: Part
    kept: CachedRows
    batch_size: int
    seed: int
    train: bool
    world: World = SINGLE_PROCESS

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting with number ``start``."""
        count, size = len(self.part), self.batch_size
        indices = compute_order(count, size, self.seed, epoch, shuffled=self.train)
        for step in assign_batches(start, len(indices) // size, self.world, shuffled=self.train):
            places = assign_rows(step, size, self.world, shuffled=self.train)
            rows = indices[places.start : places.stop]
            yield Batch(
                images=self.kept.take(rows),
                labels=self.part.labels[rows],
                weights=(np.array(places) < count).astype(np.float32),
                indices=rows,
                whole=min(size, count - step * size),
            )
