"""What was noticed about a dataset, and the one error that says all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from finetune.components import Finding, Severity
from finetune.errors import DataError
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
class Noted:
    """A finding, of what kind it is, and the split that it concerns."""

    kind: Kind
    split: str
    finding: Finding


class Notes:
    """The findings of a dataset in the order they were made; ``raise_errors`` is called once, when all are known."""

    def __init__(self) -> None:
        self.all: list[Noted] = []

    def add(self, kind: Kind, severity: Severity, split: str, subject: str, text: str) -> None:
        """Note something; ``subject`` and ``text`` read on from each other, and keep names as they are."""
        finding = Finding(severity=severity, subject=subject, text=text)
        self.all.append(Noted(kind=kind, split=split, finding=finding))

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
            raise DataError(message(what, errors, remedies))

    def errors(self) -> list[Noted]:
        """Return what forbids to go on."""
        return [noted for noted in self.all if noted.finding.severity == "error"]


def finding_line(found: Mapping[str, Any]) -> str:
    """Return a finding of a report as one line that can be printed."""
    return escape_line(f"{found['split']}: {found['subject']}: {found['text']}")


def message(what: str, errors: list[Noted], remedies: Mapping[Kind, str]) -> str:
    """Return a block for each kind of error, the first of each spelt out, then what to do."""
    lines = [f"{what} cannot be used"]
    for kind, count in Counter(noted.kind for noted in errors).items():
        lines.append(f"{count} {TITLES[kind][count > 1]}:")
        of_kind = [noted for noted in errors if noted.kind == kind]
        lines += [f"  {finding_line({'split': noted.split, **asdict(noted.finding)})}" for noted in of_kind[:LISTED]]
        if count > LISTED:
            lines.append(f"  … and {count - LISTED} more")
    found = [text for kind, text in remedies.items() if any(noted.kind == kind for noted in errors)]
    return "\n".join([*lines, *found])
