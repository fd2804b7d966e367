"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import finetune
import finetune_model
import finetune_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

PACKAGES = {p.__name__: Path(p.__file__ or "").parent for p in (finetune, finetune_model, finetune_plugins)}


def imports(package: str) -> Iterator[tuple[Path, str]]:
    """Yield every absolute import of a package's modules as a dotted name."""
    files = sorted(PACKAGES[package].rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((file, f"{node.module}.{alias.name}") for alias in node.names)


def test_the_engine_imports_no_plugin() -> None:
    wrong = [(f.name, n) for f, n in imports("finetune") if n.startswith(("finetune_model", "finetune_plugins"))]
    assert not wrong


@pytest.mark.parametrize("package", ["finetune_model", "finetune_plugins"])
def test_built_in_plugins_import_only_public_names_of_the_engine(package: str) -> None:
    other = {"finetune_model": "finetune_plugins", "finetune_plugins": "finetune_model"}[package]
    public = {f"finetune.{name}" for name in finetune.__all__}
    wrong = [
        (file.name, name)
        for file, name in imports(package)
        if name.startswith(other) or (name.split(".")[0] == "finetune" and name not in public)
    ]
    assert not wrong


def test_what_pytest_imports_everywhere_imports_nothing() -> None:
    code = "import sys, pytest; before = {*sys.modules}; import finetune_pytest; print(sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['finetune_pytest']"


def test_every_public_name_can_be_imported() -> None:
    for name in finetune.__all__:
        assert getattr(finetune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = finetune.nonsense


@pytest.mark.parametrize(
    "module", ["finetune", "finetune.cli", "finetune.recipe.plan", "finetune.plugins", "finetune.testing"]
)
def test_light_imports_stay_light(module: str) -> None:
    heavy = ("mindspore", "albumentations", "openvino", "cv2", "tensorboardX", "scipy")
    code = f"import {module}, sys; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_commands_start_without_reading_yaml_or_models() -> None:
    code = (
        "import finetune.cli, sys; print([m for m in ('pydantic', 'ruamel.yaml', 'numpy', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_catalogue_of_built_ins_imports_nothing_heavy() -> None:
    code = "import finetune.plugins as plugins, finetune.catalogue as catalogue, sys;"
    code += "catalogue.Catalogue(plugins.load_plugins());"
    code += "print([m for m in ('mindspore', 'albumentations', 'cv2', 'tensorboardX') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def load_house(repo: Path) -> ModuleType:
    """Return the module that measures the structure."""
    spec = importlib.util.spec_from_file_location("house", repo / "tools" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    house = importlib.util.module_from_spec(spec)
    sys.modules["house"] = house
    spec.loader.exec_module(house)
    return house


@pytest.mark.checkout
def test_packages_import_downwards_and_nothing_in_circles(repo: Path) -> None:
    house = load_house(repo)
    modules = house.read_modules()
    imports = [each for module in modules.values() for each in module.imports]
    for module in modules:
        layer = house.package_of(module, modules).partition(".")[2]
        assert not layer or layer == "__main__" or layer in house.LAYERS, f"{module} is in no layer"
    upward = {
        tuple(house.package_of(name, modules).partition(".")[2] for name in (each.importer, each.imported))
        for each in house.find_upward(imports, modules)
    }
    assert upward == house.EXCEPTIONS.keys()
    executed = [each for each in imports if each.kind != "type"]
    assert house.find_circles((each.importer, each.imported) for each in executed) == []
    packages = ((house.package_of(e.importer, modules), house.package_of(e.imported, modules)) for e in executed)
    assert house.find_circles(pair for pair in packages if pair[0] != pair[1]) == []
    with_types = house.find_circles((each.importer, each.imported) for each in imports)
    assert max(map(len, with_types), default=0) <= 5


@pytest.mark.checkout
def test_files_and_functions_are_not_too_long(repo: Path) -> None:
    modules = load_house(repo).read_modules().values()
    assert [module.name for module in modules if module.lines > 400] == []
    functions = [(name, lines) for module in modules for name, lines in module.functions]
    assert [name for name, lines in functions if lines > 70] == []


@pytest.mark.checkout
def test_circles_are_found(repo: Path) -> None:
    house = load_house(repo)
    assert house.find_circles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]) == [["a", "b", "c"]]
    assert house.find_circles([("a", "b"), ("a", "c"), ("b", "c")]) == []


@pytest.mark.checkout
def test_walks_name_files_and_what_they_define(repo: Path) -> None:
    text = (repo / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = text.partition("## Walks")[2].partition("\n## ")[0].split("\n\n**")[1:]
    assert len(walks) == 6
    for walk in walks:
        steps = re.findall(r"`([\w/]+\.py)`\s*(?:\(([^)]*)\))?", walk)
        assert f"{len({file for file, _ in steps})} files." in walk, walk[:40]
        for file, names in steps:
            source = (repo / file).read_text(encoding="utf-8")
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"(?:def|class) {name}\b", source), f"{file} defines no {name}"


@pytest.mark.checkout
def test_the_architecture_page_names_modules_that_exist(repo: Path) -> None:
    text = (repo / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:finetune|plugins|model)/[\w/]+(?:\.py|/))`", text)
    assert len(named) > 10
    assert [name for name in named if not (repo / name).exists()] == []
