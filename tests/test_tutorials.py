"""The tutorials: every step works, and its commands print what the page shows."""

from __future__ import annotations

import runpy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.checkout

PAGES = ("tutorials/first-model.md", "tutorials/first-plugin.md")
PAGE = "```console\n$ finetune run a.yaml\nepoch 1, loss 0.5\n…\nrun  runs/a-001\n```\n"


@pytest.fixture(scope="module")
def transcripts(repo: Path) -> Any:
    return SimpleNamespace(**runpy.run_path(str(repo / "docs" / "making" / "transcripts.py")))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_tutorial_print_what_it_shows(
    page: str, transcripts: Any, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in transcripts.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    done = transcripts.perform((repo / "docs" / page).read_text(encoding="utf-8"), tmp_path)
    assert len(done) > 5
    message = "; run: python docs/making/transcripts.py --write"
    assert not transcripts.differences(page, done), f"{transcripts.differences(page, done)}{message}"


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
