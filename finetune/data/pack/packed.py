"""Photos of a pack, each read by its offset in a MindRecord file."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from finetune.components import Encoded, Finding, Samples
from finetune.data.imagefile import format_path
from finetune.data.pack import packfile
from finetune.data.pool import Pool
from finetune.data.scan import ScanCache, Verdict, hash_image
from finetune.errors import DataError, ResourceError
from finetune.files.atomic import cache_folder, expand_home
from finetune.machine.environment import count_usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.components import Split
    from finetune.data.pack.packfile import PackedFile, PackedSplit

Stamp = tuple[int, int, int]
AGAIN = "copy it again, or pack again"


def read_pack(root: Path, split: Split) -> Samples | None:
    """Read a split of a pack made by `finetune pack`, with the photos, labels and order of the original dataset.

    Every file is hashed when it is first used on this machine and after a change, at about 1 GB/s per core. Raises
    ``DataError`` with the name of a file that is missing, truncated or different from what was packed.
    """
    root = expand_home(root).absolute()
    pack = packfile.load_index(root)
    about = pack.splits.get(split)
    if about is None:
        return None
    stamps = verify_files(root, list(about.every_file()))
    table = read_rows(root, about)
    findings = [Finding(severity=each.severity, subject=each.subject, text=each.text) for each in about.findings]
    known = pack.decoder == packfile.describe_decoder()
    if not known:
        change = f"was packed with {pack.decoder}, but this installation has {packfile.describe_decoder()}"
        text = f"{change}; pack again to avoid decoding all photos"
        findings.append(Finding(severity="note", subject=str(root), text=text))
    return Samples(
        images=Packed(root, about, table, stamps),
        labels=np.ascontiguousarray(table["label"]),  # type: ignore[arg-type]
        classes=about.classes,
        findings=tuple(findings),
        digests=Digests(table) if known else None,
    )


class Packed(Sequence[Encoded]):
    """The photos of a split, read on request from any thread; raises ``DataError`` if a file has changed."""

    def __init__(self, root: Path, about: PackedSplit, table: NDArray[np.void], stamps: Mapping[str, Stamp]) -> None:
        self.stamps = stamps
        self.files = [str(root / each.records.name) for each in about.files]
        self.names = str(root / about.names.name)
        self.table = table
        self._names = open_file(self.names)
        weakref.finalize(self, os.close, self._names)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | Sequence[Encoded]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        row = self.table[index]
        place, length, file = int(row["offset"]), int(row["length"]), self.files[row["file"]]
        descriptor = open_file(file)  # a large pack has more files than a process may keep open
        try:
            same = make_stamp(os.fstat(descriptor)) == self.stamps[file]
            data = read_excerpt(descriptor, file, place, length)
        finally:
            os.close(descriptor)
        found = Encoded(name=self.name_of(index), data=data)
        if not same:
            raise DataError(f"'{file}' changed after the run started, at '{format_path(found.name)}'; {AGAIN}")
        return found

    def name_of(self, index: int) -> str:
        """Return the name of a photo without reading the photo."""
        begin = int(self.table[index - 1]["name_end"]) if index % len(self) else 0
        name = read_excerpt(self._names, self.names, begin, int(self.table[index]["name_end"]) - begin)
        return name.decode("utf-8", "surrogateescape")


class Digests(Sequence[str]):
    """The hash of each photo, the same as a scan computes for a file."""

    def __init__(self, table: NDArray[np.void]) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self.table[index]["digest"].tobytes().hex()  # type: ignore[no-any-return]


def open_file(file: str) -> int:
    """Open a file for reading and return its descriptor."""
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ResourceError("too many open files; raise the limit with `ulimit -n`") from error
        raise DataError(f"'{file}' cannot be read: {error.strerror}; {AGAIN}") from error


def read_excerpt(descriptor: int, file: str, offset: int, length: int) -> bytes:
    """Read bytes of a file; mapping it into memory would kill the process if the file shrinks."""
    try:
        data = os.pread(descriptor, length, offset)
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror}; {AGAIN}") from error
    if len(data) != length:
        raise DataError(f"'{file}' is shorter than it was when packed; {AGAIN}")
    return data


def read_rows(root: Path, about: PackedSplit) -> NDArray[np.void]:
    """Read the table of a split; raises ``DataError`` if it points outside a file or contradicts the index."""
    file = root / about.rows.name
    table = np.fromfile(file, packfile.ROW)
    ends = np.array([each.records.bytes for each in about.files], np.int64)
    counts = np.array([each.photos for each in about.files], np.int64)
    sound = (
        len(table) * packfile.ROW.itemsize == about.rows.bytes
        and len(about.counts) == len(about.classes)
        and are_indices(table["file"], len(ends))
        and are_indices(table["label"], len(about.classes))
        and np.array_equal(np.bincount(table["file"], minlength=len(ends)), counts)
        and np.array_equal(np.bincount(table["label"], minlength=len(about.classes)), about.counts)
        and bool((np.diff(table["name_end"], prepend=0) >= 0).all())
        and bool((table["name_end"] <= about.names.bytes).all())
        and bool((np.minimum(table["offset"], table["length"]) >= 0).all())
        and bool((table["length"] <= ends[table["file"]] - table["offset"]).all())
    )
    if not sound:
        raise DataError(f"'{file}' does not match {packfile.INDEX}; {AGAIN}")
    return table


def are_indices(values: NDArray[np.int32], bound: int) -> bool:
    """Return whether all values are indices below ``bound``."""
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < bound)


def verify_files(root: Path, files: Iterable[PackedFile]) -> dict[str, Stamp]:
    """Return the stamps of files; raises ``DataError`` for the first one that differs from what was packed.

    Files that were hashed before and have the same stamp are not hashed again.
    """
    cache = ScanCache(cache_folder() / "scan", str(root))
    fresh, stamps = [], {}
    with Pool(count_usable_cores()) as pool:
        for file in files:
            path = str(root / file.name)
            stamps[path] = stamp = make_stamp(stat_file(path, file))
            known = cache.verdicts.get(path)
            if known and (known.size, known.mtime_ns, known.ctime_ns) == stamp:
                check_hash(path, file, known.digest)
            else:
                fresh.append((path, file, stamp, pool.submit(hash_file, path)))
        for path, file, stamp, job in fresh:
            digest = job.result()
            check_hash(path, file, digest)
            cache.add({path: Verdict(*stamp, digest, None)})
    return stamps


def make_stamp(status: os.stat_result) -> Stamp:
    """Return the size in bytes and the times in nanoseconds of a file, which change with its content."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stat_file(path: str, file: PackedFile) -> os.stat_result:
    """Return the status of a file; raises ``DataError`` unless it is a regular file of the packed size."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"'{path}' is missing from the pack; {AGAIN}") from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}; check its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"'{path}' is not a regular file; {AGAIN}")
    if status.st_size != file.bytes:
        raise DataError(f"'{path}' has {status.st_size:,} bytes instead of {file.bytes:,}; {AGAIN}")
    return status


def hash_file(path: str) -> str:
    """Hash a file as a scan does; raises ``DataError`` if it cannot be read."""
    try:
        return hash_image(path)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be read: {error.strerror}; check the disk and the file's permissions"
        ) from error


def check_hash(path: str, file: PackedFile, digest: str | None) -> None:
    """Raise ``DataError`` if the content of a file differs from what was packed."""
    if digest != file.blake2b:
        raise DataError(f"'{path}' changed after it was packed; {AGAIN}")
