"""Writer of a pack: writes a split as MindRecord files of limited size, and the table of places of its photos."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from finetune.components import Encoded
from finetune.data.pack import mindrecords, packfile
from finetune.data.pool import Pool
from finetune.data.scan import PAUSE, hash_image
from finetune.errors import DataError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.components import Image, Split
    from finetune.data.labelled import Part
    from finetune.data.pack.packfile import PackedFile, PackedSplit, Records

AHEAD = 4  # photos per thread that are read ahead
TOGETHER = 1 << 24  # bytes of photos that are passed to MindRecord's writer at once


class SplitWriter:
    """Writes a split into ``folder``, with the paths of photos relative to ``top``."""

    def __init__(
        self, folder: Path, split: Split, part: Part, classes: tuple[str, ...], sizes: NDArray[np.int64], top: str
    ) -> None:
        self.folder, self.split, self.part, self.classes = folder, split, part, classes
        self.sizes, self.top = sizes, top
        self.done, self.spoke = 0, time.monotonic()

    def write(self, limit: int, workers: int, say: Callable[[str], None]) -> PackedSplit:
        """Write all photos, and return their entry for the index."""
        rows, names = self.folder / f"{self.split}.rows", self.folder / f"{self.split}.names"
        files, self.say = [], say
        with Pool(workers) as pool, rows.open("wb") as table, names.open("wb") as text:
            for number, chosen in enumerate(divide_photos(self.sizes, limit)):
                files.append(self._file(number, chosen, pool, table, text))
                say(f"{files[-1].records.name}: {len(chosen):,} photos, {files[-1].records.bytes / 1e6:,.1f} MB")
            for file in (table, text):
                file.flush()
                os.fsync(file.fileno())
        counts = np.bincount(self.part.labels, minlength=len(self.classes))
        return packfile.PackedSplit(
            classes=self.classes,
            counts=tuple(map(int, counts)),
            rows=describe_file(rows),
            names=describe_file(names),
            files=tuple(files),
        )

    def _file(self, number: int, chosen: range, pool: Pool, table: IO[bytes], text: IO[bytes]) -> Records:
        """Write photos into one MindRecord file, verify each of them, and record its place."""
        path = self.folder / f"{self.split}-{number:05d}.mindrecord"
        page = mindrecords.choose_page_size(self.sizes[chosen.start : chosen.stop])
        mindrecords.write_rows(path, self._batches(chosen, pool), page)
        places = mindrecords.read_places(path, page)
        rows = np.zeros(len(chosen), packfile.ROW)
        rows["label"], rows["file"] = self.part.labels[chosen.start : chosen.stop], number
        for row, index in enumerate(chosen):
            text.write(self._name(self.part.images[index]).encode("utf-8", "surrogateescape"))
            rows["name_end"][row] = text.tell()
            rows["digest"][row] = np.void(bytes.fromhex(str(self.part.hashes[index])))
        if not is_intact(path, places, rows):
            raise ResourceError(f"'{path.name}' was written incorrectly; check the disk, and pack again")
        rows["offset"], rows["length"] = places.T
        table.write(rows.tobytes())
        index_file = mindrecords.locate_index(path)
        return packfile.Records(records=describe_file(path), index=describe_file(index_file), photos=len(chosen))

    def _batches(self, chosen: range, pool: Pool) -> Iterator[list[dict[str, Any]]]:
        """Yield batches of rows for MindRecord, read ahead by the threads of the pool."""
        waiting: deque[tuple[int, Future[tuple[str, bytes]]]] = deque()
        batch: list[dict[str, Any]] = []
        size = 0
        for index in [*chosen, *[-1] * (AHEAD * pool.workers)]:
            if index >= 0:
                waiting.append((index, pool.submit(self._read, index)))
            if waiting and (index < 0 or len(waiting) > AHEAD * pool.workers):
                place, job = waiting.popleft()
                name, data = job.result()
                # MindRecord only takes text; the exact bytes of the path are in the table of names.
                path = name.encode("utf-8", "backslashreplace").decode()
                row = {"data": data, "label": int(self.part.labels[place]), "path": path}
                batch.append({**row, "digest": str(self.part.hashes[place])})
                size += len(data)
                self._report_progress()
            if size > TOGETHER:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _read(self, index: int) -> tuple[str, bytes]:
        """Return the name and content of a photo; raises ``DataError`` if it changed after the scan."""
        image = self.part.images[index]
        if not isinstance(image, Encoded):
            try:
                image = Encoded(name=self._name(image), data=image.read_bytes())  # type: ignore[union-attr]
            except OSError as error:
                name = self.part.describe(index)
                raise DataError(
                    f"'{name}' can no longer be read: {error.strerror}; do not modify photos while packing"
                ) from error
        if hash_image(image) != self.part.hashes[index] or len(image.data) != self.sizes[index]:
            name = self.part.describe(index)
            raise DataError(f"'{name}' changed while packing; pack again without modifying photos")
        return image.name, image.data

    def _name(self, image: Image) -> str:
        """Return the path of a photo relative to ``top``; a photo from another pack keeps its name."""
        if isinstance(image, Encoded):
            return image.name
        return os.path.relpath(image, self.top)  # type: ignore[arg-type]

    def _report_progress(self) -> None:
        self.done += 1
        if time.monotonic() - self.spoke >= PAUSE:
            self.spoke = time.monotonic()
            self.say(f"packing {self.split} photos: {self.done:,} of {len(self.part):,}")


def divide_photos(sizes: NDArray[np.int64], limit: int) -> Iterator[range]:
    """Yield the photos of each file: as many as fit into ``limit`` bytes, but at least one."""
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(sizes):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield range(begin, end)
        begin = end


def is_intact(path: Path, places: NDArray[np.int64], rows: NDArray[np.void]) -> bool:
    """Return whether each photo is in the file, at its place and unchanged."""
    if len(places) != len(rows):
        return False
    with path.open("rb") as file:
        for (offset, length), row in zip(places.tolist(), rows, strict=True):
            file.seek(offset)
            if hash_image(Encoded(name="", data=file.read(length))) != row["digest"].tobytes().hex():
                return False
    return True


def describe_file(path: Path) -> PackedFile:
    """Return the entry of the index for a file."""
    return packfile.PackedFile(name=path.name, bytes=path.stat().st_size, blake2b=hash_image(path))
