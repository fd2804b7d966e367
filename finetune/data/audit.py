"""What is noticed about classes and photos when the splits of a dataset are held side by side."""

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


COMPARED = 2000  # classes among which a near match is looked for, since that takes as long as all of them together
UNKNOWN = -1


def index_classes(own: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return for each of a split's ``own`` classes its index in ``classes``, or ``UNKNOWN``."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(name, UNKNOWN) for name in own], np.int64).reshape(len(own))


def fold_name(name: str) -> str:
    """Return what is left of a name without everything that hardly anyone sees, or means, when reading it."""
    for _, fold in FOLDS:
        name = fold(name)
    return name


def describe_difference(name: str, known: str) -> str:
    """Return in words why two names that look alike are not the same."""
    for text, fold in FOLDS:
        if fold(name) == fold(known):
            return f"which {text}"
    return "which differs in upper and lower case, spaces or Unicode form"


def _drop_invisible(name: str) -> str:
    """Return a name without characters of no width: joiners, marks of direction, selectors of a form."""
    return "".join(char for char in name if unicodedata.category(char) != "Cf" and not "\ufe00" <= char <= "\ufe0f")


def _normalise_number(name: str) -> str:
    """Return a number without leading zeros, zeros after the point, and with a point for a comma; else the name."""
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
    """The known classes, to be searched for what an unknown one was meant to be."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.alike: defaultdict[str, list[str]] = defaultdict(list)
        for name in classes:
            self.alike[fold_name(name)].append(name)

    def near(self, name: str) -> str:
        """Return ``; did you mean 'x'?`` with the difference that is hard to see, if there is a near match."""
        alike = self.alike.get(fold_name(name))
        if alike:
            return f"; did you mean '{alike[0]}', {describe_difference(name, alike[0])}?"
        found = get_close_matches(name, self.classes, n=1) if len(self.classes) <= COMPARED else []
        return f"; did you mean '{found[0]}'?" if found else ""

    def doubles(self) -> list[tuple[str, str]]:
        """Return pairs of classes whose names look alike."""
        return [(first, other) for first, *others in self.alike.values() for other in others]


Kind = Literal["dataset", "image", "photo", "class", "unknown", "split", "duplicate", "profile"]
LISTED = 20  # findings of a kind that an error message spells out

TITLES: dict[Kind, tuple[str, str]] = {
    "dataset": ("problem reported by the dataset", "problems reported by the dataset"),
    "image": ("image cannot be read", "images cannot be read"),
    "photo": ("photo cannot be read", "photos cannot be read"),
    "class": ("class does not fit", "classes do not fit"),
    "unknown": ("class that the model does not know", "classes that the model does not know"),
    "split": ("problem with the splits", "problems with the splits"),
    "duplicate": ("photo is there twice", "photos are there twice"),
    "profile": ("colour profile", "colour profiles"),
}
REMEDIES: dict[Kind, str] = {
    "image": "repair or remove these files, or skip them with dataset.on_bad_image=skip",
    "photo": "repair or remove these files",
    "class": "give every class images for training, and the classes of all splits the same names",
    "unknown": "leave these photos out, or fine-tune a model on these classes",
    "split": "give every split images that can be used; of a class with one photo none is left to validate on",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFinding:
    """A finding, of what kind it is, and the split that it concerns."""

    kind: Kind
    split: str
    finding: Finding


class Notes:
    """The findings of a dataset in the order they were made; ``raise_errors`` is called once, when all are known."""

    def __init__(self) -> None:
        self.all: list[SplitFinding] = []

    def add(self, kind: Kind, severity: Severity, split: str, subject: str, text: str) -> None:
        """Note something; ``subject`` and ``text`` read on from each other, and keep names as they are."""
        finding = Finding(severity=severity, subject=subject, text=text)
        self.all.append(SplitFinding(kind=kind, split=split, finding=finding))

    def take(self, split: str, findings: Iterable[Finding]) -> None:
        """Note what the dataset's own code found."""
        for finding in findings:
            self.add("dataset", finding.severity, split, str(finding.subject), finding.text)

    def report(self) -> list[dict[str, Any]]:
        """Return all findings ready for JSON."""
        return [{"kind": noted.kind, "split": noted.split, **asdict(noted.finding)} for noted in self.all]

    def raise_errors(self, what: str, remedies: Mapping[Kind, str] = REMEDIES) -> None:
        """Raise one ``DataError`` that lists every error, if there is any, and what to do about each kind."""
        if errors := self.errors():
            raise DataError(format_errors(what, errors, remedies))

    def errors(self) -> list[SplitFinding]:
        """Return what forbids to go on."""
        return [noted for noted in self.all if noted.finding.severity == "error"]


def format_finding(found: Mapping[str, Any]) -> str:
    """Return a finding of a report as one line that can be printed."""
    return escape_line(f"{found['split']}: {found['subject']}: {found['text']}")


def format_errors(what: str, errors: list[SplitFinding], remedies: Mapping[Kind, str]) -> str:
    """Return a block for each kind of error, the first of each spelt out, then what to do."""
    lines = [f"{what} cannot be used"]
    for kind, count in Counter(noted.kind for noted in errors).items():
        lines.append(f"{count} {TITLES[kind][count > 1]}:")
        of_kind = [noted for noted in errors if noted.kind == kind]
        lines += [f"  {format_finding({'split': noted.split, **asdict(noted.finding)})}" for noted in of_kind[:LISTED]]
        if count > LISTED:
            lines.append(f"  … and {count - LISTED} more")
    found = [text for kind, text in remedies.items() if any(noted.kind == kind for noted in errors)]
    return "\n".join([*lines, *found])


IMBALANCED = 5.0  # times as many images in the largest class as in the smallest


def audit_training(part: Part, classes: Sequence[str], notes: Notes) -> None:
    """Note classes that cannot be learnt, are easily mixed up, or are much rarer than others."""
    if not len(part):
        notes.add("split", "error", "train", "images", "there is none to train on")
        return
    if len(classes) < 2:
        notes.add("class", "error", "train", f"'{classes[0]}'", "is the only class; at least two are needed")
    counts = np.bincount(part.labels, minlength=len(classes))
    for index in np.flatnonzero(counts == 0):
        notes.add("class", "error", "train", f"'{classes[index]}'", "has no image to train on")
    place = {name: index for index, name in enumerate(classes)}
    for first, other in Names(classes).doubles():
        sizes = f"{format_image_count(counts[place[other]])} and {counts[place[first]]:,}"
        text = f"looks like '{first}', {describe_difference(other, first)} ({sizes})"
        notes.add("class", "warning", "train", f"'{other}'", text)
    if (ratio := measure_imbalance(counts)) > IMBALANCED:
        few, many = classes[int(np.argmin(counts))], classes[int(np.argmax(counts))]
        text = f"has {ratio:.3g} times as many images as '{few}'; judge by macro_f1 and each class's recall"
        notes.add("class", "warning", "train", f"'{many}'", text)


def format_image_count(count: int) -> str:
    """Return a number of images in words."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def measure_imbalance(counts: NDArray[np.int64]) -> float:
    """Return how many times as many images the largest class has as the smallest that has any."""
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
    """Note classes of a split that are not among the run's, or a ``trained`` model's; unused ones do no harm."""
    known = set(classes)
    strange = [(name, int(count)) for name, count in zip(own, counts, strict=True) if name not in known]
    names = Names(classes) if strange else None
    for name, count in strange:
        near = names.near(name) if names else ""
        text = f"is not a class of the {'model' if trained else 'training split'}{near}"
        text += f" ({count} image{'s' * (count != 1)})"
        kind: Kind = "unknown" if trained else "class"
        notes.add(kind, "error" if count else "warning", split, f"'{name}'", text)


def audit_evaluation(parts: Mapping[Split, Part], classes: Sequence[str], notes: Notes, *, own: bool) -> None:
    """Note what validation and test lack; ``own`` says that the dataset came with its validation split."""
    for split in ("valid", "test"):
        part = parts.get(split)
        if part is None:
            continue
        if not len(part) and len(parts["train"]):
            notes.add("split", "error", split, "images", "there is none to evaluate on")
            continue
        for index in np.flatnonzero(np.bincount(part.labels, minlength=len(classes)) == 0):
            text = "has no image here" if own or split == "test" else "has one photo, which stays in training"
            notes.add("class", "warning", split, f"'{classes[index]}'", text)


def note_duplicates(parts: Iterable[Part], classes: Sequence[str], notes: Notes) -> None:
    """Note photos that are in two splits, which makes an evaluation look better than it is, or in two classes."""
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
    """Return the images of each part whose content may be there twice.

    They are found by short keys, which take 24 bytes an image; a table of all contents takes 230.
    """
    keys = [np.fromiter(map(hash, part.hashes), np.int64, len(part.hashes)) for part in parts]
    ordered = np.sort(np.concatenate([*keys, np.empty(0, np.int64)]))
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return [np.flatnonzero(np.isin(each, again)) for each in keys]
