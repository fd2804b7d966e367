"""``finetune pack``: copies the photos of a dataset, unchanged, from many small files into a few large ones."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import Encoded
from finetune.data import labelled as given
from finetune.data.audit import REMEDIES, Notes
from finetune.data.corrections import read_corrections
from finetune.data.imagefile import format_path
from finetune.data.loading import SPLITS, correct_splits, examine_split
from finetune.data.pack import mindrecords, packfile
from finetune.data.pack.writer import SplitWriter
from finetune.data.scan import make_progress
from finetune.errors import DataError, ResourceError, UsageError
from finetune.files import atomic
from finetune.files.atomic import expand_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.catalogue import Chosen
    from finetune.components import Dataset, Image, Options, Samples, Split
    from finetune.data.labelled import Part

    Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A dataset to pack into files of about ``limit`` bytes in the folder ``out``; ``force`` replaces a pack there.

    ``corrections`` is a file that excludes images and changes labels, as in a recipe.
    """

    dataset: Chosen[Dataset]
    out: Path
    limit: int
    skip: bool
    workers: int
    say: Say
    force: bool = False
    corrections: Path | None = None


def pack(job: Job) -> dict[str, Any]:
    """Pack all splits of a dataset, and return a report that is ready for JSON.

    The folder appears only when it is complete. Raises ``DataError`` for photos that cannot be used, ``ResourceError``
    if the disk refuses, and ``UsageError`` for a folder that must not be replaced.
    """
    began = time.monotonic()
    out = expand_home(job.out).absolute()
    check_target(out, job.dataset.options, force=job.force)
    notes = Notes()
    with job.dataset.attribute("build"):
        found, parts = gather_splits(job, notes)
    sizes = {
        split: np.array([measure_photo(image) for image in part.images], np.int64) for split, part in parts.items()
    }
    check_free_space(out, sum(int(each.sum()) for each in sizes.values()), sum(map(len, parts.values())))
    top = find_common_folder(parts)
    splits = {}
    with open_workplace(out) as folder:
        for split, part in parts.items():
            writer = SplitWriter(folder, split, part, tuple(found[split].classes), sizes[split], top)
            noticed = [noted.finding for noted in notes.all if noted.split == split]
            about = writer.write(job.limit, job.workers, job.say)
            splits[split] = about.model_copy(
                update={"findings": tuple(packfile.record_finding(each) for each in noticed)}
            )
        complete = packfile.Pack(decoder=packfile.describe_decoder(), dataset=job.dataset.component.name, splits=splits)
        packfile.save_index(folder, complete)
        publish(folder, out)
    return build_report(out, complete, notes, time.monotonic() - began)


def gather_splits(job: Job, notes: Notes) -> tuple[dict[Split, Samples], dict[Split, Part]]:
    """Return the splits as the dataset builds them, and the part of each that can be packed."""
    found = {split: each for split in SPLITS if (each := given.build_split(job.dataset, split)) is not None}
    if job.corrections is not None:
        corrections = read_corrections(job.corrections)
        found = correct_splits(found, corrections, f"dataset '{job.dataset.component.name}'")
        job.say(f"note: {job.corrections}: {corrections.describe()}")
    what = f"dataset '{job.dataset.component.name}'"
    if "train" not in found:
        raise DataError(f"{what} has no training split; `build` must return Samples for 'train'")
    parts = {split: select_usable(split, samples, what, job, notes) for split, samples in found.items()}
    for split, part in parts.items():
        if not len(part):
            notes.add("split", "error", split, "images", "the split has no images to pack")
    skip = "repair or remove these files, or skip them with --on-bad-image skip"
    notes.raise_errors(what, {**REMEDIES, "image": skip})
    return found, parts


def select_usable(split: Split, samples: Samples, what: str, job: Job, notes: Notes) -> Part:
    """Select the photos of a split that can be decoded and packed."""
    first = samples.images[0] if len(samples) else None
    if isinstance(first, np.ndarray):
        raise DataError(f"{what} returns arrays; only photos in files can be packed")
    classes = tuple(samples.classes)
    part = examine_split(
        samples, classes, f"{what} {split}", split, job.workers, notes, skip=job.skip, progress=make_progress(job.say)
    )
    large = [index for index, image in enumerate(part.images) if measure_photo(image) > mindrecords.LARGEST_PHOTO]
    for index in large:
        text = f"has more than {mindrecords.LARGEST_PHOTO:,} bytes, the limit of MindRecord"
        notes.add("image", "warning" if job.skip else "error", split, part.name_of(index), text)
    return part.select(np.setdiff1d(np.arange(len(part)), large), split) if large else part


