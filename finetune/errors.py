"""Error classes of the project, each with its exit code."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class FinetuneError(Exception):
    """An error that the user can fix: the message names the thing, the value and the remedy."""

    exit_code = 1
    everywhere = False  # whether every process of a distributed run raised this error or a similar one


class UsageError(FinetuneError):
    """The command line or the Python call asks for something that does not exist."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe is not valid; ``mistakes`` has all mistakes, not only the first."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class DataError(FinetuneError):
    """Images, labels or folders cannot be used."""

    exit_code = 3


class WeightsError(FinetuneError):
    """A weights file is missing, damaged, or belongs to another network."""

    exit_code = 4


class DownloadError(WeightsError):
    """A file could not be downloaded, or its content is not the expected one."""


class DivergedError(FinetuneError):
    """The loss or a weight is no longer a finite number."""

    exit_code = 5


class PluginError(FinetuneError):
    """A plugin failed; if ``named`` is set, the message names plugin, distribution, version and hook.

    ``remedy`` is a remedy for users who did not write the plugin.
    """

    exit_code = 6
    named = False
    remedy = ""


class ResourceError(FinetuneError):
    """Out of disk space or memory."""

    exit_code = 7


def exit_code_of(signum: int) -> int:
    """Return the exit code of a process that a signal stopped: 130 for Ctrl-C, 143 for other signals."""
    return 130 if signum == signal.SIGINT else 143


class Interrupted(FinetuneError):
    """The run was stopped by a signal, after its state was saved."""

    def __init__(self, signum: int, message: str) -> None:
        self.signum = signum
        self.exit_code = exit_code_of(signum)
        super().__init__(message)


def rebuild_error(kind: str, message: str, exit_code: int) -> FinetuneError:
    """Create an error that another process raised, from the name of its class."""
    found = globals().get(kind)
    error = FinetuneError()
    if isinstance(found, type) and issubclass(found, FinetuneError):
        error = found.__new__(found)
    error.args, error.exit_code = (message,), exit_code
    if isinstance(error, RecipeError):
        error.mistakes = tuple(message.splitlines())
    return error
