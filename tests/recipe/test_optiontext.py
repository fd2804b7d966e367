"""Options in words, and examples that recipes take."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.recipe import plan as plans
from finetune.recipe import schema
from tests.cli.calling import environment
from tests.new.test_new import values_of

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Component

pytestmark = pytest.mark.once

CATALOGUE = Catalogue(plugins.load_plugins())
COMPONENTS = [component for _, component in CATALOGUE]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda each: f"{each.kind}-{each.name}")
def test_every_example_is_taken(component: Component) -> None:
    said = values_of(schema.make_example(component))
    plans.load_plan({"dataset": {"use": "folder", "root": "photos"}, **said}, [], CATALOGUE)


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
    assert "unexpected argument 'folder'; write `finetune plugins show NAME`" in capsys.readouterr().err


def test_a_backbone_shows_its_stages_and_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plugins", "show", "resnext50", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])["components"]
    assert found["stages"] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert (found["features"], found["parameters"], found["aliases"]) == (2048, 22_979_904, ["resnext50_32x4d"])
    assert found["layouts"] == ["mindspore-hub", "mindcv", "torchvision"]
    assert [each["name"] for each in found["weights"] if each["default"]] == ["hub-v2.5"]
    weights = {each["name"]: each for each in found["weights"]}
    assert {name: each["hash"] for name, each in weights.items()} == {
        "hub-v2.5": "8 digits of the sha256",
        "hub-v1.1": "sha256",
        "hub-v1.2": "sha256",
        "mindcv": "not stated",
        "torchvision-v1": "8 digits of the sha256",
        "torchvision-v2": "8 digits of the sha256",
        "timm-a1h": "sha256",
    }
    assert weights["hub-v1.2"]["image"] == {
        "size": 227,
        "resize": 256,
        "keep_aspect": False,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert weights["hub-v2.5"]["options"] == {"stem_pool": "same"}
    assert (weights["hub-v1.1"]["licence"], weights["hub-v1.1"]["accuracy"]) == ("Apache-2.0", 0.7816)
    assert main(["plugins", "show", "resnext_nano"]) == 0
    text = capsys.readouterr().out
    assert "stages      stem, layer1, layer2, layer3, layer4, head\n" in text
    assert "weights fractals (default)\n" in text
    assert "  file      1.3 MB, layout finetune, in the cache\n" in text
    assert "size: 64, resize: 64, keep_aspect: true, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]" in text


def test_showing_a_backbone_needs_no_mindspore(repo: Path) -> None:
    show = "main(['plugins', 'show', 'resnext50'])"
    code = f"import sys; from finetune.cli import main; {show}; print('mindspore' in sys.modules)"
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, env=environment(repo), capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.splitlines()[-1] == "False"
