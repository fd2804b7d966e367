"""Completion: what shells are told, what they make of it, and how they come to ask."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from finetune import cli
from finetune.cli import completion, shells
from finetune.cli.app import app, parse_command_line
from finetune.errors import UsageError
from finetune.recipe import bundled
from finetune.recipe.models import Recipe
from tests.cli.calling import Finetune, environment
from tests.clocks import LONGEST, least_processor_time

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.once

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a recipe, photos and runs."""
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "mine.yaml").write_text("dataset: {use: folder, root: photos}\nfreeze: {use: head}\n")
    (tmp_path / "base.yaml").write_text("optimizer: {use: sgd}\n")
    (tmp_path / "extended.yaml").write_text("extends: base.yaml\n")
    for name, files in (("a-001", ("recipe.yaml", "result.json")), ("sweep", ("sweep.json",)), ("else", ("x",))):
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in files:
            (tmp_path / "runs" / name / file).touch()
    (tmp_path / "runs" / "a-001" / "model").mkdir()
    (tmp_path / "runs" / "a-001" / "model" / "model.json").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str] | None:
    """Return what a shell is told after ``finetune``, with help; None where it is to look for files."""
    monkeypatch.setenv("_FINETUNE_COMPLETE", "complete_fish")
    monkeypatch.setenv("COMP_LINE", f"finetune {line}")
    code = cli.main([])
    lines = [each.split("\t") for each in capsys.readouterr().out.splitlines()]
    assert code == 0 or not lines
    return None if code else {text: said for text, said in lines}


