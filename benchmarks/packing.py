"""Measure photos packed into MindRecord files against the same photos in files of their own.

    python benchmarks/packing.py --data photos/ [--rounds 5] [--workers 2]

Packs a folder of photos, then loads epochs from the pack and from the files in turn. Prints a table of photos a second,
and of the processor's time a photo, which other work on the machine disturbs less: training with the standard
augmentation, evaluation, and evaluation with the files' pages thrown out of memory before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measured import machine

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.components import Dataset, ImageSpec
from finetune.data.labelled import Part, build_split, check_samples
from finetune.data.loader import Loader
from finetune.data.pack.packing import Job, pack
from finetune_plugins.albumentations import Albumentations
from finetune_plugins.albumentations import build as augmentation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from finetune.catalogue import Catalogue as Offers


def part(offers: Offers, name: str, root: Path) -> Part:
    """Return the training photos below a folder."""
    component: Any = offers.get(Dataset, name)
    samples = build_split(offers.choose(component, component.options(root=root)), "train")
    assert samples is not None
    return Part(name=name, images=samples.images, labels=check_samples(samples, name))


def evict(files: Iterable[Path]) -> None:
    """Ask the system to forget the content of files, so that it comes from the disk."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def speed(photos: Part, spec: ImageSpec, epoch: int, *, train: bool, workers: int) -> tuple[float, float]:
    """Return photos a second of an epoch in batches of 32, and the processor's milliseconds for each."""
    transforms = (augmentation(Albumentations(), spec),) if train else ()
    loader = Loader(photos, spec, batch_size=32, workers=workers, seed=0, transforms=transforms, train=train)
    began, worked = time.perf_counter(), time.process_time()
    count = sum(batch.count for batch in loader.epoch(epoch))
    loader.close()
    return count / (time.perf_counter() - began), (time.process_time() - worked) * 1e3 / count


def line(name: str, sides: tuple[list[tuple[float, float]], ...]) -> str:
    """Return a row of the table."""
    cells = []
    for side in sides:
        speeds, costs = zip(*side, strict=True)
        cells.append(f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})")
        cells.append(f"{statistics.median(costs):.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos, as the dataset `folder` reads it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    offers, spec = Catalogue(plugins.load_plugins()), ImageSpec()
    folder: Any = offers.get(Dataset, "folder")
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        out = Path(scratch) / "pack"
        job = Job(
            dataset=offers.choose(folder, folder.options(root=asked.data)),
            out=out,
            limit=10**9,
            skip=False,
            workers=asked.workers,
            say=lambda _: None,
        )
        report = pack(job)
        sides = part(offers, "folder", asked.data), part(offers, "mindrecord", out)
        print(machine(), "", f"packed {report['photos']} in {report['seconds']} s, {report['bytes'] / 1e6:,.1f} MB", "")
        print("| photos/s | files | ms | packed | ms |", "| --- | --- | --- | --- | --- |", sep="\n")
        content = [path for path in asked.data.rglob("*") if path.is_file()], [*out.iterdir()]
        for name, train, cold in (
            ("training, `standard`", True, False),
            ("evaluation", False, False),
            ("evaluation, from the disk", False, True),
        ):
            found: tuple[list[tuple[float, float]], ...] = [], []
            for number in range(asked.rounds + 1):  # of which the first warms up
                for side in (0, 1) if number % 2 else (1, 0):
                    if cold:
                        evict(content[side])
                    found[side].append(speed(sides[side], spec, number + 1, train=train, workers=asked.workers))
            print(line(name, tuple(side[1:] for side in found)), flush=True)


if __name__ == "__main__":
    main()
