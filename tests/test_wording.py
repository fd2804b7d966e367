"""Pages, messages and docstrings do not use the words of ``tests/wording.py``.

``python -m tests.wording`` prints every hit with its place.
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests import wording

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.checkout

# Words that a file may use, by path and word, each with its reason.
ALLOWED: dict[tuple[str, str], str] = {}
# Files that still use such words, with the number of hits. Lower or remove an entry when you reword its file.
PENDING: dict[str, int] = {}


@pytest.fixture(scope="module")
def hits() -> list[wording.Hit]:
    """Return every hit in pages and modules."""
    return list(wording.all_hits())


def test_pages_and_modules_avoid_these_words(hits: list[wording.Hit]) -> None:
    found = Counter(hit.path for hit in hits if (hit.path, hit.word) not in ALLOWED)
    changed = {path for path in found.keys() | PENDING.keys() if found[path] != PENDING.get(path, 0)}
    listed = [f"{hit}; write: {wording.WORDS[hit.word][1]}" for hit in hits if hit.path in changed]
    counts = [f"{path}: {found[path]} hits, PENDING has {PENDING.get(path, 0)}" for path in sorted(changed)]
    assert not changed, "\n".join(["", *counts, *listed])


def test_every_exception_is_needed(hits: list[wording.Hit]) -> None:
    assert ALLOWED.keys() <= {(hit.path, hit.word) for hit in hits}


def test_pages_and_modules_are_found() -> None:
    pages = {file.relative_to(wording.REPO).as_posix() for file in wording.pages()}
    modules = {file.relative_to(wording.REPO).as_posix() for file in wording.sources()}
    examples = {"examples/compare.py", "examples/flowers.ipynb", "examples/finetune-zip/README.md"}
    template = "finetune/new/templates/plugin/dataset.py.jinja"
    assert {"README.md", "CHANGELOG.md", "docs/recipes.md", "recipes/folder.yaml", template} | examples <= pages
    assert {"finetune/errors.py", "plugins/finetune_plugins/csv.py"} <= modules
    assert any(name.startswith("model/") for name in modules)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mend or mended, mending", ["mend", "mend", "mend"]),
        ("it begins anew", ["anew"]),
        ("the run goes on; it went\non", ["go on", "go on"]),
        ("that is said once, and others are told", ["is said", "is told"]),
        ("weights that come along", ["come along"]),
        ("the file beside it, and besides this one", ["beside"]),
        ("the whole file", ["whole"]),
        ("whole numbers, a whole number, as a whole, on the whole, the whole of it", []),
        ("held against a hash", ["held against"]),
        ("'x' is no file, and {} is no {}", ["is no X", "is no X"]),
        ("there is no file, there must be no file, it is no longer, no more", []),
        ("rank 2 is none of 2 machines", ["is none"]),
        ("the images are others than before", ["others"]),
        ("all others are listed", []),
        ("what stands below", ["stands"]),
        ("-1 stands for all, as it stands in the file", []),
        ("whatever it died of", ["died of"]),
        ("until now, so far as known", ["until now", "so far as"]),
        ("there is none to train on", ["there is none to"]),
        ("the memory does not suffice", ["not suffice"]),
        ("it is of no use beside data", ["beside", "of no use"]),
        ("the parameters `whole` and ``beside``", []),
    ],
)
def test_the_words_are_found(text: str, words: list[str]) -> None:
    assert [word for word, _ in wording.find(text)] == words


def test_strings_of_a_module_are_read() -> None:
    code = (
        'def f(x):\n    """Mend it."""\n    return f"{x!r} is no {x + \'go on\'}" "; mend it", "anew", {"whole": 1}\n'
    )
    found = list(wording.literals(ast.parse(code)))
    assert found == [(2, "Mend it."), (3, "{} is no {}; mend it"), (3, "go on")]


def test_blocks_of_code_and_generated_parts_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "REPO", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("anew\n```text\nanew\n```\n<!-- a b: begin -->\nanew\n<!-- a b: end -->\nanew\n")
    assert [(hit.path, hit.line) for hit in wording.hits_in_page(page)] == [("page.md", 1), ("page.md", 8)]
