"""MindRecord files: writes a file with MindSpore, and reads the place of each photo in it.

MindSpore's writer refuses existing files, reports a full disk as a ``RuntimeError``, leaves incomplete files behind,
and makes files that only their owner can read. Photos are stored in pages, each as 8 bytes of length and the content.
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
HEADER = 1 << 20  # bytes, enough to list about 5,000 pages
SMALLEST_PAGE, LARGEST_PAGE = 1 << 22, 1 << 28
PAGES = 1 << 10  # most pages of photos in a file
PREFIX = 8  # bytes before each photo
LARGEST_PHOTO = LARGEST_PAGE - PREFIX
LITTLE = 1 << 23  # bytes of free space below which a disk counts as full


def choose_page_size(sizes: NDArray[np.int64]) -> int:
    """Return the page size in bytes: a power of two that fits the largest photo and needs at most ``PAGES`` pages."""
    need = max(SMALLEST_PAGE, int(sizes.max()) + PREFIX, int(sizes.sum()) // PAGES)
    return min(1 << (need - 1).bit_length(), LARGEST_PAGE)


def write_rows(path: Path, batches: Iterable[Sequence[dict[str, Any]]], page: int) -> None:
    """Write rows to a new file and to its ``.db`` index; raises ``ResourceError`` if the disk refuses."""
    if "mindspore" not in sys.modules:
        os.environ.update(GLOG_v="4")  # the error says what MindSpore would print about a failure
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(path))
    try:
        writer.set_header_size(HEADER)
        writer.set_page_size(page)
        writer.add_schema(SCHEMA, "photos")
        writer.add_index(["label"])  # by default every path would be stored twice
        for rows in batches:
            _call_native(path, writer.write_raw_data, list(rows))
        _call_native(path, writer.commit)
    except ValueError as error:  # MindSpore's checks of names and values
        raise ResourceError(f"cannot write '{path}': {_explain(error)}; choose another folder") from error
    _make_readable(path)
    _make_readable(locate_index(path))


def locate_index(path: Path) -> Path:
    """Return the path of the index that MindRecord writes next to a file."""
    return path.with_name(f"{path.name}.db")


def _call_native(path: Path, call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except RuntimeError as error:
        full = "no free disk" in str(error).lower() or shutil.disk_usage(path.parent).free < LITTLE
        what = "the disk is full; free some space or choose another folder" if full else _explain(error)
        raise ResourceError(f"cannot write '{path}': {what}") from error


def _explain(error: Exception) -> str:
    """Return the message of MindRecord's error, without the lines that frame it."""
    lines = [line.strip() for line in str(error).splitlines()]
    reasons = [line for line in lines if line.startswith("[ERROR]")] or [line for line in lines if line] or [""]
    return f"MindRecord's writer failed ({reasons[0].removeprefix('[ERROR] ')[:200]}); check the disk"


def _make_readable(path: Path) -> None:
    """Give a file the permissions of new files, and flush it to disk."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_places(path: Path, page: int) -> NDArray[np.int64]:
    """Return the offset and length in bytes of each photo in a file that was just written, int64 (photos, 2)."""
    query = "SELECT PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END FROM INDEXES ORDER BY ROW_ID"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(locate_index(path)))}?mode=ro", uri=True)) as database:
            found = np.array(database.execute(query).fetchall(), np.int64).reshape(-1, 3)
    except sqlite3.Error as error:
        raise ResourceError(f"'{locate_index(path)}' is damaged: {error}; check the disk, and pack again") from error
    number, begin, end = found.T
    return np.stack([HEADER + number * page + begin + PREFIX, end - begin - PREFIX], axis=1)
