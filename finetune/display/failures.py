"""Error display: what is printed when a command fails, and its exit code."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from finetune.display.terminal import create_console, make_printable
from finetune.errors import FinetuneError, PluginError, RecipeError
from finetune.machine.environment import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

BUG, USAGE, RESOURCE, INTERRUPTED, TERMINATED = 1, 2, 7, 130, 143
CODES = frozenset((BUG, USAGE, 3, 4, 5, 6, RESOURCE, INTERRUPTED, TERMINATED))
FULL = "free some disk space, or choose another folder"
CLOSED = "change its permissions, or choose another path"
REMEDIES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EACCES: CLOSED,
    errno.EPERM: CLOSED,
    errno.EROFS: CLOSED,
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "the link points to itself; choose another path",
    errno.EIO: "check the disk and its connection, and back up your files",
    errno.EMFILE: "raise the limit with `ulimit -n 4096`",
    errno.ENFILE: "close other programs",
}
BAD_COMMAND_LINE = typer.BadParameter.__base__ or typer.BadParameter  # UsageError, which typer does not export


def choose_exit_code(error: BaseException) -> int:
    """Return the exit code for the error that ended a command."""
    if isinstance(error, FinetuneError):
        return error.exit_code if error.exit_code in CODES else BUG
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BAD_COMMAND_LINE):
        return USAGE
    return RESOURCE if is_resource(error) else BUG


def is_resource(error: BaseException) -> bool:
    """Return whether memory or disk space ran out; MindSpore reports device memory as a ``RuntimeError``."""
    if isinstance(error, OSError):
        return error.errno in REMEDIES
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())


def describe_error(error: BaseException) -> str:
    """Return what happened and what to do about it, in at most a screenful and with secrets masked."""
    return mask_secrets(make_printable("\n".join(_describe_lines(error))))


def _describe_lines(error: BaseException) -> Iterator[str]:
    if isinstance(error, RecipeError) and len(error.mistakes) > 1:
        yield f"{len(error.mistakes)} mistakes in the recipe"
        yield from error.mistakes
    elif isinstance(error, FinetuneError):
        yield str(error) or type(error).__name__
        if isinstance(error, PluginError) and error.remedy:
            yield error.remedy
    elif isinstance(error, KeyboardInterrupt):
        yield "interrupted"
    elif isinstance(error, BAD_COMMAND_LINE):
        text: str = error.format_message()  # type: ignore[attr-defined]
        yield text[:1].lower() + text[1:].removesuffix(".")
        yield f"see `{_find_command_path(error)} --help`"
    elif isinstance(error, OSError) and error.errno in REMEDIES:
        yield f"{error.filename or 'a file'}: {error.strerror}; {REMEDIES[error.errno]}"
    elif is_resource(error):
        yield f"out of memory ({find_first_line(error)}); lower train.batch_size, or close other programs"
    else:
        yield f"this is a bug in finetune or in a library: {type(error).__name__}: {find_first_line(error)}"
        yield f"  {locate_error(error.__traceback__)}"
        yield "--debug shows the full traceback; please report it with the output of `finetune doctor`"


def find_first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 500 characters."""
    return next(iter(str(error).strip().splitlines()), "")[:500]


def locate_error(trace: TracebackType | None) -> str:
    """Return the innermost frame of a traceback in the project or a plugin, else the innermost frame of all."""
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if any(part.startswith("finetune") for part in Path(frame.filename).parts)]
    if not frames:
        return "no traceback"
    last = (own or frames)[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}, line {last.lineno}, in {last.name}: {last.line}"


def _find_command_path(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "finetune"


def convert_to_json(error: BaseException) -> dict[str, Any]:
    """Return an error as JSON."""
    kind = "UsageError" if isinstance(error, BAD_COMMAND_LINE) else type(error).__name__
    about: dict[str, Any] = {"type": kind, "message": describe_error(error), "exit_code": choose_exit_code(error)}
    if isinstance(error, RecipeError):
        about["mistakes"] = [mask_secrets(mistake) for mistake in error.mistakes]
    return {"error": about}


def show_error(error: BaseException, *, debug: bool) -> None:
    """Print an error to standard error: a panel on a terminal, plain text elsewhere."""
    out = create_console()
    if debug:
        out.print("".join(traceback.format_exception(error)), soft_wrap=True)
    text = describe_error(error)
    if not out.is_terminal or out.is_dumb_terminal or "NO_COLOR" in os.environ:
        out.print(f"error: {text}", soft_wrap=True)
        return
    from rich.panel import Panel
    from rich.text import Text

    title = "interrupted" if choose_exit_code(error) in (INTERRUPTED, TERMINATED) else "error"
    out.print(Panel(Text(text), title=title, title_align="left", border_style="red"))
