"""``finetune pack``: the photos of a dataset, as they are, in a few large files in place of many small ones."""

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
from finetune.data.imagefile import shown
from finetune.data.loading import SPLITS, examined
from finetune.data.pack import mindrecords, packfile
from finetune.data.pack.writer import SplitWriter
from finetune.data.scan import told
from finetune.errors import DataError, ResourceError, UsageError
from finetune.files import atomic
from finetune.files.atomic import expand_home
from finetune.plugins import attribute_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.components import Dataset, Image, Options, Samples, Split
    from finetune.data.labelled import Part
    from finetune.plugins import Origin

    Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is packed where: files of about ``limit`` bytes in the folder ``out``, where ``force`` replaces a pack."""

    dataset: Dataset
    options: Options
    origin: Origin
    out: Path
    limit: int
    skip: bool
    workers: int
    say: Say
    force: bool = False


def pack(job: Job) -> dict[str, Any]:
    """Pack all splits of a dataset, and return what was done, ready for JSON.

    The folder appears when it is whole. Raises ``DataError`` for photos that cannot be used, ``ResourceError`` if the
    disk refuses, ``UsageError`` if the folder cannot be meant.
    """
    began = time.monotonic()
    out = expand_home(job.out).absolute()
    check_out(out, job.options, force=job.force)
    notes = Notes()
    with attribute_errors(job.origin, f"build of dataset '{job.dataset.name}'"):
        found, parts = gathered(job, notes)
    sizes = {split: np.array([size_of(image) for image in part.images], np.int64) for split, part in parts.items()}
    enough(out, sum(int(each.sum()) for each in sizes.values()), sum(map(len, parts.values())))
    top = common(parts)
    splits = {}
    with workplace(out) as folder:
        for split, part in parts.items():
            writer = SplitWriter(folder, split, part, tuple(found[split].classes), sizes[split], top)
            noticed = [noted.finding for noted in notes.all if noted.split == split]
            about = writer.write(job.limit, job.workers, job.say)
            splits[split] = about.model_copy(update={"findings": tuple(packfile.noticed(each) for each in noticed)})
        whole = packfile.Pack(decoder=packfile.decoder(), dataset=job.dataset.name, splits=splits)
        packfile.save(folder, whole)
        publish(folder, out)
    return report(out, whole, notes, time.monotonic() - began)


def gathered(job: Job, notes: Notes) -> tuple[dict[Split, Samples], dict[Split, Part]]:
    """Return the splits as the dataset gives them, and what of each can be packed."""
    found = {split: each for split in SPLITS if (each := given.build(job.dataset, job.options, split)) is not None}
    what = f"dataset '{job.dataset.name}'"
    if "train" not in found:
        raise DataError(f"{what} has no training split; its build must return Samples for 'train'")
    parts = {split: sound(split, samples, what, job, notes) for split, samples in found.items()}
    for split, part in parts.items():
        if not len(part):
            notes.add("split", "error", split, "images", "there is none to pack")
    skip = "repair or remove these files, or skip them with --on-bad-image skip"
    notes.raise_errors(what, {**REMEDIES, "image": skip})
    return found, parts


def sound(split: Split, samples: Samples, what: str, job: Job, notes: Notes) -> Part:
    """Return the photos of a split that can be decoded and packed."""
    first = samples.images[0] if len(samples) else None
    if isinstance(first, np.ndarray):
        raise DataError(f"{what} makes its images as arrays; only photos in files can be packed as they are")
    classes = tuple(samples.classes)
    part = examined(
        samples, classes, f"{what} {split}", split, job.workers, notes, skip=job.skip, progress=told(job.say)
    )
    large = [index for index, image in enumerate(part.images) if size_of(image) > mindrecords.LARGEST_PHOTO]
    for index in large:
        text = f"has more than {mindrecords.LARGEST_PHOTO:,} bytes, which no MindRecord holds"
        notes.add("image", "warning" if job.skip else "error", split, part.name_of(index), text)
    return part.only(np.setdiff1d(np.arange(len(part)), large), split) if large else part


def size_of(image: Image) -> int:
    """Return the bytes of a photo."""
    if isinstance(image, Encoded):
        return len(image.data)
    if not isinstance(image, Path):
        raise DataError("a dataset gives arrays among its photos; only photos in files can be packed as they are")
    try:
        return os.stat(image).st_size
    except OSError as error:
        raise DataError(f"'{shown(image)}' can no longer be read: {error.strerror}; leave the photos alone") from error


def common(parts: dict[Split, Part]) -> str:
    """Return the folder that all photos are below."""
    images = (image for part in parts.values() for image in part.images)
    folders = {str(image.absolute().parent) for image in images if isinstance(image, Path)}
    return os.path.commonpath(folders) if folders else ""


def check_out(out: Path, options: Options, *, force: bool) -> None:
    """Raise if the folder to make is there already with something in it, lies among the photos or cannot be made.

    ``force`` allows to replace a pack, in a folder with nothing else, that is not the one to read.
    """
    root = getattr(options, "root", None)
    if isinstance(root, Path) and not hasattr(options, "file") and lies_in(out, expand_home(root)):
        raise UsageError(f"'{shown(out)}' lies in the folder of the photos, '{shown(root)}'; name one elsewhere")
    if packfile.is_pack(out):
        if not force:
            raise UsageError(f"'{shown(out)}' is a pack already; remove it, name another folder, or pass --force")
        if others := sorted(each.name for each in out.iterdir() if not packfile.is_part(each.name)):
            raise UsageError(
                f"'{shown(out)}' holds more than a pack, such as '{shown(others[0])}'; name another folder"
            )
    elif os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"'{shown(out)}' exists already; name a new folder for the pack")
    if any("\ud800" <= char <= "\udfff" for char in str(out)):
        raise UsageError(f"'{shown(out)}' is no UTF-8 text, which MindRecord needs; name another folder")


def lies_in(out: Path, folder: Path) -> bool:
    """Return whether a folder is another one or lies in it, by any of their names."""
    return Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder))


def enough(out: Path, total: int, photos: int) -> None:
    """Raise ``ResourceError`` if the disk has less room than the pack takes, before anything is written."""
    there = next(folder for folder in out.parents if folder.exists())
    need = int(total * 1.02) + 400 * photos + 2 * mindrecords.SMALLEST_PAGE
    free = shutil.disk_usage(there).free
    if free < need:
        sizes = f"{need / 1e9:,.2f} GB, the disk has {free / 1e9:,.2f} GB free"
        raise ResourceError(f"cannot write '{out}': the pack takes {sizes}; free some space or choose another folder")


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside ``out``; what a killed process left there goes, and so does a failure's."""
    folder = out.with_name(f".{out.name}.packing")
    with atomic.disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"another process is packing into '{out}'; wait for it, or name another folder") from error
        try:
            with atomic.disk_errors(out):
                for left in folder.iterdir():
                    left.unlink()
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def publish(folder: Path, out: Path) -> None:
    """Give the finished folder its name, which a pack that is replaced has until then."""
    with atomic.disk_errors(out):
        atomic.sync_folder(folder)
        out = Path(os.path.realpath(out))
        before = atomic.temporary(out)
        with suppress(FileNotFoundError):
            os.rename(out, before)
        os.rename(folder, out)
        shutil.rmtree(before, ignore_errors=True)
    atomic.sync_folder(out.parent)


def report(out: Path, whole: packfile.Pack, notes: Notes, seconds: float) -> dict[str, Any]:
    """Return what was packed."""
    files = [each for about in whole.splits.values() for each in about.every_file()]
    return {
        "pack": str(out),
        "photos": {split: sum(about.counts) for split, about in whole.splits.items()},
        "classes": len(whole.splits["train"].classes),
        "files": len(files),
        "bytes": sum(each.bytes for each in files),
        "seconds": round(seconds, 1),
        "findings": notes.report(),
    }
