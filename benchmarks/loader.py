"""How many photos a second two threads decode, augment and put into batches, and what each stage costs alone.

    python benchmarks/loader.py --data photos/        # any folder with photos below it

Prints two tables; the first holds the median, least and most of several rounds over all photos.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from finetune.components import ImageSpec
from finetune.data.images import fit, normalise, read_image
from finetune.data.labelled import Part
from finetune.data.loader import Loader
from finetune_plugins.albumentations import Albumentations, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def photos(folder: Path, limit: int) -> Part:
    """Return the first photos below a folder, spread over all of it."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"no photos below {folder}")
    chosen = found[:: max(1, len(found) // limit)][:limit]
    return Part(name="photos", images=chosen, labels=np.zeros(len(chosen), np.int64))


def epochs(loader: Loader, rounds: int) -> list[float]:
    """Return photos a second of each epoch, after one batch to warm up."""
    warm = loader.epoch(1)
    next(warm)
    warm.close()
    speeds = []
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        count = sum(int(batch.weights.sum()) for batch in loader.epoch(number))
        speeds.append(count / (time.perf_counter() - start))
    return speeds


def stages(part: Part, spec: ImageSpec, count: int = 200) -> Iterable[tuple[str, float]]:
    """Yield each stage with its milliseconds a photo in one thread."""
    paths = [part.images[i % len(part)] for i in range(count)]
    augment, rng = build(Albumentations(), spec), np.random.default_rng(0)
    row = np.empty((3, spec.size, spec.size), np.float32)
    decoded = [read_image(path, spec) for path in paths]
    fitted = [fit(pixels, spec) for pixels in decoded]
    yield "decode", each(paths, lambda path: read_image(path, spec))
    yield "augment (standard)", each(decoded, lambda pixels: augment(pixels, rng))
    yield "fit (evaluation)", each(decoded, lambda pixels: fit(pixels, spec))
    yield "normalise into the batch", each(fitted, lambda pixels: normalise(pixels, spec, row))


def each(items: list[T], work: Callable[[T], object]) -> float:
    """Return milliseconds for one item."""
    work(items[0])
    start = time.perf_counter()
    for item in items:
        work(item)
    return (time.perf_counter() - start) / len(items) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with photos below it")
    parser.add_argument("--photos", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    part, spec = photos(chosen.data, chosen.photos), ImageSpec()
    augment = build(Albumentations(), spec)
    print(f"{len(part)} photos, {chosen.workers} threads, batches of 32 at {spec.size} px, {chosen.rounds} rounds")
    print(f"\n{'photos/s':<26}{'median':>8}{'least':>8}{'most':>8}")
    for name, train in (("training (standard)", True), ("evaluation", False)):
        loader = Loader(
            part,
            spec,
            batch_size=32,
            workers=chosen.workers,
            seed=0,
            transforms=(augment,) if train else (),
            train=train,
        )
        speeds = epochs(loader, chosen.rounds)
        loader.close()
        print(f"{name:<26}{statistics.median(speeds):>8.0f}{min(speeds):>8.0f}{max(speeds):>8.0f}")
    print(f"\n{'one thread':<26}{'ms a photo':>10}")
    for name, cost in stages(part, spec):
        print(f"{name:<26}{cost:>10.2f}")


if __name__ == "__main__":
    main()
