"""Home and cache folders, and whether the network may be used."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from finetune.errors import UsageError


def cache_folder() -> Path:
    """Return the folder of all that can be fetched or computed again: ``FINETUNE_HOME``, else in the user's cache.

    The folder need not exist yet.
    """
    home = os.environ.get("FINETUNE_HOME")
    if not home:
        return user_cache_path("finetune", appauthor=False)
    try:
        return expand_home(home).absolute()
    except UsageError as error:
        raise UsageError(f"FINETUNE_HOME={home}: there is no such home folder; name another") from error


def expand_home(path: str | Path, folder: Path | None = None) -> Path:
    """Return a path that a user wrote, with a leading ``~/`` or ``~user/`` replaced by that home folder.

    Everything else is a name as it stands: ``~a.jpg``, and ``~x/a.jpg`` where no user is called x but ``folder``, or
    else the current one, holds ``~x``. Raises ``UsageError`` if there is neither such a user nor such a folder. Never
    pass a name that was found while listing a folder.
    """
    text = os.fspath(path)
    owner, slash, _ = text.partition("/")
    if not owner.startswith("~") or (owner != "~" and not slash):
        return Path(path)
    expanded = os.path.expanduser(text)
    if not expanded.startswith("~"):
        return Path(expanded)
    if owner != "~" and os.path.lexists(os.path.join(folder or "", owner)):
        return Path(path)
    raise UsageError(f"no home folder for '{text}'; write the full path of a folder that has this name")


def offline() -> bool:
    """Return whether ``FINETUNE_OFFLINE`` forbids every network call."""
    return os.environ.get("FINETUNE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")
