"""A terminal for a program to write to, and a picture of its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLUMNS, ROWS = 96, 48
SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[()][AB0]|\x1b[=>]")
FONT_FACES = re.compile(r"\s*@font-face \{\{.*?\}\}", re.S)


def record(command: Sequence[str], folder: Path) -> list[str]:
    """Run a command on a terminal of its own, and return each piece that it wrote."""
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    hidden = ("NO_COLOR", "COLUMNS")
    env = {name: value for name, value in os.environ.items() if name not in hidden} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=other, stdout=other, stderr=other)
    os.close(other)
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(own, 65536)
        except OSError:  # no process has the other end open any more
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(own)
    process.wait()
    return [piece.decode("utf-8", "replace") for piece in pieces]


def read_lines(written: str) -> list[str]:
    """Return the lines on a terminal after ``written``: cursor movements are applied, colours are kept."""
    screen: list[str] = [""]
    row = 0
    at = 0
    while at < len(written):
        found = SEQUENCE.match(written, at)
        if found:
            at = found.end()
            count = int(found[1] or 1) if (found[1] or "1").isdigit() else 1
            if found[2] == "A":
                row = max(0, row - count)
            elif found[2] == "K":
                screen[row] = ""
            elif found[2] == "m":
                screen[row] += found[0]
            continue
        character = written[at]
        at += 1
        if character == "\n":
            row += 1
            if row == len(screen):
                screen.append("")
        elif character == "\r":
            if written[at : at + 1] != "\n" and not written.startswith("\x1b[2K", at):
                screen[row] = ""
        else:
            screen[row] += character
    return screen


def write_picture(file: Path, command: str, screen: Sequence[str]) -> None:
    """Write a command and its screen as SVG, without external fonts."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, file=open(os.devnull, "w"), width=COLUMNS, force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ {command}", style="bold"))
    for line in screen:
        text = Text.from_ansi(line)
        for part in text.divide(range(COLUMNS, len(text), COLUMNS)):  # a terminal wraps here
            console.print(part, no_wrap=True)
    code = console.export_svg(title="finetune", code_format=FONT_FACES.sub("", CONSOLE_SVG_FORMAT), unique_id=file.stem)
    code = code.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    file.write_text("".join(f"{line.rstrip()}\n" for line in code.splitlines() if line.strip()), encoding="utf-8")


def finetune(*arguments: str) -> list[str]:
    """Return the command line that runs ``finetune`` with the arguments."""
    return [sys.executable, "-m", "finetune", *arguments]
