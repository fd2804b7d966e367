"""Command line: each command is a function that returns an ``Answer``; ``main`` calls it and prints the answer."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import redirect_stdout, suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, TypeVar

from finetune.cli.app import parse_command_line
from finetune.errors import Interrupted
from finetune.machine import interrupts, working_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.cli.app import Answer
    from finetune.errors import FinetuneError

T = TypeVar("T")

COMMANDS = (  # modules; importing one adds its commands to the application, in this order
    *("run", "lr", "predict", "explain", "eval", "compare", "report", "export"),
    *("audit", "review", "pack", "recipes", "new", "weights", "plugins", "doctor"),
)
for name in COMMANDS:
    import_module(f"finetune.cli.{name}")


def program() -> NoReturn:
    """Run the command ``finetune`` and end the process with its exit code."""
    code = main()
    if "mindspore" in sys.modules:
        atexit._run_exitfuncs()
        end_process(code)  # closing MindSpore takes more than a second
    if "mindspore._c_expression" in sys.modules:  # after a failed import it would abort the process at exit
        end_process(code)
    sys.exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 for success; the module ``failures`` lists the others."""
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        interrupts.listen()
    if "_FINETUNE_COMPLETE" in os.environ:
        from finetune.cli import completion

        return completion.run_completion()
    make_streams_tolerant()
    flags = given[: given.index("--")] if "--" in given else given
    try:
        failure = answer_command(given, as_json="--json" in flags)
        interrupts.mark_taken()
        return 0 if failure is None else report_partial_failure(failure, debug="--debug" in flags)
    except BaseException as error:
        interrupts.mark_taken()
        code = report_error(error, as_json="--json" in flags, debug="--debug" in flags)
        if arguments is None and isinstance(error, KeyboardInterrupt | Interrupted):
            end_process(code)
        return code


def make_streams_tolerant() -> None:
    """Make both streams accept any text, because the terminal may not be able to show the name of a file."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def end_process(code: int) -> NoReturn:
    """End the process without closing its libraries, one of which would crash if it was interrupted while loading."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def answer_command(given: list[str], *, as_json: bool) -> FinetuneError | None:
    """Parse a command line, run it and print the answer.

    Returns the failure that accompanies a partial answer, if any; raises all other errors.
    """
    call = write_to_reader(partial(parse_command_line, given))
    if call is None:
        return None
    working_folder.check_exists()
    with redirect_stdout(sys.stderr):  # standard output is for the answer, even if a plugin prints something
        answer = call()
    write_to_reader(partial(show_answer, answer, as_json))
    return answer.failure


def show_answer(answer: Answer, as_json: bool) -> None:
    """Print an answer to standard output."""
    from finetune.cli import output
    from finetune.display import failures

    if not as_json:
        if answer.content is not None:
            write_bytes(answer.content)
        else:
            print(output.render_text(answer.view()), end="")
        return
    failure = answer.failure and failures.convert_to_json(answer.failure)
    print(output.format_line({**answer.data, **(failure or {})}))


def write_bytes(content: bytes) -> None:
    """Write bytes to standard output unchanged."""
    sys.stdout.flush()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:  # replaced by a caller in the same process
        sys.stdout.write(content.decode("utf-8", "backslashreplace"))


def report_partial_failure(failure: FinetuneError, *, debug: bool) -> int:
    """Print the failure that accompanies an answer, and return the exit code."""
    from finetune.display import failures

    failures.show_error(failure, debug=debug)
    return failures.choose_exit_code(failure)


def report_error(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Print an error, as JSON too if asked, and return the exit code."""
    from finetune.cli import output
    from finetune.display import failures

    if isinstance(error, FileNotFoundError) and working_folder.is_removed():
        error = working_folder.build_removed_error().with_traceback(error.__traceback__)
    failures.show_error(error, debug=debug)
    if as_json:
        write_to_reader(lambda: print(output.format_line(failures.convert_to_json(error))))
    return failures.choose_exit_code(error)


def write_to_reader(write: Callable[[], T]) -> T | None:
    """Call a function that writes to standard output; returns None if the reader closes it early, as ``head`` does."""
    try:
        result = write()
        sys.stdout.flush()
        return result
    except OSError as error:
        # Discard the rest of the buffer: Python would try to write it again at exit, and fail with code 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return None
        error.filename = error.filename or "standard output"
        raise
