"""The examples do what they say: scripts as users start them, plugin packages in an environment of their own.

``FINETUNE_TEST_WHEEL`` names a wheel that goes into that environment instead of the source tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.recipe import plan
from finetune.training import pretrained
from tests.clocks import LONGEST
from tests.drawn import COLOURS, folder

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("finetune-zip", "finetune-squeezenet", "finetune-mirror", "finetune-fractals")


def call(*command: str | Path, cwd: Path) -> str:
    """Return what a command writes to standard output; it finds nothing but what is installed."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


# Scripts


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"))


def script(repo: Path, name: str, *arguments: str | Path, cwd: Path) -> str:
    return call(sys.executable, repo / "examples" / name, *arguments, cwd=cwd)


def test_python_api(repo: Path, photos: Path, tmp_path: Path) -> None:
    options = ("--backbone", "resnext_nano", "--weights", "none", "--epochs", "1")
    said = script(repo, "python_api.py", photos, *options, cwd=tmp_path)
    assert "epochs trained: 1, into" in said
    assert re.search(r"on [1-9] photos \(valid\)", said)
    assert "features: 3 x 512 float32" in said
    assert "exported: photos.onnx" in said
    assert said.count("00.jpg: ") == 2
    assert (tmp_path / "photos.onnx").stat().st_size > 1_000_000
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run-001"]


def test_python_api_with_pretrained_weights(repo: Path, photos: Path, tmp_path: Path) -> None:
    said = script(repo, "python_api.py", photos, "--backbone", "resnext_nano", cwd=tmp_path)
    assert "epochs trained: 0, into" in said
    assert re.search(r"on \d+ photos \(out of fold\)", said)
    lines = script(repo, "compare.py", "runs/run-001", cwd=tmp_path).splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["0", "test", "seconds"]


def test_own_dataset(repo: Path, photos: Path, tmp_path: Path) -> None:
    found = {f"{path.parent.name}/{path.name}": path.parent.name for path in sorted(photos.rglob("*.jpg"))}
    (tmp_path / "list").symlink_to(photos)
    (tmp_path / "labels.json").write_text(json.dumps({f"list/{name}": label for name, label in found.items()}))
    said = script(repo, "own_dataset.py", "labels.json", cwd=tmp_path)
    assert re.search(r"(\d+) photos for training, ([1-9]) for validation", said)
    assert "accuracy on the photos held back: " in said


def test_own_callback(repo: Path, photos: Path, tmp_path: Path) -> None:
    lines = script(repo, "own_callback.py", photos, cwd=tmp_path).splitlines()
    assert lines[0].startswith("epoch 1 of 3: loss ")
    assert lines[-1] == f"everything is in {tmp_path / 'runs' / 'run-001'}"
    said = script(repo, "compare.py", "runs/run-001", "runs/run-001", cwd=tmp_path).splitlines()
    assert said[1].split() == ["run-001", "run-001"]
    epochs = [line.split()[1] for line in lines if line.startswith("epoch ")]  # less than 3 once it is good enough
    assert [line.split()[0] for line in said[3:]] == [*epochs, "test", "seconds"]
    assert said[3].split()[1] == said[3].split()[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: compare.py [-h] RUN [RUN ...]\n"),
        (["photos"], "no finished run in photos: it has no result.json\n"),
        (["nowhere"], "no finished run in nowhere: it has no result.json\n"),
    ],
)
def test_compare_says_what_it_needs(repo: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "photos").mkdir()
    command = [sys.executable, repo / "examples" / "compare.py", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (1 if arguments else 2)


@pytest.mark.checkout
@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ([0.5], "-"),
        ([0.5, 0.6], "0.000 to 1.000"),
        ([0.5, 0.5, 0.5], "0.500 to 0.500"),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], "0.200 to 0.600"),  # t of 6 is 2.447, the deviation 0.216
    ],
)
def test_the_interval_of_a_benchmark(repo: Path, found: list[float], shown: str) -> None:
    assert runpy.run_path(str(repo / "benchmarks" / "transfer.py"))["interval"](found) == shown


@pytest.mark.checkout
def test_scripts_are_short_and_say_how_to_run_them(repo: Path) -> None:
    scripts = sorted((repo / "examples").glob("*.py"))
    assert [path.name for path in scripts] == ["compare.py", "own_callback.py", "own_dataset.py", "python_api.py"]
    for path in scripts:
        text = path.read_text()
        assert len(text.splitlines()) < 50, path
        assert f"    python examples/{path.name} " in text.split('"""')[1]


# Packages


