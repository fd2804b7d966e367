"""Every file that ``finetune new plugin`` writes can be used as it is: CI file, README, pyproject, recipe."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import invalidate_caches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.new import plugin
from finetune.recipe.plan import load_plan
from tests.cli.calling import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

KINDS = list(plugin.DRAFTS)
# Words that mean something else in YAML, and names with dashes and digits.
NAMES = ("null", "yes", "on", "my-birds2", "x1", "off")
PACKAGES = [(kind, NAMES[index]) for index, kind in enumerate(KINDS)] + [("dataset", name) for name in NAMES[1:]]
PACKAGES += [("freezer", "yes"), ("backbone", "null")]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


def write(name: str, kind: str, parent: Path, catalogue: Catalogue) -> Path:
    """Return a new package, next to what an installation would write of it."""
    package = plugin.write_package(name, kind, parent, catalogue)
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    about = package / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{key} = {value}\n" for key, value in project["entry-points"]["finetune"].items())
    (about / "entry_points.txt").write_text(f"[finetune]\n{points}")
    return package


@pytest.fixture(params=PACKAGES, ids=lambda each: "-".join(each))
def package(
    request: pytest.FixtureRequest, tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str, Path]]:
    """Yield kind, name and folder of a new package that Python finds."""
    kind, name = request.param
    folder = write(name, kind, tmp_path, catalogue)
    monkeypatch.syspath_prepend(str(folder))
    invalidate_caches()
    yield kind, name, folder
    sys.modules.pop(f"finetune_{name.replace('-', '_')}", None)


def workflow(folder: Path, version: tuple[int, int] = (1, 2)) -> dict[str, Any]:
    """Return what the CI file says."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = version  # type: ignore[assignment]
    found: dict[str, Any] = yaml.load((folder / ".github" / "workflows" / "test.yml").read_text())
    return found


def console(folder: Path) -> list[list[str]]:
    """Return the commands of the README."""
    text = (folder / "README.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for block in blocks for line in block.splitlines()]


def test_the_files_can_be_used(package: tuple[str, str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    kind, name, folder = package
    a_workflow(folder)
    a_project(name, folder)
    a_readme(kind, name, folder, capsys)


def a_workflow(folder: Path) -> None:
    """Check that the CI file is a workflow, whichever YAML reads it."""
    found = workflow(folder)
    assert workflow(folder, (1, 1)) == found
    assert {*found} == {"name", "on", "env", "jobs"}
    assert found["on"] == ["push", "pull_request"]
    (job,) = found["jobs"].values()
    assert job["runs-on"] == "ubuntu-latest"
    steps = job["steps"]
    assert all(len({*step} & {"uses", "run"}) == 1 for step in steps)
    (python,) = [step["with"]["python-version"] for step in steps if "with" in step]
    assert python == "${{ matrix.python }}"
    assert [*job["strategy"]["matrix"]] == ["python"]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs == ['pip install "$FINETUNE"', 'pip install -e ".[dev]"', "ruff check .", "mypy", "pytest"]


def a_project(name: str, folder: Path) -> None:
    """Check that all that the project file names is there."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    about, tools = project["project"], project["tool"]
    module = f"finetune_{name.replace('-', '_')}"
    assert about["entry-points"] == {"finetune": {name: module}}
    assert (folder / about["readme"]).is_file()
    wanted = [Requirement(each).name for each in (*about["dependencies"], *about["optional-dependencies"]["dev"])]
    assert wanted[0] == "mindspore-finetune"
    assert {"pytest", "ruff", "mypy"} <= {*wanted}
    assert tools["hatch"]["build"]["targets"]["wheel"]["only-include"] == [f"{module}.py"]
    for file in (*tools["mypy"]["files"], *tools["pytest"]["ini_options"]["testpaths"]):
        assert (folder / file).exists()


def a_readme(kind: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run what the README says with the real command line, and plan the recipe in it."""
    commands = console(folder)
    assert [words[0] for words in commands] == ["pip", "finetune", "pytest"]
    assert commands[0] == ["pip", "install", "-e", ".[dev]"]
    assert main(commands[1][1:]) == 0
    assert f"{kind} {name}" in " ".join(capsys.readouterr().out.split())
    text = (folder / "README.md").read_text()
    assert "http" not in text
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    said = {"dataset": {"use": "folder", "root": "photos"}, **YAML(typ="safe", pure=True).load(recipe)}
    plan = load_plan(said, [], Catalogue(plugins.load_plugins()))
    chosen = [plan.dataset, plan.backbone, plan.freezer, *plan.augment, *plan.callbacks, *plan.audit]
    assert name in [each.component.name for each in chosen if each.component.kind == kind]


@pytest.mark.slow
@pytest.mark.checkout
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_of_the_ci_file_pass(kind: str, repo: Path, tmp_path: Path, catalogue: Catalogue) -> None:
    folder = write(f"my-{kind}", kind, tmp_path, catalogue)
    (job,) = workflow(folder)["jobs"].values()
    env = environment(repo)
    env["PYTHONPATH"] = os.pathsep.join([str(folder), env.get("PYTHONPATH", "")])
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    for step in job["steps"]:
        if "run" in step and not step["run"].startswith("pip install"):
            done = subprocess.run(step["run"], shell=True, cwd=folder, env=env, capture_output=True, text=True)
            assert done.returncode == 0, f"{step['run']}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_new_packages_can_be_built(tmp_path: Path, catalogue: Catalogue) -> None:
    folders = [plugin.write_package(f"my-{kind}", kind, tmp_path, catalogue) for kind in KINDS]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", *folders]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = sorted(path.name for path in (tmp_path / "dist").iterdir())
    assert built == sorted(f"finetune_my_{kind}-0.1.0-py3-none-any.whl" for kind in KINDS)
