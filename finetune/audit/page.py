"""Page of an audit: ``audit.html`` shows what was found, with pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.audit.maps import FOLDER
from finetune.audit.report import SHOWN, describe_audit, propose_corrections
from finetune.report.pages import format_percent, render_page
from finetune.report.photos import draw_thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from finetune.audit.audit import Audit
    from finetune.audit.duplicates import Group

MOST = 40  # findings of each kind with pictures
IN_GROUP = 4  # pictures of a group of duplicates


class Page:
    """Describes the images of an audit with their pictures, each of which is drawn once."""

    def __init__(self, audit: Audit, folder: Path, draw: Callable[[Any], str] = draw_thumbnail) -> None:
        self.audit, self.folder, self._draw = audit, folder, draw
        self._pictures: dict[int, str] = {}

    def describe(self, row: int, note: str = "") -> dict[str, str]:
        """Return an image as the template shows it."""
        images = self.audit.images
        if row not in self._pictures:
            self._pictures[row] = self._draw(images.sources[row])
        return {
            "path": images.names[row],
            "split": images.splits[row],
            "label": images.classes[images.labels[row]],
            "picture": self._pictures[row],
            "note": note,
        }

    def list_sections(self) -> Iterator[dict[str, Any]]:
        """Yield the kinds of findings, the most certain first."""
        audit = self.audit
        text = "The same picture has different labels; at most one of them is right."
        yield self._make_groups("contradictions", "Contradictions", text, audit.contradictions)
        yield self._make_wrong_labels()
        text = "The same picture is in several splits, so that results on them are too good."
        yield self._make_groups("leaks", "Leaks", text, audit.leaks)
        text = "The same picture, or almost, is there more than once."
        yield self._make_groups("duplicates", "Duplicates", text, audit.groups)
        outliers = [int(row) for row in audit.outliers.nonzero()[0]]
        yield self._make_section("outliers", "Outliers", "These look like no other image.", outliers, lambda row: "")
        poor = [row for row, problems in enumerate(audit.quality) if problems]
        text = "These may be hard to recognise, or look different from all others."
        yield self._make_section("quality", "Quality", text, poor, lambda row: ", ".join(audit.quality[row]))

        for number, (name, findings) in enumerate(audit.checked.items()):
            texts = {each.image: each.text for each in findings}
            about = f"Found by the check '{name}'."
            yield self._make_section(f"check{number}", name, about, list(texts), texts.__getitem__)

    def _make_wrong_labels(self) -> dict[str, Any]:
        scores, images = self.audit.scores, self.audit.images
        rows = [int(row) for row in scores.is_wrong.nonzero()[0]]
        rows.sort(key=lambda row: float(scores.score[row]))
        groups = []
        for row in rows[:MOST]:
            suggested = images.classes[scores.suggested[row]]
            near = scores.neighbours.indices[row, :SHOWN].tolist()
            shown = [self.describe(row, f"→ {suggested}?"), *self._describe_map(row, suggested)]
            groups.append([*shown, *(self.describe(at, "(similar)") for at in near)])
        text = "All four estimates prefer another class. Each is shown with the images that are most similar to it."
        about = {"id": "labels", "title": "Wrong labels", "text": text, "groups": groups}
        return {**about, "total": len(rows), "more": max(0, len(rows) - MOST)}

    def _describe_map(self, row: int, suggested: str) -> list[dict[str, str]]:
        """Return where an image looks like the suggested class, if there is a map of it."""
        file = self.folder / FOLDER / f"{row}.jpg"
        if not file.is_file():
            return []
        return [{**self.describe(row, f": what looks like {suggested}"), "picture": self._draw(file)}]

    def _make_groups(self, id: str, title: str, text: str, found: Iterable[Group]) -> dict[str, Any]:
        groups = list(found)
        shown = [[self.describe(row) for row in group.rows[:IN_GROUP]] for group in groups[:MOST]]
        about = {"id": id, "title": title, "text": text, "groups": shown}
        return {**about, "total": len(groups), "more": max(0, len(groups) - MOST)}

    def _make_section(
        self, id: str, title: str, text: str, rows: list[int], note: Callable[[int], str]
    ) -> dict[str, Any]:
        shown = [self.describe(row, note(row)) for row in rows[:MOST]]
        about = {"id": id, "title": title, "text": text, "groups": [shown] if shown else []}
        return {**about, "total": len(rows), "more": max(0, len(rows) - MOST)}


def render_audit(audit: Audit, folder: Path) -> str:
    """Return the page of an audit."""
    report = describe_audit(audit)
    return render_page(
        "audit.html",
        folder=str(folder),
        images=report["images"],
        backbone=report["backbone"],
        weights=report["weights"],
        verdict=list(describe_verdict(report, sum(1 for _ in propose_corrections(audit)))),
        sections=list(Page(audit, folder).list_sections()),
        dataset=list(describe_dataset(report)),
    )


def describe_verdict(report: dict[str, Any], proposed: int) -> Iterator[str]:
    """Yield the result of an audit in sentences."""
    found = report["found"]
    wrong = found["wrong_labels"] / report["images"]
    yield f"Labels that are probably wrong: {found['wrong_labels']:,} ({format_percent(wrong)})."
    yield f"Pictures with different labels: {found['contradictions']:,}."
    yield f"Pictures that are there more than once: {found['duplicates']:,}, in several splits: {found['leaks']:,}."
    yield f"Proposed corrections: {proposed:,}."


def describe_dataset(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield facts about the dataset as a whole, as names and values."""
    yield "splits", ", ".join(f"{name} {number:,}" for name, number in report["splits"].items())
    yield "classes", f"{report['classes']:,}"
    if report["unjudged_classes"]:
        yield "few images", f"{report['unjudged_classes']:,} classes have too few images to judge their labels"
    for each in report["rare_classes"]:
        yield "rare class", f"'{each['class']}' has only {each['images']:,} images"
    for each in report["confused_classes"]:
        first, second = each["classes"]
        yield "easily confused", f"'{first}' and '{second}': {format_percent(each['share'])} of their images"
    order = report["order"]
    if order["dependent"]:
        yield "order", "similar images follow each other; keep images of one series together with dataset.groups"
    for each in report["shortcuts"]:
        guess = f"{format_percent(each['accuracy'])} of the labels, {format_percent(each['by_chance'])} by chance"
        yield "shortcut", f"{each['property']} alone predicts {guess}"
