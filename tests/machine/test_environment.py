"""What a run ran on, without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.machine import environment


def test_everything_is_there_and_ready_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/home/me/.venv/bin/finetune", "run", "a b.yaml", "dataset.url=https://me:pw@host/x"]
    )
    found = json.loads(json.dumps(environment.describe_environment(), allow_nan=False))
    assert found["command"] == "finetune run 'a b.yaml' dataset.url=https://***@host/x"
    assert found["packages"]["mindspore"].startswith("2.")
    assert found["packages"]["numpy"].startswith("1.26.")
    assert found["cores"] >= 1
    assert found["memory_mb"] > 100
    assert found["cpu"]
    assert set(found["isa_flags"]) <= set(environment.ISA_FLAGS)


def test_mindspore_is_not_imported() -> None:
    code = "import sys; from finetune.machine import environment as e; e.describe_environment(); "
    code += "print('mindspore' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(environment.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_commit_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert environment.read_git_commit() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q"], check=True)
    assert environment.read_git_commit() is None
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = environment.read_git_commit()
    assert commit is not None
    assert len(commit) >= 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.read_git_commit() is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/x", "https://***@host/x"),
        ("https://token@host/x?token=abc&y=1", "https://***@host/x?token=***&y=1"),
        ("https://u:p@ss@host", "https://***@host"),
        ("hf_abcdefghijkl, ghp_abcdefghijkl", "***, ***"),
        ("dataset.api_key=abc train.epochs=3", "dataset.api_key=*** train.epochs=3"),
        ("--hf-token abc --password 'x y'", "--hf-token *** --password ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("https://host/a@b", "https://host/a@b"),
        ("tokenizer=bert, keep tokens as text", "tokenizer=bert, keep tokens as text"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert environment.mask_secrets(text) == shown


def test_masking_long_text_is_quick() -> None:
    text = "https://" + "token" * 40_000 + "a" * 200_000
    assert environment.mask_secrets(text) == text
