"""What has to be true of the whole project: recipes, components, hooks, versions, exit codes, how code is written."""

from __future__ import annotations

import ast
import re
import shlex
import signal
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

import finetune
import finetune_model
import finetune_plugins
from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli.app import parse_command_line
from finetune.components import (
    KINDS,
    Audit,
    Augmentation,
    Backbone,
    Callback,
    Component,
    Dataset,
    Freezer,
    ImageSpec,
    Samples,
)
from finetune.data.loading import SPLITS
from finetune.display import failures
from finetune.errors import DataError, FinetuneError, Interrupted
from finetune.plugins import HOOKS
from finetune.recipe import bundled, plan
from finetune.version import DISTRIBUTION, own_version

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = {
    file: file.read_text(encoding="utf-8")
    for package in (finetune, finetune_model, finetune_plugins)
    for file in sorted(Path(package.__file__ or "").parent.rglob("*.py"))
}
BUILT_IN = [component for origin, component in Catalogue(plugins.load_plugins()) if origin.distribution == DISTRIBUTION]
RECIPES = bundled.list_recipes()
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
LARGEST = 400  # lines of a file

# Its standard output is how a child process answers.
PRINTING = "doctor/probe.py"
UNSAFE = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


def name(component: Component) -> str:
    return f"{component.kind}-{component.name}"


# Recipes


def test_there_are_recipes() -> None:
    assert {"quickstart", "flowers"} <= RECIPES.keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_valid_and_says_what_it_is(recipe: str) -> None:
    assert plan.load_plan(RECIPES[recipe], [], Catalogue(plugins.load_plugins())).recipe.name == Path(recipe).name
    lines = RECIPES[recipe].read_text(encoding="utf-8").splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert re.fullmatch(r"# [A-Z].{20,}\.", header[0])
    said = "\n".join(header)
    calls = re.findall(r"^#   finetune (run .*)$", said, re.M)
    assert calls
    for call in calls:
        assert shlex.split(call)[1] == f"recipes/{recipe}.yaml"
        assert callable(parse_command_line(shlex.split(call)))
    for title in ("For", "Data", "Network", "Expected"):
        assert re.search(rf"^# {title} +(?!TODO)\w.{{10,}}", said, re.M), title


# Components and hooks


def test_every_kind_has_a_component() -> None:
    assert {type(component) for component in BUILT_IN} == set(KINDS)


def test_few_components_need_options() -> None:
    without = {name(component) for component in BUILT_IN} - {name(component) for component in with_defaults()}
    assert without == {"dataset-folder", "dataset-csv", "dataset-mindrecord", "freezer-stages"}


def with_defaults() -> Iterator[Component]:
    """Yield the built-in components whose options may all be left out."""
    for component in BUILT_IN:
        with suppress(ValidationError):
            component.options()
            yield component


@pytest.mark.parametrize("component", [*with_defaults()], ids=name)
def test_every_component_builds_from_its_defaults(component: Component) -> None:
    BUILDERS[type(component)](component, component.options())


def backbone(component: Backbone, options: Any) -> None:
    """A backbone builds the stages that it promises, in order, and its features have the width that it promises."""
    import mindspore as ms

    from finetune.machine import device
    from finetune.network.network import Network, Trunk, build_stages

    device.set_up(device="cpu")
    stages = build_stages(component, options)
    assert tuple(stages) == component.stages
    network = Network(stages, ms.nn.Identity()).set_train(False)
    images = ms.Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32))
    features = Trunk(network, len(network.stages)).set_train(False)(images).asnumpy()
    assert features.shape == (2, component.features)
    assert np.isfinite(features).all()
    assert not np.allclose(features[0], features[1])


def dataset(component: Dataset, options: Any) -> None:
    """A dataset has training images, and classes that are the same in all its splits, or says how to get them."""
    if component.name == "flowers102":
        with pytest.raises(DataError, match=r"set dataset\.download=true"):
            component.build(options, "train")
        return
    found = [component.build(options, split) for split in SPLITS]
    assert isinstance(found[0], Samples)
    assert {samples.classes for samples in found if samples is not None} == {found[0].classes}


