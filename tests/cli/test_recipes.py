"""``ls``, ``cat``, ``cp``: the recipes that come with the project."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from finetune.cli.recipes import format_groups, group_by_purpose
from finetune.errors import UsageError
from finetune.recipe import bundled
from tests.cli.calling import Finetune, answer


def test_every_recipe_of_the_source_tree_is_listed(finetune: Finetune, repo: Path) -> None:
    files = sorted((repo / "recipes").rglob("*.yaml"))
    assert files
    done = finetune("ls", "--json")
    listed = [Path(recipe["path"]) for recipe in answer(done)["recipes"]]
    assert [path.name for path in listed] == [file.name for file in files]
    assert [path.read_text() for path in listed] == [file.read_text() for file in files]
    assert all(recipe["purpose"] for recipe in answer(done)["recipes"])
    assert named(finetune("ls").stdout) == {(recipe["for"], recipe["name"]) for recipe in answer(done)["recipes"]}


def named(text: str) -> set[tuple[str, str]]:
    """Return the recipes of a list, each with the end that it stands under."""
    found, group = [], ""
    for line in text.splitlines():
        assert len(line) <= 80
        if line.startswith("for "):
            group = line.removeprefix("for ").removesuffix(":")
        elif re.match("  [a-z]", line):
            found.append((group, line.split()[0]))
    assert len({*found}) == len(found)
    return {*found}


def test_the_list_begins_with_what_a_beginner_wants(finetune: Finetune) -> None:
    lines = finetune("ls").stdout.splitlines()
    assert lines[0] == "for a first look:"
    assert lines[1].startswith("  quickstart ")
    assert [line for line in lines if line.startswith("for ")] == [
        *("for a first look:", "for your own photos:", "for choosing what trains:", "for other devices:"),
    ]


def test_cat_prints_the_file(finetune: Finetune, repo: Path) -> None:
    text = (repo / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
    assert finetune("cat", "quickstart").stdout == text.rstrip("\n") + "\n"
    assert answer(finetune("cat", "quickstart.yaml", "--json"))["text"] == text


def test_the_schema_goes_into_a_file(finetune: Finetune, tmp_path: Path) -> None:
    done = finetune("schema", "--output", "recipe.schema.json", cwd=tmp_path)
    assert done.stdout == "# yaml-language-server: $schema=recipe.schema.json\n"
    written = json.loads((tmp_path / "recipe.schema.json").read_text())
    assert written == answer(finetune("schema", "--json")) == json.loads(finetune("schema").stdout)
    assert finetune("schema", "--output", "/dev/null/recipe.schema.json").returncode == 7


def test_cp_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    original = bundled.find_recipe("quickstart").read_bytes()
    (tmp_path / "folder").mkdir()
    copies = [
        bundled.copy_recipe("quickstart", target)
        for target in (None, Path("mine.yaml"), Path("folder"), Path("a/b.yaml"))
    ]
    assert copies == [Path("quickstart.yaml"), Path("mine.yaml"), Path("folder/quickstart.yaml"), Path("a/b.yaml")]
    assert all(path.read_bytes() == original for path in copies)
    (tmp_path / "mine.yaml").write_text("changed")
    (tmp_path / "link.yaml").symlink_to("nowhere")
    for taken in ("mine.yaml", "link.yaml"):
        with pytest.raises(UsageError, match=f"'{taken}': the file exists; choose another name or pass --force"):
            bundled.copy_recipe("quickstart", Path(taken))
    bundled.copy_recipe("folder", Path("folder/quickstart.yaml"))  # nobody changed it since it was copied
    assert (tmp_path / "mine.yaml").read_text() == "changed"
    assert not (tmp_path / "nowhere").exists()


def test_cp_answers_with_the_new_file(finetune: Finetune, tmp_path: Path) -> None:
    assert finetune("cp", "quickstart", cwd=tmp_path).stdout == "quickstart.yaml\n"
    (tmp_path / "quickstart.yaml").write_text("changed", encoding="utf-8")
    done = finetune("cp", "quickstart", "--json", cwd=tmp_path)
    assert done.returncode == 2
    said = "'quickstart.yaml': the file exists; choose another name or pass --force"
    assert answer(done)["error"]["message"] == said
    assert finetune("cp", "quickstart", "/dev/null/x.yaml", cwd=tmp_path).returncode == 7


def test_recipes_of_an_installed_package_lie_beside_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes" / "more").mkdir(parents=True)
    (tmp_path / "recipes" / "a.yaml").write_text("# Do this.\n")
    (tmp_path / "recipes" / "more" / "b.yaml").write_text("dataset: x\n")
    monkeypatch.setattr(bundled, "__file__", str(tmp_path / "recipe" / "bundled.py"))
    assert list(bundled.list_recipes()) == ["a", "more/b"]
    assert [bundled.read_purpose(path) for path in bundled.list_recipes().values()] == ["Do this.", ""]
    assert [bundled.read_use(path) for path in bundled.list_recipes().values()] == ["", ""]
    assert (
        format_groups(group_by_purpose([{"name": "a", "purpose": "Do this.", "for": ""}]))
        == "for other ends:\n  a  Do this."
    )
    (tmp_path / "recipes").rename(tmp_path / "gone")
    assert bundled.list_recipes() == {}
