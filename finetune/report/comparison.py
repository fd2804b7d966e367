"""Page of a comparison of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.report.pages import render_page
from finetune.report.photos import draw_thumbnail

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = 24  # images that changed sides, of each pair


def render_comparison(report: Mapping[str, Any], verdicts: list[str]) -> str:
    """Return the page of a comparison; ``verdicts`` say for each pair whether the second run is better."""
    pairs = [
        {
            **pair,
            "verdict": verdict,
            "shown": [{**each, "picture": draw_thumbnail(Path(each["path"]))} for each in pair["changed"][:SHOWN]],
            "more": max(0, len(pair["changed"]) - SHOWN),
        }
        for pair, verdict in zip(report["pairs"], verdicts, strict=True)
    ]
    recipe = [(key, [format_value(value) for value in values]) for key, values in report["recipe"].items()]
    page = {name: report[name] for name in ("runs", "images", "split")}
    return render_page("comparison.html", **page, pairs=pairs, recipe=recipe)


def format_value(value: Any) -> str:
    """Format a value of a recipe; a dash for none."""
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
