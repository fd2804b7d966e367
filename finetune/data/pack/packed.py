"""Photos of a pack, each read by its place in a MindRecord file."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from finetune.components import Encoded, Finding, Samples
from finetune.data.imagefile import shown
from finetune.data.pack import packfile
from finetune.data.pool import Pool
from finetune.data.scan import ScanCache, Verdict, digest_of
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
    """Return a split of a pack that `finetune pack` made, with the photos, labels and order that the files had.

    Every file is hashed when it is first seen here, at about 1 GB/s a core, and after a change. Raises ``DataError``
    that names a file if it is missing, cut short or not as it was packed.
    """
    root = expand_home(root).absolute()
    pack = packfile.load(root)
    about = pack.splits.get(split)
    if about is None:
        return None
    stamps = verify(root, list(about.every_file()))
    table = rows(root, about)
    findings = [Finding(severity=each.severity, subject=each.subject, text=each.text) for each in about.findings]
    known = pack.decoder == packfile.decoder()
    if not known:
        text = f"was packed with {pack.decoder}, here is {packfile.decoder()}; pack again to save decoding all photos"
        findings.append(Finding(severity="note", subject=str(root), text=text))
    return Samples(
        images=Packed(root, about, table, stamps),
        labels=np.ascontiguousarray(table["label"]),  # type: ignore[arg-type]
        classes=about.classes,
        findings=tuple(findings),
        digests=Digests(table) if known else None,
    )


class Packed(Sequence[Encoded]):
    """The photos of a split; each is read anew from any thread, from files that must not have changed meanwhile."""

    def __init__(self, root: Path, about: PackedSplit, table: NDArray[np.void], stamps: Mapping[str, Stamp]) -> None:
        self.stamps = stamps
        self.files = [str(root / each.records.name) for each in about.files]
        self.names = str(root / about.names.name)
        self.table = table
        self._names = opened(self.names)
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
        descriptor = opened(file)  # kept open, the files of a large pack would be more than a process may have
        try:
            same = stamp_of(os.fstat(descriptor)) == self.stamps[file]
            data = excerpt(descriptor, file, place, length)
        finally:
            os.close(descriptor)
        found = Encoded(name=self.name_of(index), data=data)
        if not same:
            raise DataError(f"'{file}' has changed since the run began, at '{shown(found.name)}'; {AGAIN}")
        return found

    def name_of(self, index: int) -> str:
        """Return the name of a photo without reading the photo."""
        begin = int(self.table[index - 1]["name_end"]) if index % len(self) else 0
        name = excerpt(self._names, self.names, begin, int(self.table[index]["name_end"]) - begin)
        return name.decode("utf-8", "surrogateescape")


class Digests(Sequence[str]):
    """The hash of each photo, as a scan gives it to a file."""

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


def opened(file: str) -> int:
    """Return the descriptor of a file."""
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ResourceError("too many open files; raise the limit with `ulimit -n`") from error
        raise DataError(f"'{file}' cannot be read: {error.strerror}; {AGAIN}") from error


def excerpt(descriptor: int, file: str, offset: int, length: int) -> bytes:
    """Return bytes of a file; not by a map of it, which would end the process if the file became shorter."""
    try:
        data = os.pread(descriptor, length, offset)
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror}; {AGAIN}") from error
    if len(data) != length:
        raise DataError(f"'{file}' is shorter than when it was packed; {AGAIN}")
    return data


def rows(root: Path, about: PackedSplit) -> NDArray[np.void]:
    """Return the table of a split; raises ``DataError`` if it leads out of a file or does not fit the index."""
    file = root / about.rows.name
    table = np.fromfile(file, packfile.ROW)
    ends = np.array([each.records.bytes for each in about.files], np.int64)
    counts = np.array([each.photos for each in about.files], np.int64)
    sound = (
        len(table) * packfile.ROW.itemsize == about.rows.bytes
        and len(about.counts) == len(about.classes)
        and within(table["file"], len(ends))
        and within(table["label"], len(about.classes))
        and np.array_equal(np.bincount(table["file"], minlength=len(ends)), counts)
        and np.array_equal(np.bincount(table["label"], minlength=len(about.classes)), about.counts)
        and bool((np.diff(table["name_end"], prepend=0) >= 0).all())
        and bool((table["name_end"] <= about.names.bytes).all())
        and bool((np.minimum(table["offset"], table["length"]) >= 0).all())
        and bool((table["length"] <= ends[table["file"]] - table["offset"]).all())
    )
    if not sound:
        raise DataError(f"'{file}' does not fit {packfile.INDEX}; {AGAIN}")
    return table


def within(values: NDArray[np.int32], bound: int) -> bool:
    """Whether all values are indices below ``bound``."""
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < bound)


def verify(root: Path, files: Iterable[PackedFile]) -> dict[str, Stamp]:
    """Return the stamps of files; ``DataError`` for the first that is not as it was packed.

    Those that were hashed here before, and have the same stamp, are only looked up.
    """
    cache = ScanCache(cache_folder() / "scan", str(root))
    fresh, stamps = [], {}
    with Pool(count_usable_cores()) as pool:
        for file in files:
            path = str(root / file.name)
            stamps[path] = stamp = stamp_of(stat_of(path, file))
            known = cache.verdicts.get(path)
            if known and (known.size, known.mtime_ns, known.ctime_ns) == stamp:
                agree(path, file, known.digest)
            else:
                fresh.append((path, file, stamp, pool.submit(hashed, path)))
        for path, file, stamp, job in fresh:
            digest = job.result()
            agree(path, file, digest)
            cache.add({path: Verdict(*stamp, digest, None)})
    return stamps


def stamp_of(status: os.stat_result) -> Stamp:
    """Return size and times of a file, in bytes and nanoseconds, one of which a change of its content changes."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stat_of(path: str, file: PackedFile) -> os.stat_result:
    """Return the status of a file that is there, regular and as long as it was."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"'{path}' is missing from the pack; {AGAIN}") from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}; check who may read it") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"'{path}' is no file; {AGAIN}")
    if status.st_size != file.bytes:
        raise DataError(f"'{path}' has {status.st_size:,} bytes instead of {file.bytes:,}; {AGAIN}")
    return status


def hashed(path: str) -> str:
    """Return the hash of a file."""
    try:
        return digest_of(path)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}; check the disk and who may read it") from error


def agree(path: str, file: PackedFile, digest: str | None) -> None:
    """Raise ``DataError`` if a file has another content than was packed."""
    if digest != file.blake2b:
        raise DataError(f"'{path}' is not as it was packed: its content has changed; {AGAIN}")
