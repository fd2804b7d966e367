"""Corrections: a file that excludes images of a dataset or changes their labels, without touching the images.

The file is a table with the columns ``path``, ``action`` (``exclude`` or ``relabel``) and ``label``. `finetune audit`
proposes one.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import Encoded, Samples
from finetune.data.labelled import select_items
from finetune.errors import DataError
from finetune.suggest import did_you_mean
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from finetune.components import Split

COLUMNS = ("path", "action", "label")
ACTIONS = ("exclude", "relabel")
LISTED = 20  # mistakes that an error message lists
SEARCHED = 20_000  # names that are searched for a similar one


@dataclass(frozen=True, slots=True)
class Correction:
    """One row: the path as written, with its line number, and the new label; None excludes the image."""

    line: int
    path: str
    label: str | None


@dataclass(slots=True)
class Corrections:
    """The rows of a file by the absolute path of the image, and what they changed."""

    file: Path
    rows: Mapping[str, Correction]
    used: set[str] = field(default_factory=set)
    changes: list[dict[str, Any]] = field(default_factory=list)
    names: dict[Split, list[str]] = field(default_factory=dict)

    def apply(self, samples: Samples, split: Split, source: str) -> Samples:
        """Return a split with the corrections; ``source`` names images that have no file.

        Raises ``DataError`` for a label that is not a class of the dataset.
        """
        names = self.names[split] = list(list_names(samples.images, source))
        labels, kept = [int(label) for label in samples.labels], []
        for index, name in enumerate(names):
            key, row = self._find(name)
            if row is None:
                kept.append(index)
                continue
            self.used.add(key)
            before = samples.classes[labels[index]]
            if row.label == before:
                kept.append(index)
                continue
            if row.label is not None:
                labels[index] = self._find_class(row, samples.classes)
                kept.append(index)
            self.changes.append({"split": split, "path": name, "from": before, "to": row.label})
        rows = np.array(kept, np.int64)
        corrected = replace(samples, labels=labels)
        return corrected if len(kept) == len(names) else select_rows(corrected, rows)

    def _find(self, name: str) -> tuple[str, Correction | None]:
        if name in self.rows:
            return name, self.rows[name]
        key = os.path.abspath(name)
        return key, self.rows.get(key)

    def _find_class(self, row: Correction, classes: Sequence[str]) -> int:
        assert row.label is not None
        if row.label not in classes:
            near = did_you_mean(row.label, classes)
            raise DataError(f"{self.file}, line {row.line}: no class named '{escape_line(row.label)}'{near}")
        return list(classes).index(row.label)

    def check_used(self) -> None:
        """Raise ``DataError`` for rows whose path is not an image of the dataset, with similar paths."""
        used = {self.rows[key].line for key in self.used}
        unknown = {row.line: row for row in self.rows.values() if row.line not in used}
        if not unknown:
            return
        names = [name for several in self.names.values() for name in several]
        count = len({row.line for row in self.rows.values()})
        wrong = f"{len(unknown)} of {count} paths are not images of the dataset"
        remedy = "remove these rows, or use the file with the photos that it was made for"
        lines = [
            f"  line {line}: '{escape_line(row.path)}'{describe_missing(row.path)}{suggest_name(row.path, names)}"
            for line, row in sorted(unknown.items())[:LISTED]
        ]
        more = [f"  … and {len(unknown) - LISTED} more"] if len(unknown) > LISTED else []
        raise DataError("\n".join([f"{self.file}: {wrong}; {remedy}", *lines, *more]))

    def describe(self) -> str:
        """Return what was changed, as the rest of a sentence."""
        about = self.report()
        excluded, relabelled = about["excluded"], about["relabelled"]
        tested = sum(change["split"] == "test" for change in self.changes)
        note = (
            f"; {tested} of these are test images, so test metrics cannot be compared with other runs" if tested else ""
        )
        return f"excludes {excluded} image{'s' * (excluded != 1)} and changes the label of {relabelled}{note}"

    def report(self) -> dict[str, Any]:
        """Return what was changed, ready for JSON."""
        relabelled = sum(change["to"] is not None for change in self.changes)
        counts = {"excluded": len(self.changes) - relabelled, "relabelled": relabelled}
        return {"file": str(self.file), **counts, "images": self.changes}


def read_corrections(file: Path) -> Corrections:
    """Read a file of corrections; raises ``DataError`` that lists all its mistakes."""
    header, table = read_table(file)
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    if missing or unknown or len(header) != len(set(header)):
        wrong = f"no column '{missing[0]}'" if missing else "unknown or duplicate columns"
        found = escape_line(",".join(header))
        raise DataError(f"{file}: {wrong} in '{found}'; its header must be 'path,action,label'")
    rows: dict[str, Correction] = {}
    mistakes: list[str] = []
    for line, cells in table:
        try:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} cells, not {len(header)}; put cells that hold a separator in quotes")
            add_row(rows, parse_row(line, dict(zip(header, cells, strict=True))), file.absolute().parent)
        except ValueError as error:
            mistakes.append(f"  line {line}: {error}")
    if mistakes:
        more = [f"  … and {len(mistakes) - LISTED} more"] if len(mistakes) > LISTED else []
        raise DataError("\n".join([f"{file} cannot be used; correct these rows", *mistakes[:LISTED], *more]))
    return Corrections(file=file, rows=rows)


def read_table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header of a CSV file, and line number and cells of the other rows."""
    try:
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; check dataset.corrections") from error
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}; correct the quotes") from error
    if not rows:
        raise DataError(f"{file}: the file is empty; its header must be 'path,action,label'")
    return rows[0][1], rows[1:]


