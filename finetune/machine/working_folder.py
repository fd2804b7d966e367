"""Working folder: what relative paths start from, which may be removed while a process is in it."""

from __future__ import annotations

import os

from finetune.errors import UsageError


def is_removed() -> bool:
    """Tell whether the working folder no longer exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def removed_error() -> UsageError:
    """Return the error for a working folder that was removed."""
    named = f"'{os.environ['PWD']}'" if os.environ.get("PWD") else "the current folder"
    return UsageError(f"the working folder, {named}, was removed; change to a folder that exists, with `cd`")


def check() -> None:
    """Raise ``UsageError`` if the working folder was removed: MindSpore ends the process where it is imported there."""
    if is_removed():
        raise removed_error()
