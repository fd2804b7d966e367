"""Features on disk: float16 rows in shards that are written whole, sealed with a hash, and mapped into memory.

    FOLDER/entry.json    what the features are of; the name of the folder is its hash
    FOLDER/00007.f16     rows 7 x N to 8 x N - 1, then 16 bytes of BLAKE2b over them and their place

A killed run leaves the shards that were complete, which the next one goes on from. One that does not have its hash is
made anew.
"""

from __future__ import annotations

import hashlib
import mmap
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Rows = NDArray[np.float16]

SEAL = 16  # bytes
# So that an interrupt loses seconds of work, and a large cache has thousands of files at most.
SHARD_BYTES = 32 << 20
SHARD_ROWS = 256
# Pages of larger rows are let go of once they are read: they stay in the system's cache, not in this process's memory.
LARGE_ROW = 64 << 10  # bytes
# Smaller rows are held in one array, up to that many bytes: taken from shards one by one they cost as much as a step.
HELD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``count`` rows of one ``shape``, in shards below ``folder`` that hold a multiple of ``chunk`` rows each."""

    folder: Path
    count: int
    shape: tuple[int, ...]
    chunk: int

    @property
    def rows(self) -> int:
        """How many rows a shard has."""
        fitting = min(SHARD_ROWS, SHARD_BYTES // (2 * prod(self.shape)))
        return self.chunk * max(1, fitting // self.chunk)

    @property
    def takes(self) -> int:
        """How many bytes all rows take."""
        return self.count * 2 * prod(self.shape)

    def shards(self) -> list[range]:
        """Return the rows of each shard."""
        return [range(start, min(start + self.rows, self.count)) for start in range(0, self.count, self.rows)]

    def path(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{number:05d}.f16"

    def missing(self, numbers: Sequence[int] | None = None) -> list[int]:
        """Return which of some shards, or of all, are not there or damaged; the latter are removed."""
        shards = self.shards()
        wanted = range(len(shards)) if numbers is None else numbers
        return [number for number in wanted if not self._sound(number, len(shards[number]))]

    def absent(self) -> list[int]:
        """Return the shards that are not there, without reading those that are."""
        return [number for number in range(len(self.shards())) if not self.path(number).exists()]

    def _sound(self, number: int, rows: int) -> bool:
        path = self.path(number)
        with suppress(OSError):
            data = memoryview(path.read_bytes())
            if len(data) == rows * 2 * prod(self.shape) + SEAL and self.seal(number, data[:-SEAL]) == data[-SEAL:]:
                return True
            path.unlink()
        return False

    def write(self, number: int, rows: Rows) -> None:
        """Write a shard, whole or not at all; raises ``ResourceError`` if the disk refuses."""
        data = np.ascontiguousarray(rows, np.float16).data.cast("B")
        with atomic.atomic_path(self.path(number)) as part, part.open("wb") as file:
            file.write(data)
            file.write(self.seal(number, data))

    def seal(self, number: int, data: memoryview) -> bytes:
        """Return the hash that a shard ends with: of its rows, its number, and the table that it belongs to."""
        place = f"{self.folder.name} {number} {self.count} {self.shape}"
        return hashlib.blake2b(data, digest_size=SEAL, key=hashlib.blake2b(place.encode()).digest()).digest()

    def read(self) -> Kept:
        """Return all rows, mapped into memory or, where they are small and few, held there."""
        if 2 * prod(self.shape) < LARGE_ROW and self.takes <= HELD_BYTES:
            return Kept([self._held()], [], self.count)
        maps, shards = [], []
        for number, rows in enumerate(self.shards()):
            with self.path(number).open("rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            flat = np.frombuffer(maps[-1], np.float16, count=len(rows) * prod(self.shape))
            shards.append(flat.reshape(len(rows), *self.shape))
        return Kept(shards, maps, self.rows)

    def _held(self) -> Rows:
        whole = np.empty((self.count, *self.shape), np.float16)
        for number, rows in enumerate(self.shards()):
            with self.path(number).open("rb") as file:
                room = whole[rows.start : rows.stop].data.cast("B")
                if file.readinto(room) != len(room):
                    raise OSError(f"'{file.name}' became shorter while it was read")
        return whole


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows in shards of ``size``; ``maps`` are the files behind them, if they are not held."""

    shards: list[Rows]
    maps: list[mmap.mmap]
    size: int

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows as float32, in the order asked for."""
        if not self.maps:
            return self.shards[0][indices].astype(np.float32)
        out = np.empty((len(indices), *self.shards[0].shape[1:]), np.float32)
        for place, index in enumerate(indices.tolist()):
            out[place] = self.shards[index // self.size][index % self.size]
        if 2 * out[:1].size >= LARGE_ROW and hasattr(mmap, "MADV_DONTNEED"):
            for number in {*(indices // self.size).tolist()}:
                self.maps[number].madvise(mmap.MADV_DONTNEED)
        return out