def parse_row(line: int, cells: Mapping[str, str]) -> Correction:
    """Return a row; raises ``ValueError`` with what is wrong with it."""
    path, action, label = (cells[name] for name in COLUMNS)
    if not path:
        raise ValueError("the path is empty")
    if action not in ACTIONS:
        raise ValueError(f"'{escape_line(action)}' is not an action{did_you_mean(action, ACTIONS)}")
    if action == "relabel" and not label:
        raise ValueError("relabel needs a label")
    if action == "exclude" and label:
        raise ValueError("exclude takes no label; leave the cell empty, or write relabel")
    return Correction(line, path, label or None)


def add_row(rows: dict[str, Correction], row: Correction, folder: Path) -> None:
    """Add a row under the keys that its path may have; raises ``ValueError`` if it contradicts an earlier row."""
    for key in (row.path, os.path.abspath(row.path), os.path.abspath(folder / row.path)):
        other = rows.setdefault(key, row)
        if other.label != row.label:
            raise ValueError(f"'{escape_line(row.path)}' has a different action or label than in line {other.line}")


def list_names(images: Sequence[Any], source: str) -> Iterator[str]:
    """Yield the path or name of each image; an array has the name of its split and its index there."""
    name_of = getattr(images, "name_of", None)
    for index in range(len(images)):
        if callable(name_of):
            yield str(name_of(index))
            continue
        image = images[index]
        if isinstance(image, Encoded):
            yield image.name
        else:
            yield str(image) if isinstance(image, Path) else f"{source}[{index}]"


def select_rows(samples: Samples, rows: Any) -> Samples:
    """Return some images of a split, with what belongs to them."""
    return replace(
        samples,
        images=select_items(samples.images, rows),
        labels=[samples.labels[row] for row in rows],
        digests=None if samples.digests is None else select_items(samples.digests, rows),
        groups=None if samples.groups is None else select_items(samples.groups, rows),
    )


def describe_missing(path: str) -> str:
    """Return that a path names no file, as the rest of a sentence; empty if it does."""
    return "" if os.path.lexists(path) or "/" not in path else " does not exist"


def suggest_name(path: str, names: Sequence[str]) -> str:
    """Return a hint with the name that a path probably means, by the names of the file and of its folder."""
    near = [name for name in names if os.path.basename(name) == os.path.basename(path)]
    if len(near) != 1 and len(names) <= SEARCHED:
        of_end = {get_end(name): name for name in names}
        near = [of_end[end] for end in get_close_matches(get_end(path), of_end, n=1)]
    return f"; did you mean '{escape_line(near[0])}'?" if len(near) == 1 else ""


def get_end(path: str) -> str:
    """Return the last two names of a path."""
    return os.sep.join(path.split(os.sep)[-2:])
