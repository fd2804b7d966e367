"""The README says what is so: its recipes are valid, its code runs, its commands, links and files exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import source
from finetune.cli.app import parse_command_line
from finetune.plugins import Origin
from finetune.recipe import plan
from tests.drawn import folder
from tests.pages import blocks, commands, prose

pytestmark = pytest.mark.checkout


@pytest.fixture(scope="module")
def readme(repo: Path) -> str:
    return (repo / "README.md").read_text(encoding="utf-8")


def test_recipes_are_valid(readme: str, tmp_path: Path) -> None:
    recipes = blocks(readme, "yaml")
    assert recipes
    for number, block in enumerate(recipes):
        file = tmp_path / f"block-{number}.yaml"
        file.write_text(block, encoding="utf-8")
        assert plan.load_plan(file, [], Catalogue(plugins.load_plugins())).recipe.name == file.stem


def test_code_runs(readme: str, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos")
    shutil.copy(photos / "red" / "00.jpg", tmp_path / "new.jpg")
    code = blocks(readme, "python")
    assert code
    (tmp_path / "readme.py").write_text("\n".join(code), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "flowers.onnx").is_file()


def test_commands_are_understood(readme: str) -> None:
    calls = commands(readme, "finetune")
    assert calls
    for arguments in calls:
        assert callable(parse_command_line(arguments)), arguments


def test_changes_on_the_command_line_are_valid(readme: str, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repo / "examples" / "finetune-squeezenet"))
    import finetune_squeezenet

    loaded = plugins.load_plugins()
    if not any(origin.name == "squeezenet" for origin in loaded.origins.values()):
        loaded.register(finetune_squeezenet, Origin(name="squeezenet", distribution="example", version="-"))
    monkeypatch.chdir(repo)
    found = [words[1:] for words in commands(readme, "finetune") if words[0] == "run" and "recipes/" in words[1]]
    assert found
    for words in found:
        given = [word.replace("=FILE", "=weights.safetensors") for word in words]
        assert source.parse_words(given).plan(Catalogue(loaded)).recipe.name == Path(given[0]).stem


def test_what_it_shows_of_mistakes_is_what_is_shown(readme: str, tmp_path: Path) -> None:
    recipe = "dataset: {use: folder, root: photos/}\nfreeze: {use: gradul}\ntrain: {epoch: 3}\n"
    (tmp_path / "my.yaml").write_text(recipe)
    done = subprocess.run(
        [sys.executable, "-m", "finetune", "check", "my.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"$ finetune check my.yaml\n{done.stderr}" in blocks(readme, "console")


def test_make_targets_exist(readme: str, repo: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (repo / "Makefile").read_text(encoding="utf-8"), re.M)
    asked = {words[0] for words in commands(readme, "make")}
    assert asked
    assert asked <= set(targets)


def test_what_pip_installs_is_there(readme: str, repo: Path) -> None:
    calls = commands(readme, "pip")
    assert calls
    for words in calls:
        assert words[0] == "install"
        assert (repo / words[-1] / "pyproject.toml").is_file(), words


def test_links_and_paths_lead_somewhere(readme: str, repo: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(readme)) if "://" not in link]
    named = re.findall(r"`((?:examples|docs|recipes|tests|benchmarks|plugins|model)/[\w./-]*)`", prose(readme))
    assert len(links) > 3
    for path in (*links, *named):
        assert (repo / path.partition("#")[0]).exists(), path
