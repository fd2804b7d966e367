"""Working folder: what relative paths start from, which may be removed while a process is in it."""

from __future__ import annotations

import os

from finetune.errors import UsageError
from finetune.text import escape_line


def is_removed() -> bool:
    """Tell whether the working folder no longer exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def removed_error() -> UsageError:
    """Return the error for a working folder that was removed."""
    return UsageError(f"the working folder, {removed_name()}, was removed; change to a folder that exists, with `cd`")


def removed_name() -> str:
    """Return the name of the working folder that was removed: Linux knows it, elsewhere the shell may."""
    try:
        name = os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
    except OSError:
        name = os.environ.get("PWD", "")
    return f"'{escape_line(name)}'" if name else "the current folder"


def check() -> None:
    """Raise ``UsageError`` if the working folder was removed: MindSpore ends the process where it is imported there."""
    if is_removed():
        raise removed_error()
