"""Name and version of this distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "mindspore-finetune"
VERSION = "0.1.0"


def own_version() -> str:
    """Return the installed version, or the version of the source tree."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return VERSION
