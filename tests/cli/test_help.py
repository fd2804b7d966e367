"""Help: quick, light, with examples that work, on any terminal."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from finetune.cli.app import app, parse_command_line
from tests.cli.calling import Finetune, environment
from tests.clocks import least_processor_time

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("mindspore", "albumentations", "numpy", "openvino", "cv2", "scipy", "rich", "requests", "PIL")
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_command_line_is_imported_without_heavy_libraries(repo: Path) -> None:
    code = f"""
import sys
from finetune.cli import main
assert main(["--help"]) == 0 and main(["run", "--help"]) == 0 and main(["ls"]) == 0
print("heavy:", *[name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(repo), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_help_takes_less_than_a_third_of_a_second(finetune: Finetune) -> None:
    finetune("--help")  # compiles the modules
    assert least_processor_time(lambda: finetune("--help"), 0.3) < 0.3


def test_without_arguments_there_is_help(finetune: Finetune) -> None:
    done = finetune()
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: finetune [OPTIONS] COMMAND")
    assert done.stdout == finetune("-h").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "..." not in done.stdout.split("Commands:")[1], "a summary is too long for its line"


def test_version(finetune: Finetune) -> None:
    done = finetune("--version")
    assert (done.returncode, done.stdout) == (0, "finetune 0.1.0\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert parse_command_line([name, "--help"]) is None
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "--json" in text
    assert "--debug" in text
    examples = [line.strip() for line in text.split("Example")[1].splitlines()[1:]]
    assert examples
    for example in examples:
        program, *arguments = shlex.split(example.partition(" > ")[0])
        assert program == "finetune"
        assert callable(parse_command_line(arguments)), example


@pytest.mark.once
@pytest.mark.parametrize("columns", ["1", "20", "0", "wide"])
@pytest.mark.parametrize("arguments", [["run", "--help"], ["plugins"], ["nonsense"]])
def test_any_width(finetune: Finetune, arguments: list[str], columns: str) -> None:
    done = finetune(*arguments, COLUMNS=columns)
    assert done.returncode == (2 if arguments == ["nonsense"] else 0), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.once
@pytest.mark.parametrize(
    "terminal",
    [
        {"NO_COLOR": "1"},
        {"TERM": "dumb"},
        {"TERM": ""},
        {"LANG": "C", "LC_ALL": "C"},
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONUTF8": "0", "LC_ALL": "POSIX"},
    ],
)
def test_any_terminal(finetune: Finetune, terminal: dict[str, str]) -> None:
    for arguments in (["--help"], ["plugins"], ["cat", "quickstart"], ["run", "ünbekannt\udcff"]):
        done = finetune(*arguments, **terminal)
        assert done.returncode == (2 if arguments[0] == "run" else 0), done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def test_completion(finetune: Finetune) -> None:
    done = finetune(_FINETUNE_COMPLETE="complete_bash", COMP_WORDS="finetune pre", COMP_CWORD="1")
    assert done.stdout.split() == ["predict"]
    done = finetune(_FINETUNE_COMPLETE="complete_bash", COMP_WORDS="finetune cat q", COMP_CWORD="2")
    assert done.stdout.split() == ["quickstart"]
