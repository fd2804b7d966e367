"""The features of a part: computed by the trunk once for every image and view, kept on disk, handed out in batches."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.loader import Batch, assign_batches, assign_rows, compute_order
from finetune.data.scan import hash_image
from finetune.distributed.world import ALONE
from finetune.errors import DataError, FinetuneError, PluginError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from finetune.data.labelled import Part
    from finetune.data.loader import Loader
    from finetune.distributed.world import World
    from finetune.features.store import Kept, Table
    from finetune.network.engines import Engine

    Array = NDArray[np.float32]

PAUSE = 10.0  # seconds between two words about the progress


class TooLarge(ResourceError):
    """A feature is beyond the numbers that float16 holds, so that none of its view are kept."""


def fill(
    table: Table,
    loader: Loader,
    view: int,
    engine: Callable[[], Engine],
    said: Callable[[int], None],
    check: Callable[[], None],
    numbers: Sequence[int] | None = None,
) -> int:
    """Compute and write the shards that a table lacks, or those ``numbers``; return how many images that took.

    ``loader`` gives the images in their order, ``view`` is the epoch whose augmentation they get. ``said`` is told how
    many are done; ``check`` is called after each batch and may raise to stop; what is written then stays. Raises
    ``DataError`` if an image is no longer the one that was scanned, and ``TooLarge`` if a feature cannot be kept.
    """
    done = 0
    for shards in runs(table.missing() if numbers is None else numbers):
        first = table.shards()[shards[0]].start // loader.batch_size
        with closing(loader.epoch(view, start=first)) as batches:
            computed = engine().run(each.images for each in batches)
            for number in shards:
                rows = table.shards()[number]
                pieces: list[NDArray[np.float16]] = []
                while len(pieces) * loader.batch_size < len(rows):
                    pieces.append(half(next(computed)))
                    check()
                same(loader.part, rows)
                table.write(number, np.concatenate(pieces)[: len(rows)])
                done += len(rows)
                said(done)
            computed.close()
    return done


def runs(numbers: Sequence[int]) -> list[list[int]]:
    """Return numbers in ascending order as runs of consecutive ones."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def half(features: Array) -> NDArray[np.float16]:
    """Return features in float16; raises ``TooLarge`` for those beyond it."""
    with np.errstate(over="ignore"):
        found = features.astype(np.float16)
    if not np.isfinite(found).all():
        raise TooLarge("its features are beyond the numbers that float16 holds")
    return found


def rounded(features: Array) -> Array:
    """Return features as they come back from a table; those of images that float16 does not hold as they are."""
    with np.errstate(over="ignore"):
        found = features.astype(np.float16).astype(np.float32)
    fits = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    found[~fits] = features[~fits]
    return found


def same(part: Part, rows: range) -> None:
    """Raise ``DataError`` for an image whose content is no longer that of the scan."""
    for row in rows:
        name = part.describe(row)
        try:
            image = part.images[row]
            changed = hash_image(image) != part.hashes[row]
        except OSError:
            changed = True
        except FinetuneError:
            raise
        except Exception as error:  # code of the dataset, which may raise anything
            raise PluginError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
        if changed:
            remedy = "leave the photos alone, and run again; a dataset must give the same pixels every time"
            raise DataError(f"'{name}' changed since the run began; {remedy}")


def told(what: str, total: int, say: Callable[[str], None]) -> Callable[[int], None]:
    """Return what says every ten seconds how far the computing of features has come."""
    began = spoke = time.monotonic()

    def said(done: int) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke >= PAUSE:
            spoke = now
            say(f"features of {what}: {done:,} of {total:,} images, {done / (now - began):.3g} a second")

    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureLoader:
    """Batches of kept features in place of images, in the order and in the shares that the images would have had."""

    part: Part
    kept: Kept
    batch_size: int
    seed: int
    train: bool
    world: World = ALONE

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number ``start`` on."""
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
