"""Split file: ``split.csv`` in a run folder records the images that were trained on and those that were held back."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetune.components import Encoded
from finetune.data.labelled import Subset
from finetune.files.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from finetune.components import Image, Split
    from finetune.data.labelled import Part
    from finetune.data.loading import Data


Role = Literal["train", "valid", "test", "eval", "holdout"]

WORDS: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "valid": ("valid", "val", "validation", "validate", "validating", "dev", "devel"),
    "test": ("test", "testing", "tst"),
    "eval": ("eval", "evaluation"),
    "holdout": ("holdout", "heldout"),
}
ENDS = r"(?:sets?|data|dataset|images?|imgs?|photos?|pics?|pictures?|splits?|folder|dir|part)?"
EXACT: dict[str, Split] = {
    **{"train": "train", "training": "train"},
    **{"valid": "valid", "val": "valid", "validation": "valid"},
    **{"test": "test", "testing": "test"},
}
# Names of splits that mean validation or test: the first of the two that is not taken yet.
FLEXIBLE: dict[Role, tuple[Split, Split]] = {"eval": ("valid", "test"), "holdout": ("test", "valid")}
PATTERNS = {role: re.compile(rf"(?:{'|'.join(words)}){ENDS}") for role, words in WORDS.items()}
PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def find_role(name: str) -> Role | None:
    """Return the split that a folder's name means, by the words in it; None if it means none or several."""
    words = {*split_words(name), name.lower()}  # also the complete name, such as tEsT
    found = {role for word in words for role, pattern in PATTERNS.items() if pattern.fullmatch(word)}
    if found == {"train", "valid"}:
        return "train"  # the data to train on once the hyperparameters are chosen
    return found.pop() if len(found) == 1 else None


def is_split_name(name: str) -> bool:
    """Return whether a name means a split and has no unrelated word, such as ``test_images``."""
    words = split_words(name)
    rest = [word for word in words if not any(pattern.fullmatch(word) for pattern in PATTERNS.values())]
    return find_role(name) is not None and all(re.fullmatch(ENDS, word) for word in rest)


def split_words(name: str) -> list[str]:
    """Split a name into words in lower case, at capitals, digits, spaces and punctuation."""
    words = [word.lower() for word in PIECES.findall(name)]
    joined = [f"{first}{second}" for first, second in itertools.pairwise(words)]
    return words + [word for word in joined if word in ("holdout", "heldout")]


def is_usual(name: str, split: Split) -> bool:
    """Return whether a name is one that needs no explanation, such as ``train`` or ``val``."""
    return EXACT.get(name.lower()) == split


NAME = "split.csv"
HEADER = ["path", "split", "label", "hash"]
EARLIER = "earlier"  # split of an image that was trained on before the images of the run changed
TRAINED = ("train", EARLIER)
RUN_SUBFOLDERS = ("model", "checkpoints")


@dataclass(frozen=True, slots=True)
class Row:
    """An image of a run: its path or name, its split, the name of its class, and the hash of its content."""

    path: str
    split: str
    label: str
    hash: str


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """All images of a run, and the folder of the run."""

    folder: Path
    rows: tuple[Row, ...]

    @property
    def trained(self) -> frozenset[str]:
        """The hashes of the images that the run was trained on."""
        return frozenset(row.hash for row in self.rows if row.split in TRAINED and row.hash)

    def of_split(self, split: str) -> list[Row]:
        return [row for row in self.rows if row.split == split]


def list_rows(data: Data) -> Iterator[Row]:
    """Yield the images of a run in the order of its splits."""
    for split in ("train", "valid", "test"):
        part: Part | None = getattr(data, split)
        if part is None:
            continue
        hashes = part.hashes or [None] * len(part)
        for name, label, content in zip(list_image_names(part), part.labels.tolist(), hashes, strict=True):
            yield Row(name, split, data.classes[label], content or "")


