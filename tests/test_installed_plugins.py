"""Installed plugins: entry points, what cannot be loaded, and what is left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.components import Callback, Dataset, Freezer, Options
from finetune.errors import PluginError
from tests.test_plugins import origin

if TYPE_CHECKING:
    from pathlib import Path

Install = Callable[..., None]

BIRDS = """
from finetune import Dataset, Options, hookimpl

@hookimpl
def finetune_datasets():
    yield Dataset(name="birds", build=lambda options, split: None)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that puts distributions on the path as an installer does: metadata, entry points, modules."""
    site = tmp_path / "site"
    site.mkdir()
    modules: list[str] = []

    def add(distribution: str, version: str, points: dict[str, str], **sources: str) -> None:
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = "".join(f"{name} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[finetune]\n{lines}")
        for module, source in sources.items():
            (site / f"{module}.py").write_text(source)
            modules.append(module)

    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(plugins, "BUILTINS", ("finetune_plugins.freezing",))
    monkeypatch.delenv("FINETUNE_DISABLE_PLUGINS", raising=False)
    yield add
    for module in modules:
        sys.modules.pop(module, None)


def test_an_installed_plugin_is_found_by_its_entry_point(install: Install) -> None:
    install("bird-plugin", "1.2", {"birds": "bird_plugin"}, bird_plugin=BIRDS)
    loaded = plugins.load_plugins()
    catalogue = Catalogue(loaded)
    assert loaded.broken == []
    assert str(catalogue.origin(catalogue.get(Dataset, "birds"))) == "plugin 'birds' (bird-plugin 1.2)"


def test_an_entry_point_may_be_an_object_in_a_module(install: Install) -> None:
    source = BIRDS + "\nclass Holder:\n    finetune_datasets = staticmethod(finetune_datasets)\n\nholder = Holder()\n"
    install("bird-plugin", "1.2", {"birds": "bird_plugin:holder"}, bird_plugin=source)
    assert Catalogue(plugins.load_plugins()).names(Dataset) == ("birds",)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no libbird')", "RuntimeError: no libbird"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        (BIRDS.replace("@hookimpl", ""), "'finetune_datasets' is missing @hookimpl; add the decorator"),
        (BIRDS.replace("_datasets", "_dataset"), "no hook named 'finetune_dataset'; did you mean 'finetune_datasets'?"),
        (BIRDS.replace("datasets()", "datasets(run)"), "finetune_datasets"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_stops_nothing_else(install: Install, source: str, reason: str) -> None:
    install("bad-plugin", "0.1", {"bad": "bad_plugin"}, bad_plugin=source)
    install("bird-plugin", "1.2", {"birds": "bird_plugin"}, bird_plugin=BIRDS)
    loaded = plugins.load_plugins()
    catalogue = Catalogue(loaded)
    (broken,) = loaded.broken
    assert broken.origin == origin("bad", "bad-plugin", "0.1")
    assert reason in broken.reason
    assert catalogue.names(Dataset) == ("birds",)
    assert "head" in catalogue.names(Freezer)


@pytest.mark.parametrize("target", ["no_such_module", "bird_plugin:no_such_object", "bird_plugin:"])
def test_an_entry_point_that_leads_nowhere_is_noted(install: Install, target: str) -> None:
    install("bird-plugin", "1.2", {"birds": target}, bird_plugin="")
    (broken,) = plugins.load_plugins().broken
    assert broken.origin == origin()
    assert broken.reason


def test_an_interrupt_while_a_plugin_is_imported_is_one(install: Install) -> None:
    install("bird-plugin", "1.2", {"birds": "bird_plugin"}, bird_plugin="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        plugins.load_plugins()


@pytest.mark.parametrize("disabled", ["birds", "other, birds", "birds,"])
def test_installed_plugins_can_be_left_out(install: Install, monkeypatch: pytest.MonkeyPatch, disabled: str) -> None:
    install("bird-plugin", "1.2", {"birds": "bird_plugin"}, bird_plugin="raise RuntimeError('imported')")
    monkeypatch.setenv("FINETUNE_DISABLE_PLUGINS", disabled)
    loaded = plugins.load_plugins()
    assert loaded.broken == []
    assert Catalogue(loaded).names(Dataset) == ()
    assert "bird_plugin" not in sys.modules


def test_the_order_of_plugins_does_not_depend_on_their_installation(install: Install) -> None:
    for name in ("c", "a", "b"):
        source = f"from finetune import hookimpl\n\n@hookimpl\ndef finetune_run_end(run):\n    run.append('{name}')\n"
        install(f"{name}-plugin", "1.0", {name: f"{name}_plugin_module"}, **{f"{name}_plugin_module": source})
    heard: list[str] = []
    plugins.load_plugins().fire("finetune_run_end", run=heard)
    assert heard == ["c", "b", "a"]


def test_two_installed_plugins_that_offer_one_name_are_both_named(install: Install) -> None:
    install("bird-plugin", "1.2", {"birds": "bird_plugin"}, bird_plugin=BIRDS)
    install("more-birds", "3.0", {"birds": "more_birds"}, more_birds=BIRDS)
    catalogue = Catalogue(plugins.load_plugins())
    with pytest.raises(PluginError) as caught:
        catalogue.get(Dataset, "birds")
    assert "plugin 'birds' (bird-plugin 1.2)" in str(caught.value)
    assert "plugin 'birds' (more-birds 3.0)" in str(caught.value)


def test_a_name_of_a_built_in_cannot_be_taken_over_silently(install: Install) -> None:
    source = "from finetune import Freezer, hookimpl\n\n@hookimpl\ndef finetune_freezers():\n"
    source += "    yield Freezer(name='head', build=lambda options: None)\n"
    install("bird-plugin", "1.2", {"birds": "bird_plugin"}, bird_plugin=source)
    with pytest.raises(PluginError, match=r"two freezers named 'head': .*mindspore-finetune.*bird-plugin 1\.2"):
        Catalogue(plugins.load_plugins()).get(Freezer, "head")


def test_all_built_in_plugins_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())
    loaded = plugins.load_plugins()
    catalogue = Catalogue(loaded)
    assert loaded.broken == []
    assert len(loaded.origins) == len(plugins.BUILTINS)
    assert {whose.distribution for whose, _ in catalogue} == {"mindspore-finetune"}
    assert all(issubclass(component.options, Options) for _, component in catalogue)
    assert catalogue.names(Freezer) == ("gradual", "head", "none", "stages")
    assert catalogue.names(Callback) == ("checkpoint", "early_stopping", "tensorboard")
