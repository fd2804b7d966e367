"""The Typer application that all commands share, with ``--json``, ``--debug`` and examples in every help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from finetune.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finetune.errors import FinetuneError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a command: ``data`` for ``--json``, and ``view``, which returns the text for people.

    ``content`` replaces the view if a file goes to standard output. ``failure`` is an error that left a partial
    result, and sets the exit code.
    """

    data: Mapping[str, Any]
    view: Callable[[], str | RenderableType] = field(default=str)
    content: bytes | None = None
    failure: FinetuneError | None = None


Command = TypeVar("Command", bound=Callable[..., Answer])

Json = Annotated[bool, typer.Option("--json", help="End standard output with one line of JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
COMMON = {"json": Json, "debug": Debug}

# Without markup, help needs neither rich nor its Markdown parser: 0.09 s instead of 0.18.
app = typer.Typer(
    name="finetune",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,  # Typer's scripts add a space after every word, even after KEY=, so there are own scripts
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Help(TyperCommand):
    """A command whose usage line is written by hand."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the usage line after the command's name."""
        return [self.options_metavar or ""]


def add_group(name: str, about: str, *examples: str) -> typer.Typer:
    """Add a command that has subcommands; without one, it shows its help."""

    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())
            raise typer.Exit

    commands = typer.Typer(rich_markup_mode=None)
    text = f"{about}\n\nEach command accepts --json and --debug."
    app.add_typer(
        commands, name=name, help=text, epilog=format_examples(examples), callback=alone, invoke_without_command=True
    )
    return commands


def format_examples(examples: Sequence[str]) -> str:
    """Return the examples at the end of a help text."""
    return "\n  ".join([f"\b\n{'Examples:' if len(examples) > 1 else 'Example:'}", *examples])


def command(
    usage: str, *examples: str, of: typer.Typer = app, alone: str | None = None
) -> Callable[[Command], Command]:
    """Add a function to the command line; ``main`` calls it once the complete command line is parsed.

    ``alone`` names a parameter whose file cannot share standard output with the line of ``--json``.
    """

    def register(function: Command) -> Command:
        def parsed(**given: Any) -> Callable[[], Answer]:
            if alone and given["json"] and str(given[alone]) == "-":
                raise UsageError("standard output cannot hold both the file and the line of --json; name a file")
            return partial(function, **{name: value for name, value in given.items() if name not in COMMON})

        signature = inspect.signature(function, eval_str=True)
        flags = [Parameter(n, Parameter.KEYWORD_ONLY, default=False, annotation=a) for n, a in COMMON.items()]
        extended = signature.replace(parameters=[*signature.parameters.values(), *flags])
        parsed.__signature__ = extended  # type: ignore[attr-defined]
        parsed.__annotations__ = {name: parameter.annotation for name, parameter in extended.parameters.items()}
        parsed.__doc__ = function.__doc__
        line = f"{usage} [OPTIONS]".strip()
        of.command(function.__name__, cls=Help, options_metavar=line, epilog=format_examples(examples))(parsed)
        return function

    return register


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    install_completion: Annotated[
        bool, typer.Option("--install-completion", help="Install completion for your shell (bash, zsh, fish).")
    ] = False,
    show_completion: Annotated[
        bool, typer.Option("--show-completion", help="Print the completion script of your shell.")
    ] = False,
) -> Callable[[], Answer] | None:
    """Fine-tune a pretrained image classifier on your own photos, on MindSpore."""
    if version:
        from finetune.version import own_version

        typer.echo(f"finetune {own_version()}")
        raise typer.Exit
    if install_completion or show_completion:
        if context.invoked_subcommand is not None:
            option = "--install-completion" if install_completion else "--show-completion"
            raise UsageError(f"{option} cannot be combined with a command; leave out '{context.invoked_subcommand}'")
        return partial(set_up_completion, install=install_completion)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
    return None


def set_up_completion(*, install: bool) -> Answer:
    """Install the completion script of the user's shell, or return it."""
    from finetune.cli import shells

    shell = shells.detect_shell()
    if not install:
        return Answer(data={"shell": shell, "script": shells.SCRIPTS[shell]}, view=lambda: shells.SCRIPTS[shell])
    file = shells.install_script(shell)
    return Answer(data={"shell": shell, "file": str(file)}, view=lambda: f"wrote {file}; open a new {shell} to use it")


def parse_command_line(arguments: list[str]) -> Callable[[], Answer] | None:
    """Return the call that the command line asks for, or None if it was answered while parsing, such as ``--help``."""
    program = typer.main.get_command(app)
    try:
        with program.make_context("finetune", arguments) as context:
            call: Callable[[], Answer] = program.invoke(context)
            return call
    except typer.Exit:
        return None
