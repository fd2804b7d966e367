"""What components say of their options: where it stands in a recipe, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune import Augmentation, Backbone, Dataset, Finding, Freezer, Options, hookimpl
from finetune.catalogue import Catalogue
from finetune.errors import PluginError, RecipeError
from finetune.plugins import Origin, Plugins
from finetune.recipe.overrides import parse_keys
from finetune.recipe.plan import Plan, load_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

pytestmark = pytest.mark.once

RECIPE = """\
backbone: {use: small, weights: none}
dataset: {use: some}
augment: [{use: ink, colours: [red, blue]}]
freeze: {use: thaw, every: 3, plan: {first: stem}}
train: {epochs: 4}
callbacks: []
"""


class Thaw(Options):
    every: int = 1
    plan: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it


class Ink(Options):
    colours: tuple[str, ...] = ()


def nothing(*_: object) -> Any:
    return None


def no_findings(*_: object) -> tuple[Finding, ...]:
    return ()


def found(tmp_path: Path, freezer: Callable[..., Any], augmentation: Callable[..., Any] = no_findings) -> Plan:
    """Return the plan of the recipe, where components check their options in these ways."""

    class Plugin:
        @hookimpl
        def finetune_backbones(self) -> list[Backbone]:
            return [Backbone(name="small", build=nothing, stages=("stem", "body"), features=8)]

        @hookimpl
        def finetune_datasets(self) -> list[Dataset]:
            return [Dataset(name="some", build=nothing)]

        @hookimpl
        def finetune_augmentations(self) -> list[Augmentation]:
            return [Augmentation(name="ink", options=Ink, build=nothing, check=augmentation)]

        @hookimpl
        def finetune_freezers(self) -> list[Freezer]:
            return [Freezer(name="thaw", options=Thaw, build=nothing, check=freezer)]

    plugins = Plugins()
    plugins.register(Plugin(), Origin(name="mine", distribution="tests", version="1"))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return load_plan(tmp_path / "recipe.yaml", [], Catalogue(plugins))


def saying(*said: tuple[Any, str]) -> Callable[..., Iterable[Finding]]:
    """Return a check that yields these findings, each a severity and a subject."""
    return lambda *_: [Finding(severity=severity, subject=subject, text="is odd") for severity, subject in said]


def test_a_freezer_sees_its_options_the_stages_and_the_epochs(tmp_path: Path) -> None:
    seen: list[Any] = []
    found(tmp_path, lambda *given: seen.append(given) or ())
    assert seen == [(Thaw(every=3, plan={"first": "stem"}), ("stem", "body", "head"), 4)]


def test_an_augmentation_sees_its_options(tmp_path: Path) -> None:
    seen: list[Any] = []
    found(tmp_path, lambda *_: (), lambda *given: seen.append(given) or ())
    assert seen == [(Ink(colours=("red", "blue")),)]


def test_errors_are_mistakes_where_their_keys_stand(tmp_path: Path) -> None:
    freezer = saying(("error", "plan.first"), ("error", "every"), ("error", ""), ("note", "plan"))
    with pytest.raises(RecipeError) as error:
        found(tmp_path, freezer, saying(("error", "colours[1]"), ("error", "a key that is none")))
    file = tmp_path / "recipe.yaml"
    assert error.value.mistakes == (
        f'{file}:3:11: augment[0]."a key that is none": is odd',
        f"{file}:3:37: augment[0].colours[1]: is odd",
        f"{file}:4:1: freeze: is odd",
        f"{file}:4:21: freeze.every: is odd",
        f"{file}:4:38: freeze.plan.first: is odd",
    )


def test_the_rest_is_kept_for_the_run(tmp_path: Path) -> None:
    plan = found(tmp_path, saying(("warning", "every"), ("note", "plan.second")), saying())
    file = tmp_path / "recipe.yaml"
    assert plan.notes == (f"{file}:4:21: freeze.every: is odd", f"{file}:4:31: freeze.plan.second: is odd")


def test_a_check_that_fails_names_its_plugin(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"plugin 'mine' \(tests 1\) failed in check of freezer 'thaw': ZeroDivision"):
        found(tmp_path, lambda *_: 1 / 0)
    said = r"\(tests 1\): check of augmentation 'ink' yielded 'x', not a Finding; yield"
    with pytest.raises(PluginError, match=said):
        found(tmp_path, saying(), lambda *_: ["x"])
    with pytest.raises(PluginError, match=r"failed in check of freezer 'thaw': TypeError"):
        found(tmp_path, nothing)


def test_keys_as_they_are_spelled() -> None:
    assert parse_keys("schedule.4") == ("schedule", "4")
    assert parse_keys('ops[2]."a b".x') == ("ops", 2, "a b", "x")
    assert (parse_keys(""), parse_keys("a b")) == ((), ("a b",))
