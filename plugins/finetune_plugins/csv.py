"""Photos and their classes in a table, one row for each photo."""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass
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
    is_text,
    natural_key,
    shorten,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Find = Callable[[Split, Literal["error", "warning"], int, str], None]

SPLITS: dict[str, Split] = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
SEPARATORS = ",;\t"
NO_LABEL = ("", "nan", "<na>")


class Table(Options):
    """Photos listed in a CSV file."""

    file: Path
    """Table in UTF-8 with a header line; columns are separated by commas, semicolons or tabs."""
    root: Path | None = None
    """Folder that the paths in the table start from; if not given, the folder that the table is in."""
    path_column: str = "path"
    """Column with the path of the photo."""
    label_column: str = "label"
    """Column with the name of the class."""
    split_column: str | None = None
    """Column that says `train`, `valid` or `test`; if not given, all rows are `train`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One photo of the table, and the line that it stands in."""

    line: int
    path: str
    label: str
    split: Split


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``csv``."""
    yield Dataset(name="csv", options=Table, build=build)


def build(options: Table, split: Split) -> Samples | None:
    """Return the photos of a split in the order of the table, its classes in natural order."""
    findings: list[Finding] = []

    def find(where: Split, severity: Literal["error", "warning"], line: int, text: str) -> None:
        if where == split:
            findings.append(Finding(severity=severity, subject=f"{options.file}:{line}", text=text))

    file = expand_home(options.file)
    if os.path.isdir(file):
        raise DataError(f"'{file}' is a folder, not a table; dataset.use=folder reads folders of photos")
    existing_file(file, "dataset.file")
    root = existing_folder(options.root or file.parent)
    rows = [row for row in unique(read(options, root, find), find) if row.split == split]
    rows = [row for row in rows if exists(row, find)]
    if not rows and not findings:
        if split != "train":
            return None
        raise DataError(f"'{options.file}' has no row for training; add some")
    classes = sorted({row.label for row in rows}, key=natural_key)
    index = {label: i for i, label in enumerate(classes)}
    return Samples(
        images=[Path(row.path) for row in rows],
        labels=[index[row.label] for row in rows],
        classes=tuple(classes),
        findings=tuple(findings),
    )


def read(options: Table, root: Path, find: Find) -> Iterator[Row]:
    """Yield the rows that name a path, a class and a split."""
    records = parse(expand_home(options.file))
    first, header = next(records, (1, []))
    if not header:
        raise DataError(f"'{options.file}' is empty; its first line names the columns, such as path,label")
    check_text(options.file, first, header)
    columns = [position(header, name, key, options.file) for key, name in wanted(options)]
    for line, cells in records:
        if len(cells) != len(header):
            few = len(cells) < len(header)
            remedy = "fill the row or remove it" if few else "put cells that hold a separator in quotes"
            text = f"has {len(cells)} cell{'s' * (len(cells) != 1)} below {len(header)} columns; {remedy}"
            find("train", "error", line, text)
            continue
        path, label, *given = (cells[column].strip() for column in columns)
        exact = cells[columns[0]]
        exists_exactly = (exact != path or not is_text(exact)) and os.path.lexists(root / exact)
        check_text(options.file, line, [cell for cell in cells if cell != exact or not exists_exactly])
        path = exact if exists_exactly else path  # a name may begin and end with spaces
        split = SPLITS.get(given[0].lower()) if given else "train"
        if split is None:
            find("train", "error", line, f"'{given[0]}' is no split{did_you_mean(given[0], SPLITS)}")
        elif not path:
            find(split, "error", line, f"has no path in column '{options.path_column}'")
        elif label.lower() in NO_LABEL:
            find(split, "error", line, f"has no class in column '{options.label_column}', but '{label}'")
        else:
            yield Row(line=line, path=os.path.normpath(root / path), label=label, split=split)


def parse(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row, the header first; raises ``DataError`` if it is no table."""
    try:
        # Paths are bytes: those that are not UTF-8 come through, and where no file has them the text is refused later.
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror}; check dataset.file") from error
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=head.count), strict=True)
    done = 0
    try:
        for cells in reader:
            done = reader.line_num
            if any(cell.strip() for cell in cells):
                yield done, cells
    except csv.Error as error:
        raise DataError(f"'{file}' cannot be read from line {done + 1} on: {error}; mend the quotes") from error


def check_text(file: Path, line: int, cells: Iterable[str]) -> None:
    """Raise ``DataError`` for cells that are not UTF-8."""
    if not all(map(is_text, cells)):
        raise DataError(f"'{file}' is no UTF-8 text, see line {line}; save it as CSV in UTF-8")


def wanted(options: Table) -> list[tuple[str, str]]:
    """Return the columns that are read, as option and name."""
    columns = [("path_column", options.path_column), ("label_column", options.label_column)]
    return [*columns, ("split_column", options.split_column)] if options.split_column is not None else columns


def position(header: list[str], name: str, key: str, file: Path) -> int:
    """Return the place of a column; raises ``DataError`` that says which columns there are."""
    names = [cell.strip() for cell in header]
    if names.count(name) == 1:
        return names.index(name)
    if name in names:
        raise DataError(f"'{file}' has {names.count(name)} columns '{name}'; rename all but one")
    near = did_you_mean(name, names)
    columns = "" if near.startswith("; known") else f" (columns: {', '.join(names) or 'none'})"
    raise DataError(f"'{file}' has no column '{name}'{near}{columns}; name it with dataset.{key}")


def unique(rows: Iterable[Row], find: Find) -> list[Row]:
    """Return the rows without repetitions; the same photo in two splits is for the engine to judge."""
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


def exists(row: Row, find: Find) -> bool:
    """Whether the photo of a row is there."""
    if os.path.exists(row.path):
        return True
    remedy = "write / between folders" if "\\" in row.path else "check the path and dataset.root"
    find(row.split, "error", row.line, f"no file '{shorten(row.path)}'; {remedy}")
    return False
