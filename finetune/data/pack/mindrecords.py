"""One MindRecord file, written through MindSpore and then read back: its writer is not taken at its word.

It refuses files that exist, reports a full disk as a ``RuntimeError``, leaves what it began behind, and gives files to
their owner alone. Photos lie in pages: 8 bytes of length, then the content, one after the other.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from finetune.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA = {
    "data": {"type": "bytes"},
    "label": {"type": "int32"},
    "path": {"type": "string"},
    "digest": {"type": "string"},
}
HEADER = 1 << 20  # bytes, in which about 5,000 pages can be listed
SMALLEST_PAGE, LARGEST_PAGE = 1 << 22, 1 << 28
PAGES = 1 << 10  # of a file, at most, that photos fill
PREFIX = 8  # bytes before each photo
LARGEST_PHOTO = LARGEST_PAGE - PREFIX
LITTLE = 1 << 23  # bytes of free space that are none


def choose_page_size(sizes: NDArray[np.int64]) -> int:
    """Return the size of a page, a power of two that takes the largest photo and needs no more than ``PAGES``."""
    need = max(SMALLEST_PAGE, int(sizes.max()) + PREFIX, int(sizes.sum()) // PAGES)
    return min(1 << (need - 1).bit_length(), LARGEST_PAGE)


def write_rows(path: Path, batches: Iterable[Sequence[dict[str, Any]]], page: int) -> None:
    """Write rows to a new file and the index beside it, which is called ``.db``; raises ``ResourceError``."""
    if "mindspore" not in sys.modules:
        os.environ.update(GLOG_v="4")  # what MindSpore prints about a failure, the error says
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(path))
    try:
        writer.set_header_size(HEADER)
        writer.set_page_size(page)
        writer.add_schema(SCHEMA, "photos")
        writer.add_index(["label"])  # of its own accord it would keep every path twice
        for rows in batches:
            _call_native(path, writer.write_raw_data, list(rows))
        _call_native(path, writer.commit)
    except ValueError as error:  # its own checks of names and values
        raise ResourceError(f"cannot write '{path}': {_explain(error)}; choose another folder") from error
    _make_readable(path)
    _make_readable(locate_index(path))


def locate_index(path: Path) -> Path:
    """Return the index that MindRecord keeps beside a file."""
    return path.with_name(f"{path.name}.db")


def _call_native(path: Path, call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except RuntimeError as error:
        full = "no free disk" in str(error).lower() or shutil.disk_usage(path.parent).free < LITTLE
        what = "the disk is full; free some space or choose another folder" if full else _explain(error)
        raise ResourceError(f"cannot write '{path}': {what}") from error


def _explain(error: Exception) -> str:
    """Return what MindRecord says went wrong, without the rulers around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith("[ERROR]")] or [line for line in lines if line] or [""]
    return f"MindRecord's writer failed ({told[0].removeprefix('[ERROR] ')[:200]}); check the disk"


def _make_readable(path: Path) -> None:
    """Give a file the modes that new files have, and have it on disk."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_places(path: Path, page: int) -> NDArray[np.int64]:
    """Return where each photo begins in a file that was just written, and its length in bytes, int64 (photos, 2)."""
    query = "SELECT PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END FROM INDEXES ORDER BY ROW_ID"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(locate_index(path)))}?mode=ro", uri=True)) as database:
            found = np.array(database.execute(query).fetchall(), np.int64).reshape(-1, 3)
    except sqlite3.Error as error:
        raise ResourceError(
            f"'{locate_index(path)}' came out damaged: {error}; check the disk, and pack again"
        ) from error
    number, begin, end = found.T
    return np.stack([HEADER + number * page + begin + PREFIX, end - begin - PREFIX], axis=1)
