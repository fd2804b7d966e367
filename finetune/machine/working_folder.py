"""Working folder: detects that the current folder was removed."""

from __future__ import annotations

import os

from finetune.errors import UsageError
from finetune.text import escape_line


def is_removed() -> bool:
    """Return whether the working folder no longer exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def build_removed_error() -> UsageError:
    return UsageError(f"the working folder, {find_removed_name()}, was removed; change to an existing folder with `cd`")


def find_removed_name() -> str:
    """Return the name of the removed working folder, from Linux or from the shell's PWD."""
    try:
        name = os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
    except OSError:
        name = os.environ.get("PWD", "")
    return f"'{escape_line(name)}'" if name else "the current folder"


def check_exists() -> None:
    """Raise ``UsageError`` if the working folder was removed: importing MindSpore there would end the process."""
    if is_removed():
        raise build_removed_error()
