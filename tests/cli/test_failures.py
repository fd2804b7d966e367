"""What goes wrong is said in one screen, with the right exit code, for people and for programs."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finetune import errors
from finetune.cli import main
from finetune.display import failures
from finetune.recipe import bundled
from tests.cli.calling import Finetune, answer, call_in_process, command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator


def every_error() -> Iterator[tuple[BaseException, int]]:
    yield errors.FinetuneError("x"), 1
    yield errors.UsageError("x"), 2
    yield errors.RecipeError(["x"]), 2
    yield errors.DataError("x"), 3
    yield errors.WeightsError("x"), 4
    yield errors.DownloadError("x"), 4
    yield errors.DivergedError("x"), 5
    yield errors.PluginError("x"), 6
    yield errors.ResourceError("x"), 7
    yield errors.Interrupted(signal.SIGINT, "x"), 130
    yield errors.Interrupted(signal.SIGTERM, "x"), 143
    yield errors.Interrupted(signal.SIGHUP, "x"), 143
    yield KeyboardInterrupt(), 130
    yield MemoryError(), 7
    yield OSError(errno.ENOSPC, "No space left on device"), 7
    yield OSError(errno.EIO, "Input/output error"), 7
    yield OSError(errno.EACCES, "Permission denied", "a file"), 7
    yield FileNotFoundError(errno.ENOENT, "No such file or directory"), 1
    yield RuntimeError("Device(id:0) Out of Memory"), 7
    yield RuntimeError("something else"), 1
    yield SystemExit(0), 1
    yield type("Strange", (errors.FinetuneError,), {"exit_code": 99})("x"), 1


@pytest.mark.parametrize(("error", "code"), list(every_error()), ids=lambda value: getattr(type(value), "__name__", ""))
def test_each_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(bundled, "list_recipes", fail)
    assert main(["ls", "--json"]) == code
    out, err = capsys.readouterr()
    said = json.loads(out)["error"]
    assert said["exit_code"] == code
    assert said["type"] == type(error).__name__
    assert said["message"] in err.replace("error: ", "", 1)
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 5


def test_a_bug_names_its_place_and_the_way_to_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundled, "list_recipes", lambda: {}["nothing"])
    assert main(["ls"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(
        "error: this is a bug in finetune or in a library: KeyError: 'nothing'\n  cli/recipes.py, line "
    )
    assert "--debug shows the full traceback" in err
    assert main(["ls", "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.count("error: ") == 1


def test_secrets_and_control_characters_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise errors.DataError("https://me:hunter2@host/a is not 'b\x1b[2Jc\u202e'; token=hf_abcdefghijk")

    monkeypatch.setattr(bundled, "list_recipes", fail)
    main(["ls"])
    assert capsys.readouterr().err == "error: https://***@host/a is not 'b\\x1b[2Jc\\u202e'; token=***\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["rnu"], "error: no such command 'rnu'. Did you mean 'run'?\nsee `finetune --help`\n"),
        (["run", "--resmue", "x"], "see `finetune run --help`"),
        (["run"], "error: no recipe given; name a file, - for standard input, or one that `finetune ls` lists\n"),
        (["run", "quikstart"], "error: no file and no bundled recipe named 'quikstart'; did you mean 'quickstart'?\n"),
        (["run", "mine.yaml"], "error: mine.yaml: no such file"),
        (
            ["run", "."],
            "error: . is a folder, not a recipe; the smallest recipe for its photos is 'dataset: {use: folder",
        ),
        (["run", "--resume", "nowhere"], "error: no run in nowhere: it has no recipe.yaml"),
        (["run", "--resume", "auto"], "error: --resume auto needs a recipe"),
        (["predict", "nowhere", "a.jpg"], "error: no such photo or folder: a.jpg\n"),
        (["predict", "nowhere", "."], "error: no photos in .; photos end with .jpg"),
        (["predict", "nowhere", "--top", "0", "."], "see `finetune predict --help`"),
        (["eval", "nowhere", "photos"], "error: no model in nowhere"),
        (["export", "x", "--format", "coreml"], "see `finetune export --help`"),
        (["cat", "quick"], "error: no bundled recipe named 'quick'; did you mean 'quickstart'?\n"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, arguments: list[str], text: str) -> None:
    done = call_in_process(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr
    assert answer(done)["error"]["exit_code"] == 2
    assert not list(tmp_path.iterdir())


def test_all_mistakes_of_a_recipe_are_shown(finetune: Finetune, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("dataset: {use: folder, root: x}\ntrian: 1\noptimizer: {lr: fast}\n")
    done = finetune("check", "r.yaml", "train.epochs=none", "--json", cwd=tmp_path)
    assert done.returncode == 2
    said = answer(done)["error"]
    assert said["type"] == "RecipeError"
    assert len(said["mistakes"]) == 3
    assert done.stderr.splitlines()[0] == "error: 3 mistakes in the recipe"
    assert done.stderr.splitlines()[1:] == said["mistakes"]
    assert said["mistakes"][0].startswith("r.yaml:2:1: trian")


def test_no_photos_no_weights(project: Path) -> None:
    assert call_in_process("check", "small.yaml", "dataset.root=nowhere", cwd=project).returncode == 3
    assert call_in_process("check", "small.yaml", "backbone.weights=nothing.safetensors", cwd=project).returncode == 4


def test_a_reader_that_leaves_early_is_no_error(repo: Path) -> None:
    with subprocess.Popen(
        command("schema"), env=environment(repo), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["schema"], ["ls", "--json"]])
def test_an_answer_that_cannot_be_written_is_an_error(repo: Path, arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*arguments), env=environment(repo), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 7
    assert (
        done.stderr
        == "error: standard output: No space left on device; free some disk space, or choose another folder\n"
    )


def test_closed_streams(repo: Path) -> None:
    line = " ".join(command("ls"))
    assert subprocess.run(f"{line} >&- 2>&-", shell=True, env=environment(repo), check=False).returncode == 0


def on_a_terminal(repo: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Return exit code and screen of ``finetune`` on a terminal of 80 columns."""
    master, slave = pty.openpty()
    environ = environment(repo, **{"TERM": "xterm-256color", "COLUMNS": "80", **env})
    with subprocess.Popen(command(*arguments), env=environ, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        screen = b""
        while True:
            try:
                screen += os.read(master, 4096)
            except OSError:  # the other side is closed
                break
    os.close(master)
    return process.returncode, screen.decode()


def test_a_panel_on_a_terminal(repo: Path) -> None:
    code, screen = on_a_terminal(repo, "cat", "nothing")
    assert code == 2
    assert re.sub(r"\x1b\[\d+m", "", screen).startswith("╭─ error ─")
    assert "\x1b[31m" in screen


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_text_on_a_terminal_that_wants_it(repo: Path, env: dict[str, str]) -> None:
    code, screen = on_a_terminal(repo, "cat", "nothing", **env)
    assert code == 2
    assert screen.startswith("error: no bundled recipe named 'nothing'")
    assert "\x1b" not in screen


def test_memory_is_told_from_other_runtime_errors() -> None:
    assert failures.is_resource(RuntimeError("Malloc for kernel output failed, Memory isn't enough, out of memory"))
    assert not failures.is_resource(ValueError("out of memory"))
