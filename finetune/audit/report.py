"""Files of an audit: ``images.csv``, ``corrections.csv`` and ``audit.json``, the same bytes for the same findings."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from finetune.audit.audit import Audit
    from finetune.audit.duplicates import Group

VERSION = 1
COLUMNS = (
    *("path", "split", "label", "suggested", "label_score", "wrong_label", "duplicate_of", "outlier", "quality"),
    "reasons",
)
SHOWN = 3  # neighbours named in a reason
ORDER = ("train", "valid", "test")  # the last of the splits with a picture keeps it


def write_audit(audit: Audit, folder: Path) -> None:
    """Write all files of an audit into its folder."""
    atomic.write_text(folder / "images.csv", format_table(COLUMNS, list_images(audit)))
    corrections = format_table(("path", "action", "label"), propose_corrections(audit))
    atomic.write_text(folder / "corrections.csv", corrections)
    content = blake2b(corrections.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    atomic.write_json(folder / "audit.json", {**describe_audit(audit), "corrections_hash": content})


def format_table(header: tuple[str, ...], rows: Any) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def list_images(audit: Audit) -> Iterator[tuple[str, ...]]:
    """Yield a row for each image, in order of split and index."""
    images, scores = audit.images, audit.scores
    notes = Notes.of(audit)
    for row, name in enumerate(images.names):
        wrong = bool(scores.is_wrong[row])
        other = audit.duplicate_of.get(row)
        yield (
            name,
            images.splits[row],
            images.classes[images.labels[row]],
            images.classes[scores.suggested[row]] if wrong else "",
            f"{scores.score[row]:.4f}",
            str(wrong).lower(),
            "" if other is None else images.names[other],
            str(bool(audit.outliers[row])).lower(),
            ";".join(audit.quality[row]),
            "; ".join(explain_image(audit, row, notes)),
        )


@dataclass(frozen=True, slots=True)
class Notes:
    """What was found about images, by row: the group of duplicates, and the texts of checks from plugins."""

    groups: dict[int, Group]
    texts: dict[int, list[str]]

    @classmethod
    def of(cls, audit: Audit) -> Notes:
        """Collect the notes of an audit."""
        groups: dict[int, Group] = {}
        for group in audit.groups:
            for row in group.rows:
                groups.setdefault(row, group)
        texts: dict[int, list[str]] = defaultdict(list)
        for name, findings in audit.checked.items():
            for each in findings:
                texts[each.image].append(f"{name}: {each.text}")
        return cls(groups, texts)


def explain_image(audit: Audit, row: int, notes: Notes) -> Iterator[str]:
    """Yield the reasons why an image needs attention, the most certain first."""
    images, scores = audit.images, audit.scores
    if row in notes.groups:
        yield from explain_group(audit, notes.groups[row], row)
    if scores.is_wrong[row]:
        near = [images.classes[images.labels[other]] for other in scores.neighbours.indices[row, :SHOWN]]
        suggested = images.classes[scores.suggested[row]]
        yield f"looks like '{suggested}'; its nearest images are labelled {', '.join(repr(name) for name in near)}"
    if audit.outliers[row]:
        yield "looks like no other image"
    if audit.quality[row]:
        yield f"quality: {', '.join(audit.quality[row])}"
    yield from notes.texts.get(row, ())


def explain_group(audit: Audit, group: Group, row: int) -> Iterator[str]:
    """Yield what is wrong with the duplicates of an image."""
    images = audit.images
    others = [other for other in group.rows if other != row]
    kind = "the same picture as" if group.exact else "almost the same picture as"
    for other in others:
        text = f"{kind} {images.names[other]}"
        if images.labels[other] != images.labels[row]:
            text += f", which is labelled '{images.classes[images.labels[other]]}'"
        if images.splits[other] != images.splits[row]:
            text += f", which is in the split {images.splits[other]}"
        yield text


def propose_corrections(audit: Audit) -> Iterator[tuple[str, str, str]]:
    """Yield path, action and label of each proposed correction, in the order of the images.

    A wrong label is changed to the suggested class, but not that of a test image: a network must not decide what it is
    tested with. Of the same picture with different labels, and of a picture in several splits, one image stays: that of
    the split to evaluate on, or else the one with the best label score.
    """
    images, scores = audit.images, audit.scores
    excluded: set[int] = set()
    for group in {each.rows: each for each in (*audit.contradictions, *audit.leaks)}.values():
        kept = max(group.rows, key=lambda row: (ORDER.index(images.splits[row]), scores.score[row]))
        excluded |= {row for row in group.rows if row != kept}
    findings = [each for several in audit.checked.values() for each in several]
    excluded |= {each.image for each in findings if each.exclude}
    relabelled = {each.image: each.relabel for each in findings if each.relabel is not None}
    for row, name in enumerate(images.names):
        if row in excluded:
            yield name, "exclude", ""
        elif scores.is_wrong[row] and images.splits[row] != "test":
            yield name, "relabel", images.classes[scores.suggested[row]]
        elif row in relabelled and relabelled[row] != images.classes[images.labels[row]]:
            yield name, "relabel", relabelled[row]


def list_wrong_labels(audit: Audit) -> Iterator[dict[str, Any]]:
    """Yield the images whose label is probably wrong, the most certain first, with their nearest images."""
    scores, images = audit.scores, audit.images
    rows = [int(row) for row in scores.is_wrong.nonzero()[0]]
    for row in sorted(rows, key=lambda row: (float(scores.score[row]), row)):
        yield {
            "path": images.names[row],
            "label": images.classes[images.labels[row]],
            "suggested": images.classes[scores.suggested[row]],
            "label_score": round(float(scores.score[row]), 4),
            "neighbours": [images.names[at] for at in scores.neighbours.indices[row, :SHOWN].tolist()],
        }


def describe_audit(audit: Audit) -> dict[str, Any]:
    """Return the audit as JSON: facts about the data set, and counts and groups of findings."""
    names = audit.images.names
    quality = sorted({problem for problems in audit.quality for problem in problems})
    return {
        "version": VERSION,
        **audit.facts,
        "found": {
            "wrong_labels": int(audit.scores.is_wrong.sum()),
            "contradictions": len(audit.contradictions),
            "duplicates": len(audit.groups),
            "leaks": len(audit.leaks),
            "outliers": int(audit.outliers.sum()),
            "checks": {name: len(findings) for name, findings in audit.checked.items()},
            "quality": {problem: sum(problem in problems for problems in audit.quality) for problem in quality},
        },
        "class_names": list(audit.images.classes),
        "wrong_labels": list(list_wrong_labels(audit)),
        "duplicates": [{"exact": group.exact, "images": [names[row] for row in group.rows]} for group in audit.groups],
    }
