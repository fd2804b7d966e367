"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
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


def test_the_catalogue_of_built_ins_imports_nothing_heavy() -> None:
    code = "import finetune.plugins as plugins, finetune.catalogue as catalogue, sys;"
    code += "catalogue.Catalogue(plugins.load_plugins());"
    code += "print([m for m in ('mindspore', 'albumentations', 'cv2', 'tensorboardX') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.checkout
def test_the_architecture_page_names_modules_that_exist(repo: Path) -> None:
    text = (repo / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:finetune|plugins|model)/[\w/]+(?:\.py|/))`", text)
    assert len(named) > 10
    assert [name for name in named if not (repo / name).exists()] == []
