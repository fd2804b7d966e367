"""Decisions of a review: which findings of an audit are confirmed, stored after each decision.

``corrections.csv`` holds what was decided, ``review.json`` every decision in order, so that a review can be resumed and
decisions can be taken back.
"""

from __future__ import annotations

import csv
import io
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from finetune.errors import DataError, UsageError
from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Action = Literal["keep", "relabel", "exclude"]
ACTIONS = ("keep", "relabel", "exclude")
KINDS = ("contradiction", "wrong label", "leak", "duplicate", "outlier", "quality", "other")
NAME, CORRECTIONS = "review.json", "corrections.csv"
VERSION = 1
REMEDY = "audit the data again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An image that the audit found something about; ``neighbours`` are numbers of images in ``images.csv``."""

    image: int
    path: str
    split: str
    label: str
    suggested: str
    score: float
    kinds: tuple[str, ...]
    reasons: str
    neighbours: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided about an image; ``label`` is the new one of an image to relabel."""

    path: str
    action: Action
    label: str = ""


class Review:
    """The findings of an audit in the order in which they are shown, and the decisions so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = read_images(folder)
        about = read_about(folder)
        self.images = [row["path"] for row in rows]
        self.splits = [row["split"] for row in rows]
        self.labels = [row["label"] for row in rows]
        self.classes: list[str] = [str(name) for name in about["class_names"]]
        self.items = list_items(rows, about)
        self.history = read_history(folder, {item.path for item in self.items})
        self.check_unedited(about.get("corrections_hash"))

    @property
    def decided(self) -> dict[str, Decision]:
        """The last decision about each image, by path."""
        return {each.path: each for each in self.history}

    def decide(self, path: str, action: str, label: str = "") -> None:
        """Store a decision; raises ``UsageError`` for an unknown image, action or class."""
        item = next((each for each in self.items if each.path == path), None)
        if item is None:
            raise UsageError("the audit has no finding about this image; reload the page")
        if action not in ACTIONS:
            raise UsageError(f"unknown action '{action}'; use keep, relabel or exclude")
        if action == "relabel" and (label not in self.classes or label == item.label):
            raise UsageError(f"'{label}' is not another class of this data; choose one of the list")
        kind: Action = action  # type: ignore[assignment]
        self.save([*self.history, Decision(path=path, action=kind, label=label if action == "relabel" else "")])

    def undo(self) -> str | None:
        """Take the last decision back and return its image; None if there is none."""
        if not self.history:
            return None
        path = self.history[-1].path
        self.save(self.history[:-1])
        return path

    def save(self, history: list[Decision]) -> None:
        """Write the decisions and the corrections that follow from them, each atomically, and adopt them."""
        lines = [{"path": each.path, "action": each.action, "label": each.label} for each in history]
        atomic.write_json(self.folder / NAME, {"version": VERSION, "decisions": lines})
        atomic.write_text(self.folder / CORRECTIONS, self.format_corrections(history))
        self.history = history

    def format_corrections(self, history: list[Decision]) -> str:
        """Return the content of ``corrections.csv`` for these decisions."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "action", "label"))
        decided = {each.path: each for each in history}
        for path in self.images:
            if path in decided and decided[path].action != "keep":
                writer.writerow((path, decided[path].action, decided[path].label))
        return text.getvalue()

    def check_unedited(self, written: str | None) -> None:
        """Raise ``UsageError`` if ``corrections.csv`` has other content than the audit or the last decision wrote.

        ``written`` is the hash of what the audit wrote, None if it is unknown.
        """
        file = self.folder / CORRECTIONS
        try:
            content = file.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return
        if content == self.format_corrections(self.history):
            return
        if not self.history and written in (None, hash_text(content)):
            return
        raise UsageError(f"{file} was edited, and a decision would overwrite it; move it elsewhere, then review again")

    def describe(self) -> dict[str, Any]:
        """Return the state of the review, ready for JSON."""
        decided = self.decided
        return {
            "folder": str(self.folder),
            "classes": self.classes,
            "items": [describe_item(self, item, decided.get(item.path)) for item in self.items],
            "decided": sum(item.path in decided for item in self.items),
            "can_undo": bool(self.history),
        }


def describe_item(review: Review, item: Item, decision: Decision | None) -> dict[str, Any]:
    """Return an item with its neighbours and its decision, ready for JSON."""
    near = [{"image": at, "label": review.labels[at], "split": review.splits[at]} for at in item.neighbours]
    return {
        "image": item.image,
        "path": item.path,
        "split": item.split,
        "label": item.label,
        "suggested": item.suggested,
        "score": item.score,
        "kinds": item.kinds,
        "reasons": item.reasons,
        "neighbours": near,
        "map": os.path.isfile(review.folder / "maps" / f"{item.image}.jpg"),
        "decision": None if decision is None else {"action": decision.action, "label": decision.label},
    }


def read_images(folder: Path) -> list[dict[str, str]]:
    """Return the rows of ``images.csv``; raises ``UsageError`` for a folder that is not an audit."""
    path = folder / "images.csv"
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        raise UsageError(f"{folder}: this is not an audit; name a folder that `finetune audit` wrote") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}; {REMEDY}") from error
    if not rows or any(None in row or None in row.values() or "reasons" not in row for row in rows):
        raise DataError(f"{path} is not complete; {REMEDY}")
    return rows


def read_about(folder: Path) -> dict[str, Any]:
    """Return ``audit.json``; raises ``DataError`` if it cannot be read, or is from an earlier release."""
    path = folder / "audit.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(about, dict) or "class_names" not in about:
            raise ValueError("it has no class names")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; {REMEDY}") from error
    return about


def list_items(rows: Sequence[dict[str, str]], about: dict[str, Any]) -> list[Item]:
    """Return the images with findings: by kind, and among wrong labels the most certain first."""
    places = {row["path"]: number for number, row in enumerate(rows)}
    neighbours = {each["path"]: each["neighbours"] for each in about.get("wrong_labels", [])}
    grouped: dict[str, list[int]] = {}
    kinds: dict[str, set[str]] = {}
    for group in about.get("duplicates", []):
        members = [places[path] for path in group["images"] if path in places]
        labels, splits = {rows[at]["label"] for at in members}, {rows[at]["split"] for at in members}
        kind = "contradiction" if len(labels) > 1 else "leak" if len(splits) > 1 else "duplicate"
        for at in members:
            grouped.setdefault(rows[at]["path"], []).extend(other for other in members if other != at)
            kinds.setdefault(rows[at]["path"], set()).add(kind)
    found = []
    for number, row in enumerate(rows):
        own = set(kinds.get(row["path"], ()))
        own |= {"wrong label"} if row["wrong_label"] == "true" else set()
        own |= {"outlier"} if row["outlier"] == "true" else set()
        own |= {"quality"} if row["quality"] else set()
        own |= {"other"} if row["reasons"] and not own else set()
        if own:
            near = [*grouped.get(row["path"], []), *(places[path] for path in neighbours.get(row["path"], ()))]
            found.append(
                Item(
                    image=number,
                    path=row["path"],
                    split=row["split"],
                    label=row["label"],
                    suggested=row["suggested"],
                    score=float(row["label_score"] or 1),
                    kinds=tuple(kind for kind in KINDS if kind in own),
                    reasons=row["reasons"],
                    neighbours=tuple(dict.fromkeys(near)),
                )
            )
    return sorted(found, key=lambda item: (KINDS.index(item.kinds[0]), item.score, item.image))


def read_history(folder: Path, known: set[str]) -> list[Decision]:
    """Return the decisions of an earlier session; raises ``DataError`` if they cannot be read."""
    path = folder / NAME
    if not os.path.isfile(path):
        return []
    try:
        lines = json.loads(path.read_text(encoding="utf-8"))["decisions"]
        found = [Decision(path=each["path"], action=each["action"], label=each["label"]) for each in lines]
        if any(each.action not in ACTIONS for each in found):
            raise ValueError("unknown action")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove it to start the review again") from error
    return [each for each in found if each.path in known]


def hash_text(text: str) -> str:
    """Return a hash of a text."""
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def lock_review(folder: Path) -> FileLock:
    """Return the acquired lock of a review; raises ``UsageError`` if another process reviews the same audit."""
    if not (folder / "images.csv").is_file():
        raise UsageError(f"{folder}: this is not an audit; name a folder that `finetune audit` wrote")
    lock = FileLock(folder / ".review.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{folder}: another `finetune review` is open for this audit; close it first") from None
    except (OSError, NotImplementedError):
        with suppress(OSError):
            lock.release()  # a file system without locks must not stop a review
    return lock
