"""Where downloads and scan results are kept between runs, and whether the network may be used."""

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
        return Path(home).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"FINETUNE_HOME={home}: there is no such home folder; name another") from error


def offline() -> bool:
    """Return whether ``FINETUNE_OFFLINE`` forbids every network call."""
    return os.environ.get("FINETUNE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")