def augmentation(component: Augmentation, options: Any) -> None:
    """An augmentation returns an image."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    found = component.build(options, ImageSpec(size=32, resize=36))(pixels, np.random.default_rng(1))
    assert (found.dtype, found.ndim, found.shape[2]) == (np.uint8, 3, 3)


def freezer(component: Freezer, options: Any) -> None:
    """A freezing policy names stages that there are."""
    policy = component.build(options)
    assert all(policy(epoch, STAGES) <= set(STAGES) for epoch in (1, 2, 100))


def callback(component: Callback, options: Any) -> None:
    """A callback is a plugin that listens to something."""
    built = component.build(options)
    assert [hook for hook in HOOKS if hasattr(built, hook)]


def audit(component: Audit, options: Any) -> None:
    """A check of audits returns findings, or none."""
    from finetune.testing.audits import make_images

    assert all(0 <= each.image < 8 for each in component.build(options)(make_images(8)))


BUILDERS: dict[type[Component], Any] = {
    Backbone: backbone,
    Dataset: dataset,
    Augmentation: augmentation,
    Freezer: freezer,
    Callback: callback,
    Audit: audit,
}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_called_by_the_engine_and_by_a_test(hook: str, repo: Path) -> None:
    assert [file for file, text in SOURCES.items() if f'"{hook}"' in text]
    tests = (file.read_text(encoding="utf-8") for file in (repo / "tests").rglob("test_*.py"))
    assert any(re.search(rf"(def (test_)?|\"){hook}\b", text) for text in tests)


# Versions and exit codes


@pytest.mark.checkout
def test_there_is_one_version(repo: Path) -> None:
    project = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## (\S+)", (repo / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest is not None
    assert project["version"] == newest[1] == finetune.__version__ == own_version()
    assert project["name"] == DISTRIBUTION


def errors(kind: type[FinetuneError]) -> Iterator[type[FinetuneError]]:
    """Yield an error class of the project and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from errors(below)


def test_every_exit_code_belongs_to_an_error() -> None:
    stopped = {Interrupted(signum, "stopped").exit_code for signum in (signal.SIGINT, signal.SIGTERM)}
    own = {each.exit_code for each in errors(FinetuneError) if each.__module__.startswith("finetune")}
    assert own | stopped == {1, 2, 3, 4, 5, 6, 7, 130, 143} == failures.CODES


# How code is written


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: "/".join(file.parts[-2:]))
def test_every_module_is_short_safe_and_finished(file: Path) -> None:
    text = SOURCES[file]
    assert len(text.splitlines()) <= LARGEST
    assert "TODO" not in text
    nodes = list(ast.walk(ast.parse(text)))
    assert not [node.lineno for node in nodes if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert not UNSAFE & {module.partition(".")[0] for node in nodes for module in imported(node)}
    if "cli" not in file.parts and not file.as_posix().endswith(PRINTING):
        calls = (node.func for node in nodes if isinstance(node, ast.Call))
        assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]


def imported(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.checkout
def test_examples_and_benchmarks_are_safe_too(repo: Path) -> None:
    files = [file for folder in ("examples", "benchmarks") for file in (repo / folder).rglob("*.py")]
    assert files
    for file in files:
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        assert not UNSAFE & {module.partition(".")[0] for node in nodes for module in imported(node)}, file


@pytest.mark.checkout
def test_what_users_read_is_finished(repo: Path) -> None:
    files = [*repo.glob("*.md"), *(repo / "docs").rglob("*.md"), *(repo / "recipes").rglob("*.yaml")]
    assert files
    assert not [file.name for file in files if "TODO" in file.read_text(encoding="utf-8")]


@pytest.mark.checkout
def test_every_thorough_test_exists(repo: Path) -> None:
    lines = [line for line in (repo / "tests" / "thorough.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines))
    for line in lines:
        file, _, test = line.partition("::")
        assert f"def {test}(" in (repo / "tests" / file).read_text(encoding="utf-8"), line


@pytest.mark.checkout
def test_no_file_of_tests_is_too_long(repo: Path) -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in (repo / "tests").rglob("*.py")}
    assert {str(file): length for file, length in lengths.items() if length > LARGEST} == {}
