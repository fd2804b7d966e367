"""MindSpore dataset pipeline: provides a loader's training images to devices that read their inputs from a queue."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from finetune.components import Encoded
from finetune.data.imagefile import open_image
from finetune.data.images import ORIENTATION, read_image
from finetune.data.loader import Stream, assign_rows, make_generator
from finetune.data.profiles import is_converted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from finetune.components import Image as Source
    from finetune.components import ImageSpec
    from finetune.data.loader import Loader


class Rows:
    """This process's images for some steps, in order; ``steps`` count from 0 through all epochs.

    ``make`` returns an image for an index and an epoch. Its errors are kept in ``problem``, since MindSpore replaces
    them with errors of its own.
    """

    def __init__(self, loader: Loader, steps: range, make: Callable[[int, int], NDArray[Any]]) -> None:
        self.loader, self.steps, self.make = loader, steps, make
        self.each = len(assign_rows(0, loader.batch_size, loader.world, shuffled=True))
        self.problem: Exception | None = None
        self._order: tuple[int, NDArray[np.int64]] = (0, np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.steps) * self.each

    def __getitem__(self, place: int) -> tuple[NDArray[Any]]:
        step, row = divmod(int(place), self.each)
        before, number = divmod(self.steps[step], self.loader.steps)
        epoch = before + 1
        rows = assign_rows(number, self.loader.batch_size, self.loader.world, shuffled=True)
        try:
            return (self.make(int(self._of(epoch)[rows[row]]), epoch),)
        except Exception as error:
            self.problem = error
            raise

    def _of(self, epoch: int) -> NDArray[np.int64]:
        known, order = self._order
        if known != epoch:
            order = self.loader.compute_order(epoch)
            self._order = (epoch, order)
        return order


def build_native_dataset(loader: Loader, steps: range, operations: Sequence[Any], workers: int) -> tuple[Any, Rows]:
    """Build a MindSpore dataset of images (N, 3, S, S) float32 from MindSpore operations; also return its source.

    ``operations`` take the bytes of a file and return HWC uint8. Their randomness depends on the seed, the first step
    and the number of workers.
    """
    import mindspore.dataset as ds
    from mindspore.dataset import vision

    def content(index: int, epoch: int) -> NDArray[np.uint8]:
        return np.frombuffer(encode_plain(loader.part.images[index], loader.spec), np.uint8)

    source, spec = Rows(loader, steps, content), loader.spec
    ds.config.set_seed(int(make_generator(Stream.AUGMENT, loader.seed, steps.start, loader.world.rank).integers(2**31)))
    dataset = ds.GeneratorDataset(source, ["images"], shuffle=False, python_multiprocessing=False)
    scale = vision.Normalize([255 * each for each in spec.mean], [255 * each for each in spec.std])
    dataset = dataset.map(
        [*operations, scale, vision.HWC2CHW()], ["images"], num_parallel_workers=limit_workers(workers)
    )
    return dataset.batch(source.each, drop_remainder=True), source


def build_process_dataset(loader: Loader, steps: range, workers: int) -> tuple[Any, Rows]:
    """Build a MindSpore dataset of images (N, 3, S, S) float32 that worker processes make; also return its source.

    The images are identical to those of the loader.
    """
    import mindspore.dataset as ds

    source = Rows(loader, steps, loader.load_image)
    several = limit_workers(workers)
    dataset = ds.GeneratorDataset(
        source, ["images"], shuffle=False, num_parallel_workers=several, python_multiprocessing=several > 1
    )
    return dataset.batch(source.each, drop_remainder=True), source


def limit_workers(workers: int) -> int:
    """Limit a number of workers to 1 through the number of cores, as MindSpore's pipeline requires."""
    return max(1, min(workers, os.cpu_count() or 1))


def encode_plain(source: Source, spec: ImageSpec) -> bytes:
    """Return an image as a file that MindSpore decodes to the same pixels as the loader.

    An upright JPEG in RGB that needs no colour conversion is returned unchanged, since both decode it with libjpeg to
    the same bits; MindSpore decodes large ones at full size. Any other image is decoded by the loader's decoder and
    encoded without loss.
    """
    if not isinstance(source, np.ndarray):
        with open_image(source) as image:
            upright = image.getexif().get(ORIENTATION, 1) == 1
            converts = spec.color == "convert" and is_converted(image)
            if image.format == "JPEG" and image.mode == "RGB" and upright and not converts:
                return source.data if isinstance(source, Encoded) else source.read_bytes()
    packed = io.BytesIO()
    Image.fromarray(read_image(source, spec)).save(packed, "PNG", compress_level=1)
    return packed.getvalue()
