"""Data audit: finds problems with classes and images by comparing the splits of a dataset."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetune.components import Finding, Severity
from finetune.errors import DataError
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from finetune.components import Split
    from finetune.data.labelled import Part


COMPARED = 2000  # near matches are only searched among so many classes, since the search takes time for each of them
UNKNOWN = -1


def index_classes(own: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return for each of a split's ``own`` classes its index in ``classes``, or ``UNKNOWN``."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(name, UNKNOWN) for name in own], np.int64).reshape(len(own))


def fold_name(name: str) -> str:
    """Return a name without the differences that readers hardly notice, such as case, spaces and Unicode form."""
    for _, fold in FOLDS:
        name = fold(name)
    return name


def describe_difference(name: str, known: str) -> str:
    """Describe how two names that look alike differ."""
    for text, fold in FOLDS:
        if fold(name) == fold(known):
            return f"which {text}"
    return "which differs in upper and lower case, spaces or Unicode form"


def _drop_invisible(name: str) -> str:
    """Remove zero-width characters: joiners, direction marks and variation selectors."""
    return "".join(char for char in name if unicodedata.category(char) != "Cf" and not "\ufe00" <= char <= "\ufe0f")


def _normalise_number(name: str) -> str:
    """Return a number without redundant zeros and with a decimal point, and any other name unchanged."""
    found = NUMBER.fullmatch(name)
    if found is None:
        return name
    sign, whole, part = found.groups(default="")
    part = part.rstrip("0")
    return f"{'-' * (sign == '-')}{whole.lstrip('0') or '0'}{'.' * bool(part)}{part}"


NUMBER = re.compile(r"([+-]?)(\d+)(?:[.,](\d+))?")
# Cyrillic, Greek, typographic quotes and dashes, and the Latin letters and signs that look the same.
LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХасеорухіјѕԁΑΒΕΖΗΙΚΜΝΟΡΤΥΧον‘’“”‐‑‒–—−×",
    "ABESIJKMHOPCTYXaceopyxijsdABEZHIKMNOPTYXov''\"\"------x",
)
FOLDS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("is written with other Unicode characters (NFC and NFD)", partial(unicodedata.normalize, "NFC")),
    ("differs in invisible characters", _drop_invisible),
    ("differs in spaces at the start or end", str.strip),
    ("differs in the spaces between words", lambda name: " ".join(name.split())),
    ("is written with characters of another width or form", partial(unicodedata.normalize, "NFKC")),
    ("has letters or signs of another script that look the same", lambda name: name.translate(LOOKALIKES)),
    ("is the same number written in another way", _normalise_number),
    ("differs in upper and lower case", str.casefold),
)


class Names:
    """The known classes, searched for the one that an unknown name probably means."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.alike: defaultdict[str, list[str]] = defaultdict(list)
        for name in classes:
            self.alike[fold_name(name)].append(name)

    def find_near(self, name: str) -> str:
        """Return ``; did you mean 'x'?`` for a near match, and how it differs where that is hard to see."""
        alike = self.alike.get(fold_name(name))
        if alike:
            return f"; did you mean '{alike[0]}', {describe_difference(name, alike[0])}?"
        found = get_close_matches(name, self.classes, n=1) if len(self.classes) <= COMPARED else []
        return f"; did you mean '{found[0]}'?" if found else ""

    def find_duplicates(self) -> list[tuple[str, str]]:
        """Return pairs of classes whose names look alike."""
        return [(first, other) for first, *others in self.alike.values() for other in others]


Kind = Literal["dataset", "image", "photo", "class", "unknown", "split", "duplicate", "profile"]
LISTED = 20  # findings of each kind that an error message lists

