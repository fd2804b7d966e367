"""Options in words, and examples that recipes take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.recipe import optiontext
from finetune.recipe import plan as plans
from tests.test_new import values_of

if TYPE_CHECKING:
    from finetune.components import Component

pytestmark = pytest.mark.once

CATALOGUE = Catalogue(plugins.load())
COMPONENTS = [component for _, component in CATALOGUE]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda each: f"{each.kind}-{each.name}")
def test_every_example_is_taken(component: Component) -> None:
    said = values_of(optiontext.example(component))
    plans.load({"dataset": {"use": "folder", "root": "photos"}, **said}, [], CATALOGUE)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda each: f"{each.kind}-{each.name}")
def test_every_option_is_shown(
    component: Component, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plugins", "show", component.name, "--json"]) == 0
    shown = capsys.readouterr()
    found = next(
        each for each in json.loads(shown.out.splitlines()[-1])["components"] if each["kind"] == component.kind
    )
    assert {option["name"] for option in found["options"]} == {
        field.alias or name for name, field in component.options.model_fields.items()
    }
    assert all(option["about"] and option["takes"] for option in found["options"])
    assert main(["plugins", "show", component.name]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "in a recipe:" in text


def test_what_cannot_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "foldr"]) == 2
    assert "no component named 'foldr'; did you mean 'folder'?" in capsys.readouterr().err
    assert main(["plugins", "folder"]) == 2
    assert "'folder' is nothing to list; write `finetune plugins show NAME`" in capsys.readouterr().err
