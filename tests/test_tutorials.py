"""The tutorials: every step works, and its commands print what the page shows."""

from __future__ import annotations

import pty
import runpy
import shlex
from contextlib import contextmanager, suppress
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from finetune import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.checkout

PAGES = ("tutorials/first-model.md", "tutorials/first-plugin.md")
UPDATE = "run: python docs/making/transcripts.py --write"
PAGE = "```console\n$ finetune run a.yaml\nepoch 1, loss 0.5\n…\nrun  runs/a-001\n```\n"


@pytest.fixture(scope="module")
def transcripts(repo: Path) -> Any:
    return SimpleNamespace(**runpy.run_path(str(repo / "docs" / "making" / "transcripts.py")))


@pytest.fixture
def place(transcripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for the steps of a tutorial, with the environment that they need."""
    for name, value in transcripts.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_the_first_model_is_trained_as_shown(
    transcripts: Any, repo: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(line: str, work: Path) -> list[str]:
        """Run a command of ours in this process, where MindSpore is imported once, and any other by itself."""
        monkeypatch.chdir(work)
        if not line.startswith("finetune ") or line.endswith("--version"):
            return list(transcripts.printed(line, work))
        with terminal(monkeypatch) as written:
            assert cli.main(shlex.split(line)[1:]) == 0
        return list(transcripts.on_screen("".join(written)))

    text = (repo / "docs" / PAGES[0]).read_text(encoding="utf-8")
    assert transcripts.differences(PAGES[0], transcripts.perform(text, place, run)) == [], UPDATE


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Make both streams a terminal for the length of a block; yield a list that gets what is written there."""
    own, other = pty.openpty()
    written: list[str] = []

    def read() -> None:
        with suppress(OSError), open(own, encoding="utf-8", newline="") as file:  # fails once the other end is closed
            while piece := file.read(1):
                written.append(piece)

    reader = Thread(target=read)
    reader.start()
    with monkeypatch.context() as patch, open(other, "w", encoding="utf-8") as stream:
        patch.setattr("sys.stdout", stream)
        patch.setattr("sys.stderr", stream)
        patch.setenv("COLUMNS", "96")
        patch.setenv("TERM", "xterm-256color")
        yield written
    reader.join()


def test_the_first_plugin_is_written_as_shown(transcripts: Any, repo: Path, place: Path) -> None:
    text = (repo / "docs" / PAGES[1]).read_text(encoding="utf-8")
    assert transcripts.differences(PAGES[1], transcripts.perform(text, place)) == [], UPDATE


def test_every_tutorial_is_run(repo: Path, transcripts: Any) -> None:
    found = {file.relative_to(repo / "docs").as_posix() for file in (repo / "docs" / "tutorials").glob("*.md")}
    assert found == {*PAGES} == {*transcripts.PAGES}


@pytest.mark.parametrize(
    ("printed", "differs"),
    [
        (["epoch 1, loss 0.5", "epoch 2, loss 0.4", "run  runs/a-001"], False),
        (["epoch 1, loss 0.625", "run    runs/a-002"], False),
        (["epoch 1, error 0.5", "run  runs/a-001"], True),
        (["epoch 1, loss 0.5", "run  runs/b-001"], True),
        (["epoch 1, loss 0.5"], True),
    ],
)
def test_a_page_differs_by_words_and_not_by_numbers(transcripts: Any, printed: list[str], differs: bool) -> None:
    (command,) = transcripts.steps(PAGE)
    assert bool(transcripts.differences("page", [(command, printed)])) == differs


def test_a_page_gets_what_its_commands_print(transcripts: Any) -> None:
    (command,) = transcripts.steps(PAGE)
    printed = ["epoch 1, error 0.25", "epoch 2, error 0.2", "run  runs/a-001"]
    text = transcripts.rewritten(PAGE, [(command, printed)])
    assert text == PAGE.replace("loss 0.5", "error 0.25")
    assert transcripts.rewritten(PAGE * 2, [(command, printed)] * 2) == text * 2
