"""Shell completion: candidates for the last word of a command line. Shells call it through an environment variable.

The exit code is 0 if the candidates are complete, even if there are none, and 1 if the shell should offer files.
"""

from __future__ import annotations

import gc
import os
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import typer

from finetune.cli.app import app
from finetune.cli.completers import NoFiles

ASKED = "_FINETUNE_COMPLETE"  # complete_bash, complete_zsh or complete_fish
FILES = ("FILE", "DIR", "RUN")  # metavars of options that take files
END = "\ufffc"  # marks the cursor, so that an empty last word is a word
SHOWN = 120  # characters of a help text

Offer = tuple[str, str]


def print_offers() -> int:
    """Print the candidates, and return the exit code."""
    shell = os.environ[ASKED].rpartition("_")[2]
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:  # errors must not appear in a shell that is waiting for candidates
            words, typed, quoted = split_line(read_line())
            found = list_offers(words[1:], typed)
        except NoFiles:
            return 0
        except Exception:
            return 1
    told = (
        [format_for_bash(text, typed, quoted) for text, _ in found]
        if shell == "bash"
        else list(map(format_with_help, found))
    )
    if told:
        print("\n".join(told))
    return 0 if told else 1


def read_line() -> str:
    """Return the command line up to the cursor."""
    if "COMP_LINE" in os.environ:
        return os.environ["COMP_LINE"]
    number = int(os.environ["COMP_CWORD"])
    words = shlex.split(os.environ["COMP_WORDS"])
    return shlex.join(words[: number + 1]) + ("" if number < len(words) else " ")


def split_line(text: str) -> tuple[list[str], str, bool]:
    """Return the words before the cursor, the typed part of the last word, and whether it has an open quote."""
    lexer = shlex.shlex(text + END, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    quoted = False
    try:
        words.extend(lexer)
    except ValueError:
        words.append(lexer.token or END)
        quoted = True
    return words[:-1], words[-1].removesuffix(END), quoted


def list_offers(words: list[str], typed: str) -> list[Offer]:
    """Return the candidates that can follow ``words`` and start with ``typed``."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name = next((word for word in words if not word.startswith("-")), None)
        if name is None:
            return [
                each
                for each in (*offer_commands(command), *offer_options(command, words, typed))
                if each[0].startswith(typed)
            ]
        command, words = command.commands[name], words[words.index(name) + 1 :]
    waiting = find_option(command, words[-1]) if words else None
    before = words[:-1] if waiting else words
    if (
        waiting is None
        and typed.startswith("-")
        and (given := find_option(command, typed.partition("=")[0])) is not None
    ):
        name, equals, value = typed.partition("=")
        if equals:
            return [(f"{name}={text}", said) for text, said in offer_values(given, command, before, value)]
    if waiting is None and typed.startswith("-"):
        return [each for each in offer_options(command, words, typed) if each[0].startswith(typed)]
    return offer_values(waiting, command, before, typed)


def offer_values(parameter: Any, command: Any, words: list[str], typed: str) -> list[Offer]:
    """Return the values of an option or of the next argument; raises ``NoFiles`` if neither names nor files fit."""
    context = command.make_context(command.name, list(words), resilient_parsing=True)
    arguments = (each for each in command.params if each.param_type_name == "argument")
    free = (each for each in arguments if each.nargs == -1 or not context.params.get(each.name))
    chosen = parameter or next(free, None)
    found = chosen.shell_complete(context, typed) if chosen is not None else []
    if not found and (chosen is None or (parameter is not None and parameter.metavar not in FILES)):
        raise NoFiles
    return [(item.value, item.help or "") for item in found]


def find_option(command: Any, word: str) -> Any:
    """Return the option of this name if it takes a value."""
    taking = (each for each in command.params if each.param_type_name == "option" and not each.is_flag)
    return next((each for each in taking if word in each.opts), None)


def offer_options(command: Any, words: list[str], typed: str) -> list[Offer]:
    """Return the options that are not used yet, once a dash is typed."""
    if not typed.startswith("-"):
        return []
    there = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    named = [(max(each.opts, key=len), each.help or "") for each in there if not set(each.opts) & set(words)]
    return [*named, ("--help", "Show this message and exit.")]


def offer_commands(group: Any) -> list[Offer]:
    """Return the commands of a group."""
    return [(name, each.get_short_help_str(SHOWN)) for name, each in group.commands.items() if not each.hidden]


def format_with_help(offer: Offer) -> str:
    """Return a line for shells that show help texts: value, tab, help."""
    text, said = (re.sub(r"[\x00-\x1f\x7f]+", " ", each) for each in offer)
    return f"{text}\t{clip_help(said)}"


def clip_help(said: str) -> str:
    """Shorten a help text to ``SHOWN`` characters, but keep the value in brackets at its end."""
    if len(said) <= SHOWN:
        return said
    text, bracket, value = said.rpartition(" [")
    if bracket and value.endswith("]") and len(value) < SHOWN // 2:
        end = f"… [{value}"
        return text[: SHOWN - len(end)] + end
    return said[: SHOWN - 1] + "…"


def format_for_bash(text: str, typed: str, quoted: bool) -> str:
    """Return the part of a candidate that replaces bash's last word, which starts after the last ``=`` or ``:``."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    if quoted:
        return text
    breaks = set(os.environ.get("COMP_WORDBREAKS", "=:")) & set("=:@")
    start = max((typed.rfind(each) + 1 for each in breaks), default=0)
    return re.sub(r"([^\w@%+=:,./~\[\]{}-])", r"\\\1", text[start:])


def run_completion() -> int:
    """Print the candidates, and close standard output without an error if the shell has stopped reading."""
    gc.disable()  # takes a tenth of the time in such a short process, and finds nothing
    try:
        code = print_offers()
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