LASTS = ("last", "layer1", "layer2", "layer3", "layer4")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("pre", ["predict"]),
        ("weights f", ["fetch"]),
        ("cat qu", ["quickstart"]),
        ("run m", ["mine.yaml"]),
        ("run ./p", ["./photos/"]),
        ("run nothing-of-this-name", None),
        ("run mine.yaml opt", ["optimizer."]),
        ("run mine.yaml optimizer.l", ["optimizer.lr=", "optimizer.layer_decay="]),
        ("run mine.yaml optimizer.mom", []),
        ("run mine.yaml optimizer.use=sgd optimizer.mom", ["optimizer.momentum="]),
        ("check mine.yaml optimizer.use=", ["optimizer.use=adamw", "optimizer.use=sgd"]),
        ("lr mine.yaml freeze.use=gr", ["freeze.use=gradual"]),
        ("run mine.yaml freeze.use=gradual freeze.sch", ["freeze.schedule="]),
        ("run mine.yaml freeze.use=gradual freeze.schedule.4=l", [f"freeze.schedule.4={each}" for each in LASTS]),
        ("run mine.yaml freeze.use=stages freeze.train=[la", [f"freeze.train=[{each}]" for each in LASTS]),
        ("run mine.yaml freeze.use=stages freeze.train=[he", ["freeze.train=[head]"]),
        ("run mine.yaml augment", ["augment[0]."]),
        ("run mine.yaml augment[0].pre", ["augment[0].preset="]),
        ("run mine.yaml augment=[] augment", []),
        ("run mine.yaml callbacks[1].ke", ["callbacks[1].keep="]),
        ("run mine.yaml runner.device=cpu runner.thr", ["runner.threads="]),
        ("run mine.yaml runner.thr", []),
        ("run mine.yaml runner.device=g", ["runner.device=gpu"]),
        ("run mine.yaml evaluate.restore_best=", ["evaluate.restore_best=true", "evaluate.restore_best=false"]),
        ("run mine.yaml train.ema=", ["train.ema=null"]),
        ("run mine.yaml train.accumulate=", []),
        ("run mine.yaml train.epochs=", ["train.epochs=auto"]),
        ("run mine.yaml dataset.root=pho", ["dataset.root=photos/"]),
        ("run mine.yaml dataset.root=photos/", ["dataset.root=photos/red/"]),
        ("run mine.yaml backbone.weights=frac", []),
        ("run mine.yaml backbone.use=resnext_nano backbone.weights=frac", ["backbone.weights=fractals"]),
        ("run mine.yaml ~fre", ["~freeze", "~freeze."]),
        ("run mine.yaml ~dataset.r", ["~dataset.root"]),
        ("run mine.yaml --dry", ["--dry-run"]),
        ("run mine.yaml --dry-run --d", ["--debug"]),
        ("run mine.yaml --output ", None),
        ("run --resume r", ["runs/a-001", "runs/sweep"]),
        ("run --resume runs/a-001 train.ep", ["train.epochs="]),
        ("run --output elsewhere --resume ", ["auto"]),
        ("predict ", ["runs/a-001"]),
        ("predict runs/a-001 ", None),
        ("predict runs/a-001 photo.jpg --top ", []),
        ("export runs/a-001 --format ", ["onnx", "mindir"]),
        ("export runs/a-001 --format=m", ["--format=mindir"]),
        ("weights fetch hub-v1.1 --backbone resnext_", ["resnext_nano"]),
        ("weights convert a.ckpt --to ckp", ["ckpt"]),
        ("weights fetch fra", ["fractals"]),
        ("'run' \"mine.yaml\" 'optimizer.lr", ["optimizer.lr="]),
        ("nonsense ", None),
        ("run mine.yaml nonsense.", []),
        ("run mine.yaml =", None),
        ("run - train.ep", ["train.epochs="]),
        ("run gone.yaml train.ep", ["train.epochs="]),
        ("run photos train.ep", ["train.epochs="]),
        ("run - nothing", []),
        ("run extended.yaml optimizer.mom", ["optimizer.momentum="]),
        ("plugins ", ["show"]),
        ("plugins show flo", ["flowers102"]),
        ("plugins show folder ", []),
        ("new plugin birds --kind data", ["dataset"]),
        ("new recipe pho", None),
        ("doctor ", []),
    ],
)
def test_what_could_come_next(
    line: str,
    answer: list[str] | None,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = told(line, monkeypatch, capsys)
    assert (None if found is None else sorted(found)) == (None if answer is None else sorted(answer))


def test_everything_is_offered_with_its_help(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = told("", monkeypatch, capsys) or {}
    assert sorted(first) == COMMANDS
    assert all(first.values())
    recipes = told("run ", monkeypatch, capsys) or {}
    assert bundled.list_recipes().keys() <= recipes.keys()
    keys = told("run mine.yaml ", monkeypatch, capsys) or {}
    assert {re.split(r"[.=\[]", key)[0] for key in keys} == set(Recipe.model_fields)
    assert all(keys.values())
    lr = told("run mine.yaml optimizer.lr=3e-4 optimizer.lr", monkeypatch, capsys) or {}
    assert lr["optimizer.lr="].endswith("[0.0003]")
    assert (told("run --resume runs/", monkeypatch, capsys) or {})["runs/a-001"] == "finished"


@pytest.mark.checkout
def test_the_page_shows_what_is_offered(
    repo: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repo / "docs" / "commands.md").read_text(encoding="utf-8")
    keys, values = (
        page.split("```text\n$ finetune run mine.yaml ")[1].split("```")[0].split("$ finetune run mine.yaml ")
    )
    for block, two_columns in ((keys, True), (values, False)):
        line, *shown = [each for each in block.splitlines() if each != "…"]
        offered = told(f"run mine.yaml {line.removesuffix('<TAB>')}", monkeypatch, capsys) or {}
        if two_columns:
            assert [tuple(re.split(" {2,}", each)) for each in shown] == list(offered.items())[: len(shown)]
        else:
            assert shown[0].split() == list(offered)


def test_a_broken_recipe_does_not_matter(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("", "[", "a: [", "optimizer: 3\nfreeze: [1]\naugment: {use: 1}\n", "runner: {device: [1]}\n"):
        (here / "mine.yaml").write_text(text)
        found = told("run mine.yaml train.ep", monkeypatch, capsys)
        assert found is not None, text
        assert found["train.epochs="].endswith("[auto]"), text
        for slot in Recipe.model_fields:
            told(f"run mine.yaml {slot}.", monkeypatch, capsys)


def test_names_of_files_are_what_they_are(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "photos" / "my birds").mkdir()
    (here / "photos" / "$(touch x)").mkdir()
    found = told("run mine.yaml 'dataset.root=photos/my b", monkeypatch, capsys)
    assert found == {"dataset.root=photos/my birds/": ""}
    assert completion.format_for_bash("dataset.root=photos/my birds/", "dataset.root=p", False) == r"photos/my\ birds/"
    assert completion.format_for_bash("a=$(touch x)/", "a=", False) == r"\$\(touch\ x\)/"
    assert completion.format_for_bash("a=my birds/", "a=m", True) == "a=my birds/"
    assert completion.format_with_help(("a\nb", "x\ty")) == "a b\tx y"
    assert completion.format_with_help(("a", "x" * 300)) == f"a\t{'x' * 119}…"
    assert completion.format_with_help(("a", f"{'x' * 300} [auto]")) == f"a\t{'x' * 112}… [auto]"
    assert completion.format_with_help(("a", f"x [{'y' * 300}]")) == f"a\tx [{'y' * 116}…"


def test_an_answer_takes_less_than_half_a_second_and_no_heavy_library(repo: Path, here: Path) -> None:
    code = """
import sys
from finetune.cli import main
assert main([]) == 0
print("heavy:", *[name for name in ("mindspore", "albumentations", "numpy", "openvino", "rich") if name in sys.modules])
"""
    asked = {"_FINETUNE_COMPLETE": "complete_bash", "COMP_LINE": "finetune run mine.yaml optimizer."}
    call = [sys.executable, "-P", "-c", code]
    env = environment(repo, **asked)
    subprocess.run(call, env=env, capture_output=True, check=True)  # compiles the modules

    def answered() -> None:
        done = subprocess.run(call, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "heavy:"
        assert "optimizer.lr=" in done.stdout.splitlines()

    assert least_processor_time(answered, 0.5) < 0.5


# Shells


@pytest.fixture
def home(here: Path, repo: Path) -> dict[str, str]:
    """Return the environment of a user with a home of their own, whose ``finetune`` prints what it is called with."""
    top = here / "home"
    (top / "bin").mkdir(parents=True)
    shown = '[ -n "$_FINETUNE_COMPLETE" ] || { printf "<%s>" "$@"; echo; exit; }'
    (top / "bin" / "finetune").write_text(f'#!/bin/sh\n{shown}\nexec "$PYTHON" -P -m finetune "$@"\n')
    (top / "bin" / "finetune").chmod(0o755)
    kept = {name: value for name, value in environment(repo).items() if not name.startswith("COMP_")}
    path = f"{top / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**kept, **of_user(top), "PATH": path, "PYTHON": sys.executable, "TERM": "dumb"}


def of_user(home: Path) -> dict[str, str]:
    """Return the variables by which shells find what belongs to a user."""
    return {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "ZDOTDIR": str(home)}


def typed(call: list[str], env: Mapping[str, str], steps: list[tuple[str, str]]) -> str:
    """Type into a program on a terminal, each step once the one before has shown what it should."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(call[0], call, env)
    seen, shown = "", 0
    try:
        for text, awaited in [("", "READY> "), *steps]:
            os.write(terminal, text.encode())
            end = time.monotonic() + LONGEST
            while awaited not in seen[shown:]:
                ready = select.select([terminal], [], [], end - time.monotonic())[0] if time.monotonic() < end else []
                assert ready, f"no {awaited!r} after {text!r} in {seen!r}"
                text_now = os.read(terminal, 65536).decode(errors="replace")
                seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x07\r]", "", text_now)
            shown = seen.index(awaited, shown) if text.endswith("\n") else shown
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        os.close(terminal)
    return seen


STEPS = [
    ("finetune run mine.yaml freeze.us\t", "freeze.use="),
    ("gra\t", "freeze.use=gradual"),
    (" dataset.ro\t", "dataset.root="),
    ("pho\t", "dataset.root=photos/"),
    ("\n", "<run><mine.yaml><freeze.use=gradual><dataset.root=photos/>"),
]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_what_is_typed(shell: str, home: dict[str, str], finetune: Finetune) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert finetune("--install-completion", **of_user(Path(home["HOME"])), SHELL=f"/bin/{shell}").returncode == 0
    call = {"bash": ["bash", "-i"], "zsh": ["zsh", "-i"]}[shell]
    with (Path(home["HOME"]) / f".{shell}rc").open("a") as settings:
        settings.write("PS1='READY> '\n")
    typed(call, home, STEPS)


def test_fish_completes_what_is_typed(home: dict[str, str], finetune: Finetune) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    assert finetune("--install-completion", **of_user(Path(home["HOME"])), SHELL="/usr/bin/fish").returncode == 0

    def offered(line: str) -> list[str]:
        call = ["fish", "-c", f"complete -C {line!r}"]
        done = subprocess.run(call, env=home, capture_output=True, text=True, check=True, timeout=LONGEST)
        return done.stdout.splitlines()

    assert offered("finetune run mine.yaml freeze.us") == ["freeze.use=\t[head]"]
    assert offered("finetune run mine.yaml train.epochs=") == []
    assert offered("finetune predict runs/a-001 mine") == ["mine.yaml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_installing_changes_no_more_than_it_must(shell: str, tmp_path: Path, finetune: Finetune) -> None:
    rc = tmp_path / f".{shell}rc"
    before = b"alias a=b  # \xff without an end"
    if shell != "fish":
        rc.write_bytes(before)
    asked = {**of_user(tmp_path), "SHELL": f"/usr/bin/{shell}"}
    for _ in range(2):
        done = finetune("--install-completion", **asked)
        assert done.returncode == 0, done.stderr
        file = Path(done.stdout.removeprefix("wrote ").partition("; open")[0])
        assert file.read_text() == shells.SCRIPTS[shell]
        assert finetune("--show-completion", **asked).stdout == shells.SCRIPTS[shell]
    if shell != "fish":
        first, second = rc.read_bytes().splitlines()
        assert first == before
        assert second.decode() in (
            "source ~/.bash_completions/finetune.sh",
            "fpath+=~/.zfunc; autoload -Uz compinit; compinit",
        )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([file] if shell == "fish" else [file, rc])


def test_understanding_is_not_yet_installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in of_user(tmp_path).items():
        monkeypatch.setenv(name, value)
    assert callable(parse_command_line(["--install-completion"]))
    with pytest.raises(UsageError, match="--install-completion cannot be combined with a command; leave out 'ls'"):
        parse_command_line(["--install-completion", "ls"])
    assert list(tmp_path.iterdir()) == []


def test_another_shell_is_refused(tmp_path: Path, finetune: Finetune) -> None:
    done = finetune("--install-completion", **of_user(tmp_path), SHELL="/bin/tcsh")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "no completion for the shell 'tcsh'; write SHELL=bash, zsh or fish before the command" in done.stderr
