"""Terminal output: a console that survives a closed pipe, and text without control sequences."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, TextIO, cast

from finetune.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

PIPE_WIDTH = 200  # without a terminal, programs read the lines, so they must not be wrapped


class Steady:
    """A text stream that drops what is written once its reader has gone."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write, unless the reader has gone."""
        try:
            return self.stream.write(text)
        except UnicodeEncodeError:
            return self.stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        except (OSError, ValueError):  # ValueError: the stream has been closed
            return len(text)

    def flush(self) -> None:
        """Flush, unless the reader has gone."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            return

    def isatty(self) -> bool:
        try:
            return self.stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        return self.stream.fileno()


def create_console(stream: IO[str] | None = None) -> Console:
    """Return a console on standard error, or on ``stream``, that prints text literally: no markup, no emoji."""
    import os

    from rich.console import Console

    file = Steady(stream or sys.stderr)
    width = None if file.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=cast("TextIO", file), width=width, highlight=False, markup=False, emoji=False)


def can_animate(console: Console) -> bool:
    """Return whether the console can show output that is updated in place."""
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


def make_printable(text: str) -> str:
    """Escape every character that could control a terminal, except line ends."""
    return escape(text)


def show_pairs(console: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values as two columns; on a terminal, long values wrap within their column."""
    from rich.table import Table
    from rich.text import Text

    rows = [(name, make_printable(value)) for name, value in pairs]
    if not console.is_terminal:
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            console.print(f"  {name:<{width}}  {value}", soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(f"  {name}", style="cyan"), Text(value))
    console.print(grid)
