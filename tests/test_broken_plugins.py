"""Installed plugins that are broken, each in one way: named with package, version, hook and remedy, and contained.

What ends a process without Python's doing, such as ``os._exit``, cannot be contained in one process, and is not here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from finetune.plugins import HOOKS
from tests.broken_plugins import (
    BIRDS,
    EVENTS,
    FAIL,
    HARMLESS,
    LEAVE,
    LOADED,
    RECIPE,
    TITLE,
    TRAINING,
    USED,
    dataset,
    listening,
)
from tests.drawn import folder as drawn
from tests.faults.case import Outcome, case, outcome
from tests.faults.plugin_makers import install

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]


@pytest.fixture(scope="module")
def graph_mode() -> Any:
    """Leave MindSpore to others as they expect it."""
    from finetune.machine import device

    yield
    device.set_up(device="cpu")


def recipe(folder: Path, sections: dict[str, str], source: str | None, name: str = "bad") -> None:
    """Write a recipe and its photos, and install a sound network and a broken plugin."""
    drawn(folder / "photos", each=5, size=16)
    install(folder, "from tests.features.tiny import Tiny\nplugin = Tiny()\n", "tiny", "tiny_plugin:plugin")
    (folder / "r.yaml").write_text("".join(f"{key}: {value}\n" for key, value in (RECIPE | sections).items()))
    if source is not None:
        install(folder, source, name)


def finetune(folder: Path, *words: str, disable: str = "") -> Outcome:
    """Call the command line in this process."""
    with mock.patch.dict(os.environ, FINETUNE_DISABLE_PLUGINS=disable):
        return outcome(case("", "", lambda folder: words, 0), folder)


def named(found: Outcome, says: tuple[str, ...]) -> list[str]:
    """Return what a message lacks: the plugin with its package and version, and more."""
    return [text for text in (TITLE, *says) if text not in found.message]


@pytest.mark.parametrize(("source", "sections", "code", "says"), [r[1:] for r in LOADED], ids=[r[0] for r in LOADED])
def test_broken_where_it_is_loaded(
    source: str, sections: dict[str, str], code: int, says: tuple[str, ...], tmp_path: Path
) -> None:
    recipe(tmp_path, sections, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, (*says, LEAVE))) == (code, []), found.message
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("source", "sections", "code", "says"), [r[1:] for r in USED], ids=[r[0] for r in USED])
def test_broken_where_it_is_used(
    source: str, sections: dict[str, str], code: int, says: tuple[str, ...], tmp_path: Path
) -> None:
    recipe(tmp_path, sections, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, says)) == (code, []), found.message
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("source", "sections", "code", "says"), [r[1:] for r in TRAINING], ids=[r[0] for r in TRAINING]
)
def test_broken_while_a_run_trains(
    source: str, sections: dict[str, str], code: int, says: tuple[str, ...], tmp_path: Path
) -> None:
    recipe(tmp_path, sections, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, says)) == (code, []), found.message
    assert "Traceback" not in found.stderr
    assert list((tmp_path / "runs" / "r-001" / "checkpoints").glob("*.safetensors"))


def test_a_plugin_that_fails_when_it_hears_of_an_error_is_named_too(tmp_path: Path) -> None:
    source = listening("finetune_epoch_end", FAIL) + listening("finetune_run_error", "raise OSError('no mail')")
    recipe(tmp_path, {}, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, ("failed in finetune_epoch_end: KeyError: 'gone'",))) == (6, [])
    assert f"warning: {TITLE} failed in finetune_run_error: OSError: no mail" in found.stderr


def test_other_commands_and_recipes_work(tmp_path: Path) -> None:
    recipe(tmp_path, {}, None)
    rows = [row for row in (*LOADED, *USED, *TRAINING) if row[0] != "a name that is taken"]
    sources = {f"bad{number}": source for number, (_, source, *_) in enumerate(rows)}
    for name, source in sources.items():
        install(tmp_path, source.replace("name='bad'", f"name='{name}'"), name)
    listens = [name for name, source in sources.items() if any(f"\ndef {event}" in source for event in EVENTS)]
    found = finetune(tmp_path, "plugins")
    assert found.code == 0
    broken = {each["plugin"]: each for each in found.answer["broken"]}
    assert {*broken} == {*[*sources][: len(LOADED)]}
    for name, each in broken.items():
        assert (each["package"], each["version"]) == (f"{name}-plugin", "1.2")
        assert each["error"]
        assert each["remedy"] == LEAVE.replace("bad", name)
    assert finetune(tmp_path, "ls").code == 0
    assert finetune(tmp_path, "check", "r.yaml").code == 0
    found = finetune(tmp_path, "run", "r.yaml", disable=",".join(listens))
    assert (found.code, found.answer["epochs"]) == (0, 2), found.message


def test_what_misbehaves_does_no_harm(tmp_path: Path) -> None:
    recipe(tmp_path, {}, None)
    for number, source in enumerate(HARMLESS.values()):
        install(tmp_path, source, f"bad{number}")
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, found.answer["epochs"]) == (0, 2), found.message
    assert (tmp_path / "runs" / "r-001" / "result.json").exists()


@pytest.mark.parametrize("source", ["finetune_api = 1\n", ""])
def test_this_api_version_or_none_is_taken(source: str, tmp_path: Path) -> None:
    recipe(tmp_path, BIRDS, source + dataset())
    assert finetune(tmp_path, "check", "r.yaml").code == 0


def test_an_object_may_say_its_api_version_or_its_module(tmp_path: Path) -> None:
    recipe(tmp_path, {}, None)
    install(tmp_path, "class P:\n    finetune_api = 3\nplugin = P()\n", "one", "one_plugin:plugin")
    install(tmp_path, "finetune_api = 4\nclass P: ...\nplugin = P()\n", "two", "two_plugin:plugin")
    errors = {each["plugin"]: each["error"] for each in finetune(tmp_path, "plugins").answer["broken"]}
    assert errors["one"].startswith("finetune_api is 3, but mindspore-finetune ")
    assert errors["two"].endswith(" has 1; install another version of one of them")


def test_there_are_enough_and_every_hook_is_among_them() -> None:
    rows = [*LOADED, *USED, *TRAINING]
    assert len(rows) >= 25
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    failing = {hook for hook in HOOKS if any(f"def {hook}" in row[1] for row in rows)}
    assert failing | {"finetune_run_error"} == set(HOOKS)