def list_image_names(part: Part) -> Iterator[str]:
    """Yield the path or name of each image exactly as the dataset states it; for an array, its split and index."""
    items = part.images.items if isinstance(part.images, Subset) else part.images
    places = part.images.rows.tolist() if isinstance(part.images, Subset) else range(len(part))
    source = part.source or part.name
    read_name = getattr(items, "name_of", None)  # of sequences that can name an image without reading it
    if read_name is not None:
        yield from map(read_name, places)
        return
    is_lazy = not isinstance(items, list | tuple)
    if is_lazy and (not len(part) or isinstance(part.images[0], np.ndarray)):
        yield from (f"{source}[{place}]" for place in places)  # computing the arrays would take long
        return
    yield from (_name_image(items, place, source) for place in places)


def _name_image(items: Sequence[Image], place: int, source: str) -> str:
    image = items[place]
    if isinstance(image, Path):
        return str(image)
    return image.name if isinstance(image, Encoded) else f"{source}[{place}]"


def write_split(folder: Path, rows: Iterable[Row]) -> None:
    """Write ``split.csv`` atomically."""
    lines = ((escape_surrogates(row.path), row.split, row.label, row.hash) for row in rows)
    write_table(folder / NAME, HEADER, lines)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table as CSV atomically; bytes of file names that are not UTF-8 are written unchanged."""
    with (
        atomic_path(path) as part,
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")  # quotes preserve line ends in names
        writer.writerow(header)
        writer.writerows(rows)


def escape_surrogates(text: str) -> str:
    """Escape surrogates that do not represent a byte; only names that are not from a file system have them."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def read_split(folder: Path) -> SplitRecord | None:
    """Read ``split.csv`` of a run folder; None if it is missing or cannot be read."""
    try:
        with (folder / NAME).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, strict=True)
            if next(lines, None) != HEADER:
                return None
            return SplitRecord(folder, tuple(Row(*line) for line in lines))
    except (OSError, csv.Error, TypeError):
        return None


def find_split_record(path: Path) -> SplitRecord | None:
    """Find the split file of the run that a model folder, weights file or checkpoint belongs to; None if unknown."""
    folder = path.absolute()
    candidates = [folder, folder.parent]
    if folder.name in RUN_SUBFOLDERS:
        candidates = [folder.parent]
    elif folder.parent.name in RUN_SUBFOLDERS:
        candidates = [folder.parent.parent]
    return next((found for candidate in candidates if (found := read_split(candidate)) is not None), None)


def merge_rows(before: Sequence[Row], now: Iterable[Row]) -> list[Row]:
    """Merge the rows of a run whose images changed: the current ones, and all that it was trained on before."""
    rows = list(now)
    trained_now = {row.hash for row in rows if row.split == "train"}
    gone = [row for row in before if row.split in TRAINED and row.hash not in trained_now]
    return [*rows, *(Row(row.path, EARLIER, row.label, row.hash) for row in gone)]


def describe_changes(before: Iterable[Row], now: Iterable[Row]) -> str:
    """Describe how many images were added, removed, changed, relabelled or moved to another split."""
    old = [row for row in before if row.split != EARLIER]
    new = list(now)
    by_path = {row.path: row.hash for row in old}
    changed = [row for row in new if row.path in by_path and by_path[row.path] != row.hash]
    old_hashes = Counter(row.hash for row in old) - Counter(by_path[row.path] for row in changed)
    new_hashes = Counter(row.hash for row in new) - Counter(row.hash for row in changed)
    labels, splits = {(r.hash, r.label) for r in old}, {(r.hash, r.split) for r in old}
    known = [row for row in new if row.hash in old_hashes]
    counts = {
        "added": sum((new_hashes - old_hashes).values()),
        "removed": sum((old_hashes - new_hashes).values()),
        "changed": len(changed),
        "relabelled": sum((row.hash, row.label) not in labels for row in known),
        "moved to another split": sum((row.hash, row.split) not in splits for row in known),
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "their order changed"
