"""Measure what grows with the number of images, each in a process of its own: docs/scale.md says what follows.

    python benchmarks/scale.py [--largest 100000000] [--only listing paths packed order step reading]

Photos are drawn only where files have to be there (100,000 of them); all else is simulated: paths without files, and
the table of a pack whose photos are never read. Prints seconds, and the growth of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measured import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.components import Samples

CLASSES = 1000
BATCH = 256


class Clock:
    """Seconds and memory of one stage after the other."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}
        self.began, self.base = time.perf_counter(), peak_mb()

    def stage(self, name: str) -> None:
        """Note what happened since the stage before, and the peak of memory so far."""
        self.found[name] = (time.perf_counter() - self.began, peak_mb() - self.base)
        self.began = time.perf_counter()


def peak_mb() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def listing(count: int) -> Clock:
    """Measure listing and scanning files of 64 x 64 pixels, whose decoding takes little."""
    from PIL import Image

    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.components import Dataset
    from finetune.data.scan import scan

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FINETUNE_HOME"] = f"{scratch}/home"
        top, rng = Path(scratch) / "photos", np.random.default_rng(0)
        for number in range(count):
            folder = top / f"class{number % 100:03d}"
            if number < 100:
                folder.mkdir(parents=True)
            pixels = np.full((64, 64, 3), rng.integers(0, 255, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:08d}.jpg")
        component: Any = Catalogue(plugins.load_plugins()).get(Dataset, "folder")
        clock = Clock()
        samples = component.build(component.options(root=top), "train")
        clock.stage("list")
        scan(samples, "train", 2)
        clock.stage("scan, first (tiny files)")
        scan(samples, "train", 2)
        clock.stage("scan, unchanged")
        return clock


def prepared(samples: Samples, clock: Clock) -> Clock:
    """Do with samples that need no scan what a run does before its first step."""
    from finetune.data import audit, loading
    from finetune.data.audit import Notes
    from finetune.recipe.models import DatasetSection

    notes, classes = Notes(), samples.classes
    part = loading.examine_split(samples, classes, "train", "train", 0, notes)
    clock.stage("labels")
    parts: Any = {"train": part}
    loading.split_off_validation(parts, DatasetSection(use="none"), 0, notes, classes)
    clock.stage("validation split")
    audit.note_duplicates(parts.values(), classes, notes)
    clock.stage("duplicates")
    loading.fingerprint(parts["train"])
    clock.stage("fingerprint")
    return clock


def paths(count: int) -> Clock:
    """Measure photos in files of their own, after their scan."""
    from finetune.components import Samples

    clock = Clock()
    names = tuple(f"class{number:04d}" for number in range(CLASSES))
    images = [Path(f"/data/photos/train/{names[i % CLASSES]}/{i:09d}.jpg") for i in range(count)]
    clock.stage("paths")
    hashes = tuple(f"{i:032x}" for i in range(count))
    labels = [i % CLASSES for i in range(count)]
    clock.stage("hashes, labels")
    return prepared(Samples(images=images, labels=labels, classes=names, digests=hashes), clock)


def packed(count: int) -> Clock:
    """Measure the same photos in a pack."""
    from finetune.components import Samples
    from finetune.data.pack import packed as reading

    with tempfile.TemporaryDirectory(dir=".") as scratch:
        root = Path(scratch)
        about = simulated(root, count)
        clock = Clock()
        table = reading.read_rows(root, about)
        clock.stage("table")
        samples = Samples(
            images=reading.Packed(root, about, table),
            labels=np.ascontiguousarray(table["label"]),  # type: ignore[arg-type]
            classes=about.classes,
            digests=reading.Digests(table),
        )
        return prepared(samples, clock)


def simulated(root: Path, count: int) -> Any:
    """Write the table of a pack of 100 kB photos, and return what its index says about it."""
    from finetune.data.pack import packfile

    each = 10_000  # photos in a file of 1 GB
    with (root / "train.rows").open("wb") as file:
        for begin in range(0, count, 10**5):  # in small pieces, so that they do not count as memory
            some = np.arange(begin, min(begin + 10**5, count))
            table = np.zeros(len(some), packfile.ROW)
            table["digest"] = np.stack([some, some], axis=1).astype("<i8").view("V16")[:, 0]
            table["offset"], table["length"] = some % each * 100_000, 100_000
            table["name_end"], table["label"], table["file"] = 20 * (some + 1), some % CLASSES, some // each
            table.tofile(file)
    (root / "train.names").write_bytes(b"")
    none = {"blake2b": "0" * 32}

    def files() -> Iterator[packfile.Records]:
        for number in range(-(-count // each)):
            name = f"train-{number:05d}.mindrecord"
            whole = packfile.PackedFile(name=name, bytes=10**9, **none)
            beside = packfile.PackedFile(name=f"{name}.db", bytes=1, **none)
            yield packfile.Records(records=whole, index=beside, photos=min(each, count - number * each))

    return packfile.PackedSplit(
        classes=tuple(f"class{number:04d}" for number in range(CLASSES)),
        counts=tuple(count // CLASSES + (number < count % CLASSES) for number in range(CLASSES)),
        rows=packfile.PackedFile(name="train.rows", bytes=48 * count, **none),
        names=packfile.PackedFile(name="train.names", bytes=20 * count, **none),
        files=tuple(files()),
    )


def order(count: int) -> Clock:
    """Measure the order of an epoch."""
    from finetune.data import loader

    clock = Clock()
    np.random.default_rng(0).permutation(count)
    clock.stage("permutation")
    loader.compute_order(count, BATCH, 0, 1, shuffled=True)
    clock.stage("order of an epoch")
    return clock


def step(count: int) -> Clock:
    """Measure what finding its share costs one of eight processes, in a thousand steps."""
    from finetune.data import loader
    from finetune.distributed.world import World

    world = World(rank=7, size=8)
    every = np.arange(count)
    clock = Clock()
    for number in loader.assign_batches(0, 1000, world, shuffled=True):
        rows = loader.assign_rows(number, BATCH, world, shuffled=True)
        every[rows.start : rows.stop].copy()
    clock.stage("1,000 steps' shares")
    return clock


def reading(count: int) -> Clock:
    """Measure reading photos of 100 kB at random from a pack that the system has in memory."""
    from finetune.data.pack.packed import Packed, make_stamp
    from finetune.data.pack.packfile import ROW

    with tempfile.TemporaryDirectory(dir=".") as scratch:
        root = Path(scratch)
        about = simulated(root, 10_000)
        content = os.urandom(100_000)
        with (root / about.files[0].records.name).open("wb") as file:
            for _ in range(2000):
                file.write(content)
        (root / "train.names").write_bytes(b"x" * 200_000)
        table = np.fromfile(root / "train.rows", ROW)[:2000]
        stamps = {
            str(root / each.records.name): make_stamp(os.stat(root / each.records.name)) for each in about.files[:1]
        }
        images = Packed(root, about, table, stamps)
        clock = Clock()
        for place in np.random.default_rng(0).integers(0, 2000, count).tolist():
            images[place]
        clock.stage("read")
        return clock


PARTS = {
    "listing": (listing, [100_000]),
    "paths": (paths, [10**6, 3 * 10**6]),
    "packed": (packed, [10**6, 10**7]),
    "order": (order, [10**6, 10**7, 10**8]),
    "step": (step, [10**8]),
    "reading": (reading, [10_000]),
}


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--largest", type=int, default=10**8)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(PARTS[asked.one[0]][0](int(asked.one[1])).found))
        return
    print(machine(), "", "| what | images | seconds | µs an image | peak, MB | bytes an image |", sep="\n")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in asked.only:
        for count in (count for count in PARTS[name][1] if count <= asked.largest):
            words = [sys.executable, __file__, "--one", name, str(count)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            for stage, (seconds, grown) in json.loads(done.stdout.splitlines()[-1]).items():
                cells = f"{seconds:.2f} | {seconds / count * 1e6:.3f} | {grown:,.0f} | {grown * 2**20 / count:.0f}"
                print(f"| {name}: {stage} | {count:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
