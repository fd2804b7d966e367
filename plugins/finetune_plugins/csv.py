"""Dataset ``csv``: images and their classes in a table, one row per image."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune import (
    DataError,
    Dataset,
    Finding,
    Options,
    Samples,
    Split,
    did_you_mean,
    existing_file,
    existing_folder,
    expand_home,
    hookimpl,
    image_endings,
    is_text,
    natural_key,
    shorten,
)
from finetune_plugins.near_files import NearFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Severity = Literal["error", "warning", "note"]
    Find = Callable[[Split, Severity, int, str], None]
    from collections.abc import Sequence


SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "validate", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
NO_LABEL = ("", "nan", "<na>")


class Table(Options):
    """Images listed in a CSV file."""

    file: Path
    """Table with a header line, in UTF-8, or in UTF-16 like Excel's Unicode text. Columns are separated by commas,
    semicolons or tabs, or by the character that a first line such as `sep=;` names."""
    root: Path | None = None
    """Folder in which the paths of the table start; by default the folder of the table."""
    path_column: str = "path"
    """Column with the path of the image."""
    label_column: str = "label"
    """Column with the name of the class."""
    split_column: str | None = None
    """Column that contains `train`, `valid` or `test`; by default all rows are `train`."""
    group_column: str | None = None
    """Column that names the group of each image, such as a patient; the images of a group are on one side of a split.
    An empty cell means an image on its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of the table, with its line number and its path as ``given`` in the table."""

    line: int
    path: str
    label: str
    split: Split
    given: str = ""
    group: str = ""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``csv``."""
    yield Dataset(name="csv", options=Table, build=build, reads=read_path)


def read_path(path: Path) -> dict[str, str] | None:
    """Read a file whose name ends in ``.csv``."""
    return {"file": str(path)} if path.suffix.lower() == ".csv" and not os.path.isdir(path) else None


def build(options: Table, split: Split) -> Samples | None:
    """Return the images of a split in the order of the table, with classes in natural order."""
    findings: list[Finding] = []

    def find(where: Split, severity: Severity, line: int, text: str) -> None:
        if where == split:
            findings.append(Finding(severity=severity, subject=f"{options.file}:{line}", text=text))

    file = expand_home(options.file)
    if os.path.isdir(file):
        raise DataError(f"'{file}' is a folder, not a table; set dataset.use=folder to read folders of photos")
    existing_file(file, "dataset.file")
    root = existing_folder(options.root or file.parent)
    rows = [row for row in drop_repeated(read_rows(options, root, find), find) if row.split == split]
    rows = list(locate_photos(rows, root, find))
    if not rows and not findings:
        if split != "train":
            return None
        raise DataError(f"'{options.file}' has no rows for training; add some")
    classes = sorted({row.label for row in rows}, key=natural_key)
    index = {label: i for i, label in enumerate(classes)}
    return Samples(
        images=[Path(row.path) for row in rows],
        labels=[index[row.label] for row in rows],
        classes=tuple(classes),
        findings=tuple(findings),
        groups=None if options.group_column is None else [row.group or None for row in rows],
    )


def read_rows(options: Table, root: Path, find: Find) -> Iterator[Row]:
    """Yield the rows that have a path, a class and a valid split."""
    records = parse_table(expand_home(options.file), [name for _, name in list_columns(options)])
    first, header = next(records, (1, []))
    if not header:
        raise DataError(f"'{options.file}' is empty; its first line names the columns, such as path,label")
    check_text(options.file, first, header)
    columns = [find_column(header, name, key, options.file) for key, name in list_columns(options)]
    for line, cells in records:
        if len(cells) != len(header):
            few = len(cells) < len(header)
            remedy = "fill the row or remove it" if few else "put cells that hold a separator in quotes"
            text = f"has {len(cells)} cell{'s' * (len(cells) != 1)} below {len(header)} columns; {remedy}"
            find("train", "error", line, text)
            continue
        row = {key: cells[column].strip() for (key, _), column in zip(list_columns(options), columns, strict=True)}
        path, label, given = row["path_column"], row["label_column"], row.get("split_column")
        exact = cells[columns[0]]
        exists_exactly = (exact != path or not is_text(exact)) and os.path.lexists(root / exact)
        check_text(options.file, line, [cell for cell in cells if cell != exact or not exists_exactly])
        path = exact if exists_exactly else path  # a name may start and end with spaces
        split = "train" if given is None else SPLITS.get(given.lower())
        if split is None:
            find("train", "error", line, f"'{given}' is not a split{did_you_mean(given or '', SPLITS)}")
        elif not path:
            find(split, "error", line, f"has no path in column '{options.path_column}'")
        elif label.lower() in NO_LABEL:
            find(split, "error", line, f"has no class in column '{options.label_column}', but '{label}'")
        else:
            place, group = os.path.normpath(root / path), row.get("group_column", "")
            yield Row(line=line, path=place, label=label, split=split, given=path, group=group)


def check_text(file: Path, line: int, cells: Iterable[str]) -> None:
    """Raise ``DataError`` for cells that are not valid UTF-8."""
    if not all(map(is_text, cells)):
        raise DataError(f"'{file}' is not UTF-8 text, see line {line}; save it as CSV in UTF-8")


def list_columns(options: Table) -> list[tuple[str, str]]:
    """Return the columns to read, as pairs of option and name."""
    keys = ("path_column", "label_column", "split_column", "group_column")
    return [(key, name) for key in keys if (name := getattr(options, key)) is not None]


def drop_repeated(rows: Iterable[Row], find: Find) -> list[Row]:
    """Return the rows without repetitions; the engine checks for the same image in two splits."""
    first: dict[str, Row] = {}
    kept: dict[tuple[str, Split], Row] = {}
    suspicious: set[str] = set()
    for row in rows:
        other = first.setdefault(row.path, row)
        if other.label != row.label:
            text = f"labels '{shorten(row.path)}' as '{row.label}', line {other.line} as '{other.label}'; keep one"
            find(row.split, "error", row.line, text)
        elif kept.setdefault((row.path, row.split), row) is not row:
            find(row.split, "warning", row.line, f"repeats line {other.line}; the photo is used once")
        if re.fullmatch(r"-\d+", row.label) and row.label not in suspicious:
            suspicious.add(row.label)
            find(row.split, "warning", row.line, f"class '{row.label}' is learnt like any other; is its class unknown?")
    return list(kept.values())


def locate_photos(rows: Iterable[Row], root: Path, find: Find) -> Iterator[Row]:
    """Yield the rows whose image exists; names in a different Unicode form match too, with one note about them."""
    files = NearFiles()
    composed: list[Row] = []
    for row in rows:
        if os.path.exists(row.path):
            yield row
        elif same := files.same(row.path):
            composed.append(row)
            yield replace(row, path=same)
        else:
            find(row.split, "error", row.line, f"no file '{shorten(row.path)}'{suggest_path(row, root, files)}")
    if composed:
        first, count = composed[0], len(composed)
        text = f"'{shorten(first.given)}' has a different Unicode form (NFC, NFD) than the file, which is used"
        text += f"; so have {count - 1} more" if count > 1 else ""
        find(first.split, "note", first.line, text)


def suggest_path(row: Row, root: Path, files: NearFiles) -> str:
    """Return the hint for a path without a file, with the file that it may mean."""
    near, difference = files.near(row.given, root)
    if near:
        known = os.path.relpath(near, root)
        name = shorten(near if known.startswith("..") else known)
        return f"; did you mean '{name}', which {difference}?"
    return "; write / between folders" if "\\" in row.given else "; check the path and dataset.root"


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
