"""Data loader: reads batches ahead, in a fixed order, with results that do not depend on the number of threads."""

from __future__ import annotations

import math
import sys
from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.imagefile import BadImage
from finetune.data.images import fit, normalise, read_image
from finetune.data.pool import Pool
from finetune.distributed.world import SINGLE_PROCESS
from finetune.errors import DataError, FinetuneError, PluginError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from finetune.components import ImageSpec, Pixels, Transform
    from finetune.data.labelled import Part
    from finetune.distributed.world import World


class Stream(IntEnum):
    """Purposes of random numbers; each has its own numbers for the same seed."""

    SPLIT = 1
    ORDER = 2
    AUGMENT = 3
    DROPOUT = 4
    MIX = 5
    HEAD = 6


def make_generator(stream: Stream, seed: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """Make the generator for a purpose, seed, epoch and sample (Philox 4x64, Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, index, stream]))


AHEAD = 2  # batches that are read while one is consumed; more if they are small
AHEAD_IMAGES = 32
UINT8 = "return (height, width, 3) uint8; the engine normalises"
PATIENCE = 600.0  # seconds for one image, after which the disk is assumed to hang


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Images (B, 3, S, S) float32, labels (B,) int64, weights (B,) float32, and indices (B,) int64 into the part.

    B is always the batch size, so that the network is compiled once; rows of padding have weight 0. If several
    processes divide a batch, B is the share of one process and ``whole`` the number of images in all of them. Before a
    training step a batch gets soft ``targets`` (B, classes) float32, and if stages are frozen, its images are replaced
    by the input features of the first stage that is trained.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    indices: NDArray[np.int64]
    targets: NDArray[np.float32] | None = None
    whole: int | None = None

    @property
    def count(self) -> int:
        """Return the number of images in the batch, without padding, in all processes."""
        return int((self.weights > 0).sum()) if self.whole is None else self.whole


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    batch: Batch
    rows: list[Future[None]]

    def cancel(self) -> None:
        for row in self.rows:
            row.cancel()


class Loader:
    """Batches of a part, read by ``workers`` threads, or by the calling thread if 0, with identical results.

    In training, the order depends on seed and epoch, and the augmentation of each image on seed, epoch and index. The
    last batch is filled up with the first images of the epoch. ``shuffled=False`` augments the images in their order.
    Several processes share every shuffled batch; otherwise they share the list of batches.

    In evaluation, images come in order, fitted to the network's size, and the last one is repeated. An image that
    cannot be used ends the iteration, unless ``refused`` is given: it receives the error by index, and the row is zero.
    """

    def __init__(
        self,
        part: Part,
        spec: ImageSpec,
        *,
        batch_size: int,
        workers: int,
        seed: int,
        transforms: tuple[Transform, ...] = (),
        train: bool,
        shuffled: bool = True,
        refused: dict[int, BadImage] | None = None,
        world: World = SINGLE_PROCESS,
    ) -> None:
        if not len(part):
            raise DataError(f"{part.name}: no images to load; use a part that has images")
        if len(part.labels) != len(part) or part.labels.min() < 0:
            raise DataError(f"{part.name}: {len(part)} images need as many labels, each at least 0")
        self.part, self.spec, self.batch_size, self.seed, self.train = part, spec, batch_size, seed, train
        self.shuffled = train and shuffled
        self.transforms = transforms if train else ()
        self.refused = refused
        self.world, self.steps = world, math.ceil(len(part) / batch_size)
        self._pool = Pool(workers)

    def close(self) -> None:
        """End the threads; iterators in use stop working."""
        self._pool.close()

    def compute_order(self, epoch: int) -> NDArray[np.int64]:
        """Return the index of every row of an epoch, padding included."""
        return compute_order(len(self.part), self.batch_size, self.seed, epoch, shuffled=self.shuffled)

    def epoch(self, epoch: int, start: int = 0, *, view: int | None = None) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from number ``start`` on; earlier ones are not read.

        ``view`` is the epoch whose augmentation is used, by default this one. Raises ``DataError`` with the name of a
        file that can no longer be read, and ``PluginError`` with the augmentation and the image if a transform fails.
        """
        _limit_opencv_threads()
        order = self.compute_order(epoch)
        ahead = max(AHEAD, AHEAD_IMAGES // self.batch_size) if self._pool.workers else 0
        window: deque[_Pending] = deque()
        try:
            for step in assign_batches(start, self.steps, self.world, shuffled=self.shuffled):
                window.append(self._begin(order, view or epoch, step))
                if len(window) > ahead:
                    yield self._finish(window)
            while window:
                yield self._finish(window)
        finally:
            for pending in window:
                pending.cancel()

    def iterate_labels(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch without their images, which are (B, 0)."""
        order = self.compute_order(epoch)
        for step in assign_batches(start, self.steps, self.world, shuffled=self.shuffled):
            yield self._make_batch(order, step)

    def load_image(self, index: int, epoch: int) -> NDArray[np.float32]:
        """Return an image as an epoch has it, float32 (3, S, S)."""
        _limit_opencv_threads()
        out = np.empty((3, self.spec.size, self.spec.size), np.float32)
        self._fill(index, epoch, out)
        return out

    def _make_batch(self, order: NDArray[np.int64], step: int) -> Batch:
        """Return a batch without its images."""
        rows = assign_rows(step, self.batch_size, self.world, shuffled=self.shuffled)
        indices = order[rows.start : rows.stop].copy()
        return Batch(
            images=np.empty((len(rows), 0), np.float32),
            labels=self.part.labels[indices],
            weights=(np.array(rows) < len(self.part)).astype(np.float32),
            indices=indices,
            whole=min(self.batch_size, len(self.part) - step * self.batch_size),
        )

    def _begin(self, order: NDArray[np.int64], epoch: int, step: int) -> _Pending:
        batch, size = self._make_batch(order, step), self.spec.size
        indices, rows = batch.indices, range(len(batch.indices))
        batch = replace(batch, images=np.empty((len(rows), 3, size, size), np.float32))
        # In evaluation, padding is copied. In training it affects the batch statistics, so different images are read.
        read = range(len(rows) if self.shuffled else int(batch.weights.sum()))
        submit, images = self._pool.submit, batch.images
        return _Pending(batch, [submit(self._fill, int(indices[row]), epoch, images[row]) for row in read])

    def _finish(self, window: deque[_Pending]) -> Batch:
        """Return the oldest batch when all its rows are read; after an error it stays in the window for cancelling."""
        pending = window[0]
        for index, row in zip(pending.batch.indices.tolist(), pending.rows, strict=False):
            try:
                row.result(PATIENCE)
            except TimeoutError as error:
                name = self.part.describe(index)
                raise DataError(f"'{name}' timed out after {PATIENCE:.0f} s while reading; check the disk") from error
        done = len(pending.rows)
        pending.batch.images[done:] = pending.batch.images[done - 1]
        return window.popleft().batch

    def _fill(self, index: int, epoch: int, out: NDArray[np.float32]) -> None:
        """Write one image into its row of a batch, float32 (3, S, S)."""
        try:
            pixels = self._read(index)
        except BadImage as error:
            if self.refused is None:
                raise
            self.refused[index] = error
            out[:] = 0
            return
        pixels = self._augment(pixels, index, epoch) if self.transforms else fit(pixels, self.spec)
        normalise(pixels, self.spec, out)

    def _read(self, index: int) -> Pixels:
        try:
            image = self.part.images[index]
            pixels = read_image(image, self.spec)
            return pixels.copy() if image is pixels else pixels  # a transform may work in place
        except BadImage as error:
            if not self.part.hashes:  # never scanned
                raise
            raise DataError(f"{error}; it was readable when the run started") from error
        except FinetuneError:
            raise
        except Exception as error:  # code of the dataset, which may raise anything
            name = self.part.describe(index)
            raise PluginError(f"{self.part.prefix}{name} cannot be made: {type(error).__name__}: {error}") from error

    def _augment(self, pixels: Pixels, index: int, epoch: int) -> Pixels:
        rng = make_generator(Stream.AUGMENT, self.seed, epoch, index)
        for place, transform in enumerate(self.transforms):
            name = f"augment[{place}] ({_name_transform(transform)})"
            try:
                pixels = transform(pixels, rng)
            except FinetuneError:
                raise
            except Exception as error:
                problem = f"failed on '{self.part.describe(index)}': {type(error).__name__}: {error}"
                raise make_transform_error(transform, f"{name} {problem}") from error
            if wrong := describe_unfit(pixels):
                raise make_transform_error(
                    transform, f"{name} returned {wrong} for '{self.part.describe(index)}'; {UINT8}"
                )
        size = self.spec.size
        if pixels.shape[:2] == (size, size):
            return pixels
        return fit(pixels, replace(self.spec, resize=size, keep_aspect=True))


def compute_order(count: int, batch_size: int, seed: int, epoch: int, *, shuffled: bool) -> NDArray[np.int64]:
    """Return the index of every row of an epoch: full batches, the last one padded."""
    rows = math.ceil(count / batch_size) * batch_size
    if shuffled:
        return np.resize(make_generator(Stream.ORDER, seed, epoch).permutation(count), rows)
    return np.minimum(np.arange(rows), count - 1)


def assign_batches(start: int, steps: int, world: World, *, shuffled: bool) -> Sequence[int]:
    """Return the numbers of the batches that this process reads: all if shuffled, otherwise its share of them."""
    return range(start, steps) if shuffled else world.shard(range(start, steps))


def assign_rows(step: int, batch_size: int, world: World, *, shuffled: bool) -> range:
    """Return the rows of a batch that this process reads: its share if shuffled, otherwise all rows."""
    each = batch_size // world.size if shuffled else batch_size
    first = step * batch_size + (world.rank * each if shuffled else 0)
    return range(first, first + each)


def describe_batches(part: Part, batches: Sequence[Batch]) -> str:
    """Return the names of the first images of batches, for an error message."""
    indices = [int(i) for batch in batches for i in batch.indices[batch.weights > 0]]
    return ", ".join(part.describe(i) for i in indices[:8]) + (", …" if len(indices) > 8 else "")


def _name_transform(transform: Transform) -> str:
    """Return the name of an augmentation: its attribute ``name``, otherwise the name of its class or function."""
    name = getattr(transform, "name", None) or getattr(transform, "__qualname__", None)
    return str(name or type(transform).__qualname__)


def make_transform_error(transform: Transform, message: str) -> PluginError:
    """Make the error of a transform, with the remedy for the plugin that it comes from."""
    error = PluginError(message)
    error.remedy = getattr(transform, "remedy", "")
    return error


def describe_unfit(pixels: object) -> str:
    """Describe a return value of a transform that is not HWC uint8 RGB; empty if it is."""
    if isinstance(pixels, np.ndarray):
        if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size:
            return ""
        return f"an array of shape {'x'.join(map(str, pixels.shape))} and type {pixels.dtype}"
    return f"a {type(pixels).__name__}"


def _limit_opencv_threads() -> None:
    """Keep OpenCV, if a plugin has loaded it, from starting threads inside each loader thread."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)
