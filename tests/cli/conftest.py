"""The command line as users call it: in a process of its own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.calling import RECIPE, Finetune, command, environment
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def finetune(repo: Path) -> Finetune:
    """Return a function that calls ``finetune`` and waits for it."""

    def call(
        *arguments: str | Path, cwd: Path | None = None, stdin: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=cwd,
            env=environment(repo, **env),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",  # of what is written in other encodings
            timeout=200,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``photos/`` and ``small.yaml``."""
    top = tmp_path_factory.mktemp("project")
    folder(top / "photos", each=8)
    (top / "small.yaml").write_text(RECIPE, encoding="utf-8")
    return top


@pytest.fixture(scope="session")
def trained(project: Path, finetune: Finetune) -> subprocess.CompletedProcess[str]:
    """Return the finished ``finetune run small.yaml --json`` in ``project``."""
    return finetune("run", "small.yaml", "--json", cwd=project)