TITLES: dict[Kind, tuple[str, str]] = {
    "dataset": ("problem reported by the dataset", "problems reported by the dataset"),
    "image": ("image cannot be read", "images cannot be read"),
    "photo": ("photo cannot be read", "photos cannot be read"),
    "class": ("problem with a class", "problems with classes"),
    "unknown": ("class that the model does not know", "classes that the model does not know"),
    "split": ("problem with the splits", "problems with the splits"),
    "duplicate": ("duplicate photo", "duplicate photos"),
    "profile": ("colour profile", "colour profiles"),
}
REMEDIES: dict[Kind, str] = {
    "image": "repair or remove these files, or skip them with dataset.on_bad_image=skip",
    "photo": "repair or remove these files",
    "class": "add training images to every class, and use the same class names in all splits",
    "unknown": "remove these photos, or fine-tune a model on these classes",
    "split": "add usable images to every split; a class with a single photo has none left for validation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFinding:
    """A finding, its kind, and the split that it concerns."""

    kind: Kind
    split: str
    finding: Finding


class Notes:
    """The findings of a dataset, in order; call ``raise_errors`` once, when all of them are known."""

    def __init__(self) -> None:
        self.all: list[SplitFinding] = []

    def add(self, kind: Kind, severity: Severity, split: str, subject: str, text: str) -> None:
        """Add a finding; ``subject`` and ``text`` form one sentence, with names that are not escaped."""
        finding = Finding(severity=severity, subject=subject, text=text)
        self.all.append(SplitFinding(kind=kind, split=split, finding=finding))

    def take(self, split: str, findings: Iterable[Finding]) -> None:
        """Add the findings of the dataset's own code."""
        for finding in findings:
            self.add("dataset", finding.severity, split, str(finding.subject), finding.text)

    def report(self) -> list[dict[str, Any]]:
        """Return all findings ready for JSON."""
        return [{"kind": noted.kind, "split": noted.split, **asdict(noted.finding)} for noted in self.all]

    def raise_errors(self, what: str, remedies: Mapping[Kind, str] = REMEDIES) -> None:
        """Raise one ``DataError`` that lists all errors, if there are any, and the remedy for each kind."""
        if errors := self.errors():
            raise DataError(format_errors(what, errors, remedies))

    def errors(self) -> list[SplitFinding]:
        """Return the findings that make the data unusable."""
        return [noted for noted in self.all if noted.finding.severity == "error"]


def format_finding(found: Mapping[str, Any]) -> str:
    """Format a finding of a report as one printable line."""
    return escape_line(f"{found['split']}: {found['subject']}: {found['text']}")


def format_errors(what: str, errors: list[SplitFinding], remedies: Mapping[Kind, str]) -> str:
    """Format errors as a block for each kind, which lists the first of them, and then the remedies."""
    lines = [f"{what} cannot be used"]
    for kind, count in Counter(noted.kind for noted in errors).items():
        lines.append(f"{count} {TITLES[kind][count > 1]}:")
        of_kind = [noted for noted in errors if noted.kind == kind]
        lines += [f"  {format_finding({'split': noted.split, **asdict(noted.finding)})}" for noted in of_kind[:LISTED]]
        if count > LISTED:
            lines.append(f"  … and {count - LISTED} more")
    found = [text for kind, text in remedies.items() if any(noted.kind == kind for noted in errors)]
    return "\n".join([*lines, *found])


IMBALANCED = 5.0  # ratio of the largest class to the smallest from which on the audit warns


def audit_training(part: Part, classes: Sequence[str], notes: Notes) -> None:
    """Add findings for classes that cannot be learned, are easily mixed up, or are much rarer than others."""
    if not len(part):
        notes.add("split", "error", "train", "images", "the training split has no images")
        return
    if len(classes) < 2:
        notes.add("class", "error", "train", f"'{classes[0]}'", "is the only class; at least two are needed")
    counts = np.bincount(part.labels, minlength=len(classes))
    for index in np.flatnonzero(counts == 0):
        notes.add("class", "error", "train", f"'{classes[index]}'", "has no training images")
    place = {name: index for index, name in enumerate(classes)}
    for first, other in Names(classes).find_duplicates():
        sizes = f"{format_image_count(counts[place[other]])} and {counts[place[first]]:,}"
        text = f"looks like '{first}', {describe_difference(other, first)} ({sizes})"
        notes.add("class", "warning", "train", f"'{other}'", text)
    if (ratio := measure_imbalance(counts)) > IMBALANCED:
        few, many = classes[int(np.argmin(counts))], classes[int(np.argmax(counts))]
        text = f"has {ratio:.3g} times as many images as '{few}'; judge by macro_f1 and each class's recall"
        notes.add("class", "warning", "train", f"'{many}'", text)


def format_image_count(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def measure_imbalance(counts: NDArray[np.int64]) -> float:
    """Return the ratio of the largest class to the smallest class that has images; 1 without images."""
    there = counts[counts > 0]
    return float(there.max() / there.min()) if len(there) else 1.0


def note_unknown_classes(
    own: Sequence[str],
    classes: Sequence[str],
    counts: NDArray[np.int64],
    split: str,
    notes: Notes,
    *,
    trained: bool = False,
) -> None:
    """Add findings for classes that the run, or a ``trained`` model, does not know: errors if they have images."""
    known = set(classes)
    strange = [(name, int(count)) for name, count in zip(own, counts, strict=True) if name not in known]
    names = Names(classes) if strange else None
    for name, count in strange:
        near = names.find_near(name) if names else ""
        text = f"is not a class of the {'model' if trained else 'training split'}{near}"
        text += f" ({count} image{'s' * (count != 1)})"
        kind: Kind = "unknown" if trained else "class"
        notes.add(kind, "error" if count else "warning", split, f"'{name}'", text)


def audit_evaluation(parts: Mapping[Split, Part], classes: Sequence[str], notes: Notes, *, own: bool) -> None:
    """Add findings for what validation and test lack; ``own``: the dataset has a validation split of its own."""
    for split in ("valid", "test"):
        part = parts.get(split)
        if part is None:
            continue
        if not len(part) and len(parts["train"]):
            notes.add("split", "error", split, "images", "the split has no images to evaluate")
            continue
        for index in np.flatnonzero(np.bincount(part.labels, minlength=len(classes)) == 0):
            text = "has no images in this split" if own or split == "test" else "has one photo, which stays in training"
            notes.add("class", "warning", split, f"'{classes[index]}'", text)


def note_duplicates(parts: Iterable[Part], classes: Sequence[str], notes: Notes) -> None:
    """Add findings for photos in two splits, which make the metrics look better than they are, or in two classes."""
    held = list(parts)
    first: dict[str, tuple[Part, int]] = {}
    for part, indices in zip(held, find_suspects(held), strict=True):
        for index in indices.tolist():
            digest = part.hashes[index]
            if digest is None:
                continue
            other, place = first.setdefault(digest, (part, index))
            here, there = classes[part.labels[index]], classes[other.labels[place]]
            if other is part and here == there:
                continue
            leak = "leak, " if other is not part else ""
            labels = f"; labelled '{here}' here and '{there}' there" if here != there else ""
            text = f"{leak}the same photo as {other.name_of(place)} in {other.name}{labels}"
            notes.add("duplicate", "warning", part.name, part.name_of(index), text)


def find_suspects(parts: Sequence[Part]) -> list[NDArray[np.int64]]:
    """Return the indices of the images in each part whose content may occur twice.

    Compares short keys, which take 24 bytes per image; a table of all hashes takes 230.
    """
    keys = [np.fromiter(map(hash, part.hashes), np.int64, len(part.hashes)) for part in parts]
    ordered = np.sort(np.concatenate([*keys, np.empty(0, np.int64)]))
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return [np.flatnonzero(np.isin(each, again)) for each in keys]
