"""The complete package of docs/plugins.md: it installs, runs, tells its errors, and passes its own tests."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune import plugins, testing
from finetune.catalogue import Catalogue
from finetune.components import Dataset
from finetune.errors import DataError
from finetune.recipe.models import DatasetSection
from finetune.testing import (
    ContractError,
    augmentations,
    backbones,
    callbacks,
    check_dataset,
    datasets,
    draw_photos,
    freezers,
)
from tests.pages import blocks, chapter, section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture(scope="module")
def guide(repo: Path) -> str:
    """Return the guide."""
    return (repo / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.fixture
def package(guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the package of the guide as its pyproject.toml says; return the folder it is in."""
    text = section(guide, "A complete package")
    (toml,), (code,) = blocks(text, "toml"), blocks(text, "python")
    project = tomllib.loads(toml)["project"]
    site = tmp_path / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["finetune"].items())
    (info / "entry_points.txt").write_text(f"[finetune]\n{points}")
    (module,) = project["entry-points"]["finetune"].values()
    (site / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop(module, None)


def test_the_package_is_found_by_its_entry_point(package: Path) -> None:
    catalogue = Catalogue(plugins.load_plugins())
    component = catalogue.get(Dataset, "byname")
    assert str(catalogue.origin(component)) == "plugin 'byname' (finetune-byname 1.0)"


def test_its_recipe_is_valid_and_its_photos_are_read(package: Path, guide: str, tmp_path: Path) -> None:
    from finetune.data import loading as data
    from finetune.recipe import plan

    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(10):
        for name in ("daisy", "rose"):
            pixels = np.full((20, 20, 3), number * 20 + len(name), np.uint8)
            Image.fromarray(pixels).save(photos / f"{name}_{number}.jpg")
    (yaml,) = blocks(section(guide, "A complete package"), "yaml")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml)
    chosen = plan.load_plan(recipe, [], Catalogue(plugins.load_plugins())).dataset
    assert chosen.component.name == "byname"
    found = data.load(chosen, DatasetSection(use="byname"), seed=1, workers=0)
    assert found.classes == ("daisy", "rose")
    assert len(found.train) + len(found.valid) == 20
    assert {*found.valid.labels.tolist()} == {0, 1}


def test_its_error_says_what_to_do(package: Path, tmp_path: Path) -> None:
    component = Catalogue(plugins.load_plugins()).get(Dataset, "byname")
    with pytest.raises(DataError, match=r"no \.jpg below '.*'; name a folder of photos such as rose_001\.jpg"):
        component.build(component.options.model_validate({"root": tmp_path}), "train")


def test_its_own_tests_pass(package: Path, guide: str, tmp_path: Path) -> None:
    contract, own = blocks(chapter(guide, "Test your plugin"), "python")
    scope: dict[str, Any] = {}
    exec(contract, scope)
    scope["test_contract"](draw_photos(tmp_path / "drawn"))
    exec(own, scope)
    folder = tmp_path / "photos"
    folder.mkdir()
    scope["test_classes_come_from_names"](folder)


def test_a_broken_contract_is_told_as_shown(package: Path, guide: str, tmp_path: Path) -> None:
    red = draw_photos(tmp_path / "drawn") / "red"
    dataset = Catalogue(plugins.load_plugins()).get(Dataset, "byname")

    def build(options: Any, split: Any) -> Any:
        print("reading", end="")
        return dataset.build(options, split)

    with pytest.raises(ContractError) as caught:
        check_dataset(replace(dataset, build=build), {"root": red})
    (shown,) = blocks(chapter(guide, "Test your plugin"), "text")
    _, *rules = str(caught.value).splitlines()
    title, *lines = shown.splitlines()
    assert lines == rules
    with pytest.raises(ContractError) as caught:
        check_dataset("byname", {"root": red})
    assert (
        title
        == f"{ContractError.__module__}.ContractError: {caught.value}".partition(" breaks ")[0] + " breaks 2 rules"
    )


@pytest.mark.parametrize("kind", [datasets, augmentations, freezers, callbacks, backbones])
def test_every_rule_of_the_contract_is_listed(guide: str, kind: ModuleType) -> None:
    text = chapter(guide, "Test your plugin")
    assert all(f"| `{rule}` | {what} |\n" in text for rule, what in kind.RULES.items())
    (check,) = {name for name in testing.__all__ if name.startswith("check_")} & vars(kind).keys()
    assert f"\n`{check}(" in text
