"""Feature cache: opens stored features, or computes and stores them within the limits of the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from finetune.distributed.world import SINGLE_PROCESS
from finetune.errors import ResourceError
from finetune.features import entries
from finetune.features.features import TooLarge
from finetune.features.store import Table
from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from finetune.distributed.world import World
    from finetune.features.entries import Entry
    from finetune.features.store import CachedRows

Check = Callable[[], None]
Fill = Callable[[Table, "Sequence[int]"], int]
T = TypeVar("T")
GB = 10**9


@dataclass(slots=True)
class Counts:
    """Counts of images computed and reused, with the seconds spent and saved; each view counts separately."""

    computed: int = 0
    seconds: float = 0.0
    reused: int = 0
    saved: float = 0.0

    def report(self) -> dict[str, float]:
        """Return the counts for ``result.json``."""
        seconds, saved = round(self.seconds, 3), round(self.saved, 3)
        return {"computed": self.computed, "seconds": seconds, "reused": self.reused, "saved_seconds": saved}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for rows: one view of one part; ``name`` describes it in messages."""

    about: dict[str, Any]
    count: int
    name: str = "images"

    @property
    def entry(self) -> Entry:
        return entries.locate_entry(self.about)

    def find_seconds(self) -> float | None:
        """Return the seconds that the rows took if all of them seem to be stored; reading verifies their hashes."""
        known, entry = self.entry.read(), self.entry
        spent: float | None = known.get("seconds")
        if not spent:
            return None
        table = Table(folder=entry.folder, count=self.count, shape=tuple(known["shape"]), chunk=1)
        return spent if entries.measure_size(entry.folder) >= table.takes else None


@dataclass(slots=True)
class FeatureCache:
    """Stores features in the cache; ``problem`` is the reason why it stopped, empty if it did not."""

    limit: int  # bytes
    say: Callable[[str], None]
    world: World = SINGLE_PROCESS
    counts: Counts = field(default_factory=Counts)
    problem: str = ""
    _wanted: set[Path] = field(default_factory=set)

    def begin(self, wanted: list[Request], shape: tuple[int, ...]) -> None:
        """Make room for the requested rows that are not stored yet."""
        self._wanted = {each.entry.folder for each in wanted}
        needed = sum(each.count for each in wanted) * 2 * prod(shape)
        problem = self.world.broadcast(self._make_room(needed) if self.world.is_main else "")
        if problem:
            self._give_up(problem)

    def _make_room(self, needed: int) -> str:
        """Make room; return the reason if that is impossible, else an empty string."""
        try:
            with atomic.translate_disk_errors(entries.locate_cache()):
                entries.locate_cache().mkdir(parents=True, exist_ok=True)
        except ResourceError as error:
            return f"{error} with FINETUNE_HOME"
        there = sum(map(entries.measure_size, self._wanted))
        with entries.lock_cache():
            return entries.make_room(max(0, needed - there), self.limit, self._wanted)

    def open(
        self, wanted: Request, shape: Callable[[], tuple[int, ...]], chunk: int, fill: Fill, check: Check
    ) -> CachedRows | None:
        """Return the rows, computing missing ones with ``fill``; returns None if they cannot be stored.

        With several processes, the first locks the entry, and each fills its share.
        """
        entry = wanted.entry
        known = self.world.broadcast(entry.read())
        if self.problem and not known.get("seconds"):
            return None
        sides = tuple(known["shape"]) if known else shape()
        table = Table(folder=entry.folder, count=wanted.count, shape=sides, chunk=chunk)
        try:
            with self._lock_entry(entry, table, check):
                computed, seconds = self._complete(entry, table, fill)
                kept = self._run_everywhere(table.read)
        except TooLarge:
            raise
        except ResourceError as error:
            self._give_up(str(error))
            return None
        if computed and known.get("seconds"):
            self.say(f"{computed:,} features of {wanted.name} were damaged or missing and have been recomputed")
        self.counts.computed, self.counts.seconds = self.counts.computed + computed, self.counts.seconds + seconds
        self.counts.reused += wanted.count - computed
        spent = entry.read().get("seconds") or 0.0
        self.counts.saved += spent * (wanted.count - computed) / wanted.count
        return kept

    def _run_everywhere(self, work: Callable[[], T]) -> T:
        """Do this process's share of some work and return its result; a disk error in one process fails all of them."""
        result, problem, large = None, "", False
        with self.world.collective():
            try:
                result = work()
            except (ResourceError, OSError) as error:
                refused = isinstance(error, OSError) or isinstance(
                    error.__cause__, OSError
                )  # refused by the disk, not by the size limit
                problem, large = f"{error} with FINETUNE_HOME" if refused else str(error), isinstance(error, TooLarge)
        for text, beyond in self.world.gather([problem, large]):
            if text:
                raise TooLarge(text) if beyond else ResourceError(text)
        return cast("T", result)

    @contextmanager
    def _lock_entry(self, entry: Entry, table: Table, check: Check) -> Iterator[None]:
        """Lock an entry inside a block, with room reserved for its table."""
        with ExitStack() as stack:

            def begin() -> None:
                if self.world.is_main:
                    if stack.enter_context(entry.lock(self.say, check)):
                        atomic.sweep(entry.folder, older_than=0.0)  # temporary files of a killed run
                    self._claim(entry, table)

            self._run_everywhere(begin)
            yield

    def _claim(self, entry: Entry, table: Table) -> None:
        """Reserve the room for an incomplete table; raises ``ResourceError`` if different runs took it meanwhile."""
        if entry.read().get("seconds"):
            return
        takes = table.takes
        with entries.lock_cache():
            needed = max(0, takes - entries.measure_size(entry.folder))
            if problem := entries.make_room(needed, self.limit, self._wanted | {entry.folder}):
                raise ResourceError(problem)
            if not entry.read():
                entry.write(table.shape, None, takes)

    def _complete(self, entry: Entry, table: Table, fill: Fill) -> tuple[int, float]:
        """Fill the missing shards of the table; return how many rows were computed, and the seconds."""
        known, world = self.world.broadcast(entry.read()), self.world
        began = time.monotonic()
        own = np.array_split(range(len(table.list_shards())), world.size)[world.rank].tolist()
        done = self._run_everywhere(lambda: fill(table, table.list_missing(own)))
        if world.size > 1:  # a machine with its own cache still lacks the other machines' shares
            done += self._run_everywhere(lambda: fill(table, table.list_absent()[world.local_rank :: world.local_size]))
        computed, seconds = sum(world.gather(done)), time.monotonic() - began
        if world.local_rank == 0:
            if computed or not known.get("seconds"):
                # If several runs filled the table, the last one's share is extrapolated to all rows.
                whole = seconds * table.count / computed if computed else known.get("seconds") or seconds
                entry.write(table.shape, whole, table.takes)
            entry.use()
        world.barrier()
        return computed, seconds if computed else 0.0

    def _give_up(self, problem: str) -> None:
        if not self.problem:
            self.say(f"warning: features are not cached but computed in every epoch: {problem}")
        self.problem = self.problem or problem
