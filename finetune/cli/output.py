"""Output of commands: one line of JSON for programs, tables and lines for people."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from finetune.display.terminal import create_console, make_printable

if TYPE_CHECKING:
    from rich.console import RenderableType


def format_line(data: Mapping[str, Any]) -> str:
    """Return one line of JSON in ASCII; values that JSON cannot represent become text, and NaN becomes null."""
    return json.dumps(convert_value(data), allow_nan=False)


def convert_value(value: Any) -> Any:
    """Convert a value to types that JSON can represent."""
    if isinstance(value, Mapping):
        return {str(key): convert_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [convert_value(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, PurePath) or not hasattr(value, "item") else convert_value(value.item())


def render_text(view: str | RenderableType) -> str:
    """Return the text to print: a string unchanged, a table rendered for the terminal or for a file."""
    if isinstance(view, str):
        return view if not view or view.endswith("\n") else view + "\n"
    out = create_console(sys.stdout)
    with out.capture() as captured:
        out.print(view)
    drawn = captured.get()
    return drawn if out.is_terminal else "".join(f"{row.rstrip()}\n" for row in drawn.splitlines())


def render_pairs(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """Return names and values as two columns; long values wrap within their column."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name, style="cyan"), Text(make_printable(value)))
    return grid


def format_csv(rows: Iterable[Iterable[str]]) -> str:
    """Return rows as CSV, quoted so that spaces and line ends in cells are preserved."""
    return "".join(f"{','.join(map(_quote, row))}\n" for row in rows)


def _quote(cell: str) -> str:
    is_plain = cell == cell.strip() and not any(mark in cell for mark in ',;\t"\r\n')
    return cell if is_plain else '"' + cell.replace('"', '""') + '"'


def format_cell(value: Any) -> str:
    """Format one value in a few characters."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {format_cell(item)}" for key, item in value.items())
    return ", ".join(map(format_cell, value)) if isinstance(value, list | tuple) else str(value)
