"""Feature store: float16 rows in shards that are written atomically, verified by a hash, and mapped into memory.

    FOLDER/entry.json    what the features depend on; the folder is named by its hash
    FOLDER/00007.f16     rows 7 x N to 8 x N - 1, then 16 bytes of BLAKE2b over them and their position

A killed run leaves its complete shards, and the next run continues from there. A shard with a wrong hash is recomputed.
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
# Small enough that an interrupt loses only seconds of work, large enough that a cache has at most thousands of files.
SHARD_BYTES = 32 << 20
SHARD_ROWS = 256
# Pages of larger rows are released after reading: they stay in the system's cache, not in this process's memory.
LARGE_ROW = 64 << 10  # bytes
# Smaller rows are loaded into one array up to this size: reading them one by one would take as long as a step.
HELD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``count`` rows of one ``shape``, in shards in ``folder``, each with a multiple of ``chunk`` rows."""

    folder: Path
    count: int
    shape: tuple[int, ...]
    chunk: int

    @property
    def rows(self) -> int:
        """The number of rows in a shard."""
        fitting = min(SHARD_ROWS, SHARD_BYTES // (2 * prod(self.shape)))
        return self.chunk * max(1, fitting // self.chunk)

    @property
    def takes(self) -> int:
        """The size of all rows in bytes."""
        return self.count * 2 * prod(self.shape)

    def list_shards(self) -> list[range]:
        """Return the rows of each shard."""
        return [range(start, min(start + self.rows, self.count)) for start in range(0, self.count, self.rows)]

    def path_of_shard(self, number: int) -> Path:
        return self.folder / f"{number:05d}.f16"

    def list_missing(self, numbers: Sequence[int] | None = None) -> list[int]:
        """Return which of the given shards, or of all, are missing or damaged; damaged ones are removed."""
        shards = self.list_shards()
        wanted = range(len(shards)) if numbers is None else numbers
        return [number for number in wanted if not self._is_sound(number, len(shards[number]))]

    def list_absent(self) -> list[int]:
        """Return the shards that do not exist, without verifying the others."""
        return [number for number in range(len(self.list_shards())) if not self.path_of_shard(number).exists()]

    def _is_sound(self, number: int, rows: int) -> bool:
        path = self.path_of_shard(number)
        with suppress(OSError):
            data = memoryview(path.read_bytes())
            if len(data) == rows * 2 * prod(self.shape) + SEAL and self.seal(number, data[:-SEAL]) == data[-SEAL:]:
                return True
            path.unlink()
        return False

    def write(self, number: int, rows: Rows) -> None:
        """Write a shard atomically; raises ``ResourceError`` if the disk refuses."""
        data = np.ascontiguousarray(rows, np.float16).data.cast("B")
        with atomic.atomic_path(self.path_of_shard(number)) as part, part.open("wb") as file:
            file.write(data)
            file.write(self.seal(number, data))

    def seal(self, number: int, data: memoryview) -> bytes:
        """Return the hash at the end of a shard: of its rows, its number, and its table."""
        place = f"{self.folder.name} {number} {self.count} {self.shape}"
        return hashlib.blake2b(data, digest_size=SEAL, key=hashlib.blake2b(place.encode()).digest()).digest()

    def read(self) -> CachedRows:
        """Return all rows, mapped into memory or, if they are small and few, loaded."""
        if 2 * prod(self.shape) < LARGE_ROW and self.takes <= HELD_BYTES:
            return CachedRows([self._map_shard()], [], self.count)
        maps, shards = [], []
        for number, rows in enumerate(self.list_shards()):
            with self.path_of_shard(number).open("rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            flat = np.frombuffer(maps[-1], np.float16, count=len(rows) * prod(self.shape))
            shards.append(flat.reshape(len(rows), *self.shape))
        return CachedRows(shards, maps, self.rows)

    def _map_shard(self) -> Rows:
        whole = np.empty((self.count, *self.shape), np.float16)
        for number, rows in enumerate(self.list_shards()):
            with self.path_of_shard(number).open("rb") as file:
                room = whole[rows.start : rows.stop].data.cast("B")
                if file.readinto(room) != len(room):
                    raise OSError(f"'{file.name}' became shorter while it was read")
        return whole


@dataclass(frozen=True, slots=True)
class CachedRows:
    """Rows in shards of ``size``; ``maps`` are the files that are mapped, empty if the rows are loaded."""

    shards: list[Rows]
    maps: list[mmap.mmap]
    size: int

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows as float32, in the order of ``indices``."""
        if not self.maps:
            return self.shards[0][indices].astype(np.float32)
        out = np.empty((len(indices), *self.shards[0].shape[1:]), np.float32)
        for place, index in enumerate(indices.tolist()):
            out[place] = self.shards[index // self.size][index % self.size]
        if 2 * out[:1].size >= LARGE_ROW and hasattr(mmap, "MADV_DONTNEED"):
            for number in {*(indices // self.size).tolist()}:
                self.maps[number].madvise(mmap.MADV_DONTNEED)
        return out
