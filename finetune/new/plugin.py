"""New plugin packages: a working component with options, README, tests and CI."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.components import KINDS, Component
from finetune.errors import UsageError
from finetune.files.atomic import translate_disk_errors
from finetune.new.recipe import quote_value
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue

NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
BY_KIND: dict[str, type[Component]] = {kind.kind: kind for kind in KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The parts of a package that depend on its kind."""

    purpose: str
    needs: tuple[str, ...]
    snippet: str


DRAFTS = {
    "dataset": Draft(
        purpose="Photos whose class is the first part of their name",
        needs=(),
        snippet="dataset: {use: NAME, root: photos/}",
    ),
    "augmentation": Draft(
        purpose="Noise in training photos",
        needs=("numpy", "pydantic>=2.10"),
        snippet="augment:\n  - {use: albumentations, preset: standard}\n  - {use: NAME, strength: 0.1}",
    ),
    "freezer": Draft(
        purpose="A freezing policy by which one more stage trains every few epochs",
        needs=("pydantic>=2.10",),
        snippet="freeze: {use: NAME, every: 2}",
    ),
    "callback": Draft(
        purpose="A callback that ends a run as soon as it is good enough",
        needs=("pydantic>=2.10",),
        snippet="callbacks:\n  - {use: tensorboard}\n  - {use: checkpoint}\n  - {use: NAME, accuracy: 0.95}",
    ),
    "audit": Draft(
        purpose="A check of audits that finds photos of an unusual shape",
        needs=("pydantic>=2.10",),
        snippet="audit:\n  - {use: NAME, ratio: 3}",
    ),
    "backbone": Draft(
        purpose="A small network of three stages",
        needs=("mindspore>=2.10", "pydantic>=2.10"),
        snippet="backbone: {use: NAME, weights: none, width: 16}\nfreeze: {use: none}",
    ),
}


def write_package(name: str, kind: str, parent: Path, catalogue: Catalogue, *, force: bool = False) -> Path:
    """Write the package of a component called ``name`` below ``parent`` and return its folder.

    Raises ``UsageError`` for an invalid or existing name, and for an existing folder unless ``force`` overwrites its
    files. A failure leaves no files behind.
    """
    if kind not in DRAFTS:
        raise UsageError(f"no kind of plugin named '{kind}'{did_you_mean(kind, DRAFTS)}; kinds: {', '.join(DRAFTS)}")
    module = f"finetune_{name.replace('-', '_')}"
    check_name(name, kind, module, catalogue)
    target = parent / f"finetune-{name.replace('_', '-')}"
    with translate_disk_errors(target):
        if os.path.lexists(target) and not (force and target.is_dir()):
            raise UsageError(f"{target} already exists; choose a different name or --output, or pass --force")
        parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
        try:
            fill_templates(made, make_variables(name, kind, module))
            made.chmod(0o755)
            publish_package(made, target)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return target


def publish_package(made: Path, target: Path) -> None:
    """Move a new package to its place; in an existing folder, its files are overwritten and other files are kept."""
    if not target.exists():
        made.rename(target)
        return
    for file in sorted(path for path in made.rglob("*") if path.is_file()):
        place = target / file.relative_to(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)


def check_name(name: str, kind: str, module: str, catalogue: Catalogue) -> None:
    """Raise ``UsageError`` for an invalid name, or one that a component or module already has."""
    if not NAME.fullmatch(name) or len(name) > 40:
        remedy = "use lower-case letters, digits and '-', such as my-birds"
        raise UsageError(f"'{name}' is not a valid plugin name; {remedy}")
    if keyword.iskeyword(name):
        raise UsageError(f"'{name}' is a keyword of Python; choose a different name")
    if name in catalogue.names(BY_KIND[kind]):
        origin = catalogue.origin(catalogue.get(BY_KIND[kind], name))
        raise UsageError(f"{origin} already offers a {kind} named '{name}'; choose a different name")
    if find_spec(module) is not None:
        raise UsageError(f"the module {module} is already installed; choose a different name")


def make_variables(name: str, kind: str, module: str) -> dict[str, str]:
    """Return the variables of the templates."""
    draft = DRAFTS[kind]
    return {
        "name": name,
        "kind": kind,
        "module": module,
        "distribution": f"finetune-{name.replace('_', '-')}",
        "options": "".join(word.capitalize() for word in re.split(r"[-_]", name)) + "Options",
        "article": "an" if kind[0] in "aeiou" else "a",
        "use": quote_value(name),
        "purpose": draft.purpose,
        "needs": "".join(f', "{each}"' for each in draft.needs),
        "snippet": draft.snippet.replace("NAME", quote_value(name)),
    }


def fill_templates(folder: Path, values: dict[str, str]) -> None:
    """Render all files of a package from the templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("finetune.new", "templates/plugin"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        ".gitignore": "gitignore",
        ".github/workflows/test.yml": "ci.yml",
        f"{values['module']}.py": f"{values['kind']}.py",
        f"tests/test_{values['name'].replace('-', '_')}.py": "test.py",
    }
    for file, template in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(templates.get_template(f"{template}.jinja").render(values), encoding="utf-8")