def measure_photo(image: Image) -> int:
    """Return the size of a photo in bytes."""
    if isinstance(image, Encoded):
        return len(image.data)
    if not isinstance(image, Path):
        raise DataError("the dataset returns arrays among its photos; only photos in files can be packed")
    try:
        return os.stat(image).st_size
    except OSError as error:
        wrong = f"'{format_path(image)}' can no longer be read: {error.strerror}"
        raise DataError(f"{wrong}; do not modify photos while packing") from error


def find_common_folder(parts: dict[Split, Part]) -> str:
    """Return the deepest folder that contains all photos; empty without photo files."""
    images = (image for part in parts.values() for image in part.images)
    folders = {str(image.absolute().parent) for image in images if isinstance(image, Path)}
    return os.path.commonpath(folders) if folders else ""


def check_target(out: Path, options: Options, *, force: bool) -> None:
    """Raise ``UsageError`` if the folder is not empty, is among the photos, or has a name that MindRecord rejects.

    ``force`` allows replacing a pack, unless it is the one to read or its folder holds other files.
    """
    root = getattr(options, "root", None)
    if isinstance(root, Path) and not hasattr(options, "file") and lies_in(out, expand_home(root)):
        wrong = f"'{format_path(out)}' is in the folder of the photos, '{format_path(root)}'"
        raise UsageError(f"{wrong}; name a folder outside it")
    if packfile.is_pack(out):
        if not force:
            name = format_path(out)
            raise UsageError(f"'{name}' already is a pack; remove it, name another folder, or pass --force")
        if others := sorted(each.name for each in out.iterdir() if not packfile.is_part(each.name)):
            raise UsageError(
                f"'{format_path(out)}' holds more than a pack, such as '{format_path(others[0])}'; name another folder"
            )
    elif os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"'{format_path(out)}' already exists; name a new folder for the pack")
    if any("\ud800" <= char <= "\udfff" for char in str(out)):
        raise UsageError(f"'{format_path(out)}' is not valid UTF-8, which MindRecord requires; name another folder")


def lies_in(out: Path, folder: Path) -> bool:
    """Return whether a folder is another one or is inside it, after following links."""
    return Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder))


def check_free_space(out: Path, total: int, photos: int) -> None:
    """Raise ``ResourceError`` if the disk has not enough free space for the pack."""
    there = next(folder for folder in out.parents if folder.exists())
    need = int(total * 1.02) + 400 * photos + 2 * mindrecords.SMALLEST_PAGE
    free = shutil.disk_usage(there).free
    if free < need:
        sizes = f"{need / 1e9:,.2f} GB, but only {free / 1e9:,.2f} GB are free"
        raise ResourceError(f"cannot write '{out}': the pack takes {sizes}; free some space or choose another folder")


@contextmanager
def open_workplace(out: Path) -> Iterator[Path]:
    """Yield an empty hidden folder next to ``out``, which is removed afterwards, with leftovers of killed processes."""
    folder = out.with_name(f".{out.name}.packing")
    with atomic.translate_disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"another process is packing into '{out}'; wait for it, or name another folder") from error
        try:
            with atomic.translate_disk_errors(out):
                for left in folder.iterdir():
                    left.unlink()
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def publish(folder: Path, out: Path) -> None:
    """Move the finished folder to ``out``, replacing a pack that is there."""
    with atomic.translate_disk_errors(out):
        atomic.sync_folder(folder)
        out = Path(os.path.realpath(out))
        before = atomic.make_temporary_name(out)
        with suppress(FileNotFoundError):
            os.rename(out, before)
        os.rename(folder, out)
        shutil.rmtree(before, ignore_errors=True)
    atomic.sync_folder(out.parent)


def build_report(out: Path, pack: packfile.Pack, notes: Notes, seconds: float) -> dict[str, Any]:
    """Return what was packed, ready for JSON."""
    files = [each for about in pack.splits.values() for each in about.every_file()]
    return {
        "pack": str(out),
        "photos": {split: sum(about.counts) for split, about in pack.splits.items()},
        "classes": len(pack.splits["train"].classes),
        "files": len(files),
        "bytes": sum(each.bytes for each in files),
        "seconds": round(seconds, 1),
        "findings": notes.report(),
    }