@pytest.fixture(scope="module")
def fresh(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install the project and the packages into a new environment, and return the folder of its programs."""
    place = tmp_path_factory.mktemp("fresh")
    call(sys.executable, "-m", "venv", place / "venv", cwd=place)
    programs = place / "venv" / "bin"
    project = Path(os.environ.get("FINETUNE_TEST_WHEEL", repo)).resolve()
    packages = [repo / "examples" / name for name in PACKAGES]
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    call(*pip, project, *packages, "pytest", cwd=place)
    yield programs
    shutil.rmtree(place)


def answer(fresh: Path, *arguments: str | Path, cwd: Path) -> dict[str, Any]:
    """Return the JSON that a command of the new environment ends with."""
    found: dict[str, Any] = json.loads(call(fresh / "finetune", *arguments, "--json", cwd=cwd).splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_installed_packages_are_found(fresh: Path, tmp_path: Path) -> None:
    where = "import finetune, finetune_model, finetune_plugins as p; print(finetune.__file__, p.__file__)"
    assert call(fresh / "python", "-c", where, cwd=tmp_path).count(str(fresh.parent / "lib")) == 2
    found = answer(fresh, "plugins", cwd=tmp_path)
    assert found["broken"] == []
    ours = {(each["kind"], each["name"]): (each["package"], each["version"]) for each in found["components"]}
    assert ours["dataset", "zip"] == ("finetune-zip", "0.1.0")
    assert ours["dataset", "fractals"] == ("finetune-fractals", "0.1.0")
    assert ours["backbone", "squeezenet1_1"] == ("finetune-squeezenet", "0.1.0")
    assert ours["backbone", "resnext50"][0] == "mindspore-finetune"
    (mirror,) = found["hooks"]
    assert (mirror["package"], mirror["hooks"]) == ("finetune-mirror", ["finetune_fetch_weights"])
    assert [each["name"] for each in answer(fresh, "ls", cwd=tmp_path)["recipes"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_photos_from_a_zip_file(fresh: Path, photos: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, path.relative_to(photos))
    (tmp_path / "zipped.yaml").write_text(
        "backbone: {use: resnext_nano, weights: none}\ndataset: {use: zip, file: photos.zip}\n"
        "image: {size: 32, resize: 36}\nfreeze: {use: none}\ntrain: {epochs: 1, batch_size: 8}\n"
    )
    assert answer(fresh, "run", "zipped.yaml", cwd=tmp_path)["epochs"] == 1
    found = answer(fresh, "eval", "runs/zipped-001", "photos.zip", cwd=tmp_path)
    assert [each["class"] for each in found["per_class"]] == sorted(COLOURS)
    assert (found["held_back"], found["trained_on"]) == (True, 0)
    assert found["images"] + found["skipped"] == 36


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fractals_pretrain_a_network(fresh: Path, repo: Path, tmp_path: Path) -> None:
    shutil.copy(repo / "examples" / "finetune-fractals" / "pretrain-fractals.yaml", tmp_path)
    few = ("dataset.train=24", "dataset.valid=12", "dataset.classes=3", "dataset.size=32", "train.epochs=1")
    shown = ("train.batch_size=8", "image.size=32", "image.resize=32", "runner.mode=pynative")
    assert answer(fresh, "run", "pretrain-fractals.yaml", *few, *shown, cwd=tmp_path)["epochs"] == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_squeezenet_learns_flowers(fresh: Path, flowers: Path, squeezenet: Path, tmp_path: Path) -> None:
    for name in ("1", "49", "60", "74"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for path in sorted((flowers / "train" / name).glob("*.jpg"))[:10]:
            shutil.copy(path, tmp_path / "photos" / name)
    (tmp_path / "flowers.yaml").write_text(
        f"backbone: {{use: squeezenet1_1, weights: {squeezenet}}}\ndataset: {{use: folder, root: photos}}\n"
        "image: {size: 128}\naugment: []\noptimizer: {lr: 0.01}\ntrain: {epochs: 4, batch_size: 8}\n"
    )
    result = answer(fresh, "run", "flowers.yaml", cwd=tmp_path)
    assert result["best"]["val_accuracy"] >= 0.75  # by chance 0.25
    photo = next((tmp_path / "photos" / "49").iterdir())
    found = answer(fresh, "predict", "runs/flowers-001", photo, cwd=tmp_path)["predictions"]
    assert found[0]["label"] == "49"


def test_weights_of_a_company_reach_a_recipe(
    repo: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repo / "examples" / "finetune-mirror"))
    import finetune_mirror

    loaded = plugins.load_plugins()
    if not any(origin.name == "mirror" for origin in loaded.origins.values()):
        loaded.register(finetune_mirror, plugins.Origin(name="mirror", distribution="example", version="-"))
    (tmp_path / "net.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"backbone: {{use: resnext_nano, weights: 'company://net.safetensors#sha256={digest}'}}\n"
        f"dataset: {{use: folder, root: {photos}}}\n"
    )
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    monkeypatch.setenv("COMPANY_WEIGHTS", str(tmp_path))
    source = pretrained.resolve_weights(plan.load_plan(recipe, [], Catalogue(loaded)), loaded, print)
    assert source is not None
    assert source.path.read_bytes() == b"weights"
    assert tmp_path / "home" in source.path.parents


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PACKAGES)
def test_their_own_tests_pass(fresh: Path, repo: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(repo / "examples" / name / "tests", tmp_path / "tests")
    assert " passed" in call(fresh / "python", "-m", "pytest", "-q", "tests", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plugin_from_nothing(fresh: Path, photos: Path, tmp_path: Path) -> None:
    made = Path(answer(fresh, "new", "plugin", "birds", "--kind", "dataset", cwd=tmp_path)["folder"])
    pip = (fresh / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    call(*pip, "-e", tmp_path / made, cwd=tmp_path)
    (found,) = answer(fresh, "plugins", "show", "birds", cwd=tmp_path)["components"]
    assert (found["kind"], [option["name"] for option in found["options"]]) == ("dataset", ["root", "separator"])
    assert " passed" in call(fresh / "python", "-m", "pytest", "-q", tmp_path / made, cwd=tmp_path)
    (tmp_path / "album").mkdir()
    for path in photos.rglob("*.jpg"):
        shutil.copy(path, tmp_path / "album" / f"{path.parent.name}_{path.name}")
    said = ("dataset={use: birds, root: album}", "backbone={use: resnext_nano}", "train.epochs=1", "image.size=64")
    (tmp_path / "birds.yaml").write_text("image: {resize: 72}\n")
    assert answer(fresh, "run", "birds.yaml", *said, cwd=tmp_path)["epochs"] == 1
    call(fresh / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "finetune-birds", cwd=tmp_path)
