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
    name = removed_name()
    what = f"the working folder, '{escape_line(name)}'," if name else "the working folder"
    return UsageError(f"{what} was removed; change to a folder that exists, with `cd`")


def removed_name() -> str:
    """Return the path that the removed working folder had, as Linux remembers it; empty elsewhere."""
    try:
        return os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
    except OSError:
        return ""


def check() -> None:
    """Raise ``UsageError`` if the working folder was removed: MindSpore ends the process where it is imported there."""
    if is_removed():
        raise removed_error()
