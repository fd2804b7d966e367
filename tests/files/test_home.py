"""A leading ``~/`` or ``~user/`` is a home folder; every other name with a tilde is a name."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from finetune import UsageError, expand_home
from finetune.cli import source
from finetune.cli.completers import offer_files
from finetune.recipe.places import make_absolute

NOBODY = "~nobody-has-this-name"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with a home next to it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "inside"), [("~", ""), ("~/", ""), ("~/a/b.jpg", "a/b.jpg"), ("~/~a.jpg", "~a.jpg"), ("~/a/~", "a/~")]
)
def test_the_home_folder(here: Path, given: str, inside: str) -> None:
    assert expand_home(given) == here / "home" / inside


@pytest.mark.parametrize("name", ["~a.jpg", "~~", "~$list.csv", "~ a", "a~/b", "a/~/b", "./~/b", "/~/b", "", "~root"])
def test_names_with_a_tilde_stay(name: str) -> None:
    assert expand_home(name) == Path(name)


def test_the_home_folder_of_a_user() -> None:
    user = getpass.getuser()
    assert expand_home(f"~{user}/x") == Path(os.path.expanduser(f"~{user}")) / "x"


def test_a_folder_whose_name_begins_with_a_tilde() -> None:
    Path(NOBODY).mkdir()
    assert expand_home(f"{NOBODY}/a.jpg") == Path(NOBODY) / "a.jpg"
    assert make_absolute(f"{NOBODY}/a.jpg", Path.cwd()) == Path.cwd() / NOBODY / "a.jpg"


def test_the_folder_is_looked_for_where_the_path_starts(here: Path) -> None:
    (here / NOBODY).mkdir()
    assert make_absolute(f"{NOBODY}/a.jpg", here) == here / NOBODY / "a.jpg"
    with pytest.raises(UsageError, match=rf"no home folder for '{NOBODY}/a.jpg'; write the full path"):
        make_absolute(f"{NOBODY}/a.jpg", Path.cwd())


def test_recipes_and_changes_are_told_apart() -> None:
    assert source.parse_words(["~augment"]).changes == ("~augment",)
    assert source.parse_words([f"{NOBODY}/r.yaml"]).recipe == f"{NOBODY}/r.yaml"
    Path("~r.yaml").write_text("seed: 1\n")
    assert source.parse_words(["~r.yaml"]).recipe == "~r.yaml"
    assert source.find_source("~r.yaml") == Path("~r.yaml")


def test_completion_survives_an_unknown_user(here: Path) -> None:
    Path("~x.yaml").touch()
    (here / "home" / "mine.yaml").touch()
    assert list(offer_files("~x")) == ["~x.yaml"]
    assert list(offer_files("~/m")) == ["~/mine.yaml"]
    assert list(offer_files(f"{NOBODY}/m")) == []
