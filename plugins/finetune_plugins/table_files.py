"""CSV parsing: detects encoding and separator, and reads header and rows of a table."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from typing import TYPE_CHECKING

from finetune import DataError, did_you_mean, image_endings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SEPARATORS = ",;\t"
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # XLSX and ODS, XLS
SEPARATOR_LINE = re.compile(r'"?sep=(.|\\t)"?[,;\t ]*(\r\n|\r|\n)', re.IGNORECASE)  # tells Excel the separator


def parse_table(file: Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row, the header first; raises ``DataError`` if the file is not a table.

    The encoding is UTF-8, or UTF-16 with a byte order mark. The separator is set by a first line ``sep=;``, or is the
    one with which the header has most of ``columns``.
    """
    text, separator, skipped = _open_table(file)
    head = re.split(r"[\r\n]", text, maxsplit=1)[0]
    separator = separator or max(SEPARATORS, key=lambda each: (_count_columns(head, each, columns), head.count(each)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    done = skipped
    try:
        for cells in reader:
            done = reader.line_num + skipped
            if any(cell.strip() for cell in cells):
                yield done, cells
    except csv.Error as error:
        raise DataError(f"'{file}' cannot be read from line {done + 1} on: {error}; fix the quotes") from error


def _open_table(file: Path) -> tuple[str, str, int]:
    """Return the text of a file, the separator that its first line sets, and the number of lines that took."""
    text = _decode_file(file)
    found = SEPARATOR_LINE.match(text)
    if found is None:
        return text, "", 0
    return text[found.end() :], found[1].replace("\\t", "\t"), 1


def _decode_file(file: Path) -> str:
    """Decode the text of a file."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror}; check dataset.file") from error
    if content.startswith(SPREADSHEETS):
        raise DataError(f"'{file}' is a spreadsheet or an archive, not text; save it as CSV in UTF-8")
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        # Paths are bytes: names that are not UTF-8 are kept, and rejected later if no file has such a name.
        text = content.decode(encoding, "strict" if encoding == "utf-16" else "surrogateescape")
    except UnicodeDecodeError as error:
        raise DataError(f"'{file}' is damaged UTF-16 text; save it as CSV in UTF-8") from error
    if "\0" in text[:100]:
        raise DataError(f"'{file}' is UTF-16 text without a byte order mark; save it as CSV in UTF-8")
    return text


def _count_columns(head: str, separator: str, columns: Sequence[str]) -> int:
    """Count the columns that a header has with this separator."""
    try:
        names = {_normalise_name(cell) for cell in next(csv.reader([head], delimiter=separator), [])}
    except csv.Error:
        return 0
    return sum(_normalise_name(column) in names for column in columns)


def _normalise_name(name: str) -> str:
    """Return the name of a column without differences in case, surrounding spaces and Unicode form."""
    return unicodedata.normalize("NFC", name.replace("\ufeff", "")).strip().casefold()


def find_column(header: list[str], name: str, key: str, file: Path) -> int:
    """Return the index of a column; raises ``DataError`` that lists the columns.

    A column that differs only in case matches if there is just one.
    """
    names = [cell.strip() for cell in header]
    if names.count(name) == 1:
        return names.index(name)
    alike = [place for place, each in enumerate(names) if _normalise_name(each) == _normalise_name(name)]
    if len(alike) == 1:
        return alike[0]
    if name in names:
        raise DataError(f"'{file}' has {names.count(name)} columns '{name}'; rename all but one")
    if any(os.path.splitext(each)[1].lower() in image_endings() for each in names):
        row = ",".join(names)
        raise DataError(
            f"'{file}' has no header: its first line, '{row:.60}', looks like a row; start the file with path,label"
        )
    near = did_you_mean(name, names)
    columns = "" if near.startswith("; known") else f" (columns: {', '.join(names) or 'none'})"
    raise DataError(f"'{file}' has no column '{name}'{near}{columns}; name it with dataset.{key}")
