"""The plugin author's guide: every hook is there with its exact signature, and its examples do what they say."""

from __future__ import annotations

import importlib.util
import inspect
import io
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune import hookspecs
from finetune.catalogue import Catalogue
from finetune.components import Audit, Augmentation, Backbone, Callback, Dataset, Freezer, ImageSpec
from finetune.errors import DataError
from finetune.plugins import HOOKS, Origin, Plugins
from finetune.recipe.models import DatasetSection, Recipe
from finetune.run import Best, Run
from finetune.training import phases
from tests.pages import blocks, chapter, section

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[[str], ModuleType]

CATALOGUE = Catalogue(Plugins())


@pytest.fixture(scope="module")
def guide(repo: Path) -> str:
    """Return the guide."""
    return (repo / "docs" / "plugins.md").read_text(encoding="utf-8")


def signature(hook: str) -> str:
    """Return a hook's signature as it stands in its specification."""
    found = inspect.signature(getattr(hookspecs, hook))
    parameters = ", ".join(f"{name}: {parameter.annotation}" for name, parameter in found.parameters.items())
    return f"{hook}({parameters}) -> {found.return_annotation}"


@pytest.fixture
def load(guide: str, tmp_path: Path) -> Iterator[Load]:
    """Return a function that imports the example of a hook as a module of its own."""
    names: list[str] = []

    def module(hook: str) -> ModuleType:
        (code,) = blocks(section(guide, hook), "python")
        return imported(f"example_of_{hook.replace(' ', '_')}", code, tmp_path)

    def imported(name: str, code: str, folder: Path) -> ModuleType:
        file = folder / f"{name}.py"
        file.write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[name] = found
        names.append(name)
        spec.loader.exec_module(found)
        return found

    yield module
    for name in names:
        sys.modules.pop(name, None)


def registered(module: object) -> Plugins:
    """Return a manager with one plugin."""
    manager = Plugins()
    manager.register(module, Origin(name="example", distribution="guide", version="1"))
    return manager


def only(kind: Any, module: ModuleType) -> Any:
    """Return the one component that an example offers."""
    manager = registered(module)
    catalogue = Catalogue(manager)
    assert manager.broken == []
    (name,) = catalogue.names(kind)
    return catalogue.get(kind, name)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run before its first epoch."""
    return Run(
        folder=tmp_path,
        recipe=Recipe.model_validate({"dataset": {"use": "stripes"}}),
        recipe_text="",
        classes=("a", "b", "c"),
        stages=("stem", "body", "head"),
        device="cpu",
        steps_per_epoch=2,
        images={"train": 20, "valid": 4},
        trainable=("body", "head"),
        learning_rates={"head": 0.1},
        _say=lambda message: None,
    )


# What the guide says


def test_every_hook_has_a_heading_with_its_exact_signature_in_order(guide: str) -> None:
    assert re.findall(r"^### `(finetune_.*)`$", guide, re.M) == [signature(hook) for hook in HOOKS]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_of_its_example(hook: str) -> None:
    assert callable(globals()[f"test_{hook}"])


def test_every_block_of_code_is_run(guide: str) -> None:
    in_hooks = sum(len(blocks(section(guide, hook), "python")) for hook in HOOKS)
    alone = ("A complete package", "Images as bytes", "Options for a fitted head")
    others = sum(len(blocks(section(guide, start), "python")) for start in alone)
    others += len(blocks(chapter(guide, "Test your plugin"), "python"))
    assert (in_hooks, others) == (14, 5)
    assert len(re.findall(r"^```\w", guide, re.M)) == in_hooks + others + 4


@pytest.mark.parametrize("kind", [Backbone, Dataset, Augmentation, Freezer, Callback, Audit])
def test_every_kind_of_component_is_in_the_table(guide: str, kind: type) -> None:
    assert re.search(rf"^\| `{kind.__name__}` \|", section(guide, "Components"), re.M)


def test_what_a_run_offers_is_there(guide: str) -> None:
    text = section(guide, "Events")
    names = set(re.findall(r"`(?:run\.)?(\w+)(?:\(.*?\))?`", text)) - {"run"}
    public = {name for name in (*Run.__dataclass_fields__, *vars(Run)) if not name.startswith("_")}
    assert {name for name in names if not name.endswith(("jsonl", "txt"))} <= public
    asks = {name for name, value in vars(Run).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert asks <= names


# What its examples do


def test_finetune_backbones(load: Load) -> None:
    import mindspore as ms

    from finetune.network.network import Network, build_stages

    component = only(Backbone, load("finetune_backbones"))
    stages = build_stages(component, component.options())
    network = Network(stages, ms.nn.Dense(component.features, 2))
    assert network.compute_features(ms.Tensor(np.zeros((1, 3, 32, 32), np.float32))).shape == (1, component.features)
    assert component.weights["birds-v1"].layout in {layout.name for layout in component.layouts}
    assert "stem.0.weight" in {parameter.name for parameter in network.get_parameters()}


def test_finetune_datasets(load: Load) -> None:
    from finetune.data import loading as data

    component = only(Dataset, load("finetune_datasets"))
    chosen = CATALOGUE.choose(component, component.options())
    found = data.load(chosen, DatasetSection(use="stripes"), seed=1, workers=0)
    assert found.classes == ("two", "three", "four", "five")
    assert (len(found.train) + len(found.valid), found.test) == (80, None)
    assert 8 <= len(found.valid) <= 24
    picture = np.asarray(component.build(component.options(), "train").images[5])
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8


def test_images_as_bytes(load: Load, tmp_path: Path) -> None:
    from finetune.data import loading as data

    rng = np.random.default_rng(0)
    with closing(sqlite3.connect(tmp_path / "album")) as album, album:
        album.execute("CREATE TABLE photos (name, class, jpeg)")
        for number in range(12):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(file, "JPEG")
            row = (f"{number}.jpg", "ab"[number % 2], file.getvalue() if number else b"no photo")
            album.execute("INSERT INTO photos VALUES (?, ?, ?)", row)
    component = only(Dataset, load("Images as bytes"))
    options = component.options(file=tmp_path / "album")
    with pytest.raises(DataError, match=r"train: 0.jpg: is not an image"):
        data.load(CATALOGUE.choose(component, options), DatasetSection(use="album"), seed=1, workers=2)
    found = data.load(
        CATALOGUE.choose(component, options), DatasetSection(use="album", on_bad_image="skip"), seed=1, workers=2
    )
    assert len(found.train) + len(found.valid) == 11
    assert found.train.describe(0) == "1.jpg"


def test_finetune_augmentations(load: Load) -> None:
    component = only(Augmentation, load("finetune_augmentations"))
    transform = component.build(component.options(strength=0.5), ImageSpec())
    grey = np.full((8, 9, 3), 128, np.uint8)
    first, again, other = (transform(grey, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first.shape, first.dtype) == (grey.shape, grey.dtype)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_options_for_a_fitted_head(load: Load) -> None:
    component = only(Augmentation, load("Options for a fitted head"))
    assert component.for_head is not None
    open_to_choice, chosen = component.options(), component.options(radius=5.0)
    assert component.for_head(open_to_choice).radius == 1.0
    assert component.for_head(chosen) == chosen
    edge = np.zeros((16, 16, 3), np.uint8)
    edge[:, 8:] = 255
    blurred = component.build(open_to_choice, ImageSpec())(edge, np.random.default_rng(1))
    assert (blurred.shape, blurred.dtype) == (edge.shape, edge.dtype)
    assert 0 < blurred[8, 8, 0] < 255


def test_finetune_freezers(load: Load) -> None:
    component = only(Freezer, load("finetune_freezers"))
    policy = component.build(component.options())
    found = phases.plan(policy, ("stem", "body", "head"), 7, name="thaw")
    assert [(p.first, p.last, p.trainable) for p in found] == [
        (1, 2, ("head",)),
        (3, 4, ("body", "head")),
        (5, 7, ("stem", "body", "head")),
    ]


def test_finetune_callbacks(load: Load, run: Run) -> None:
    component = only(Callback, load("finetune_callbacks"))
    manager = registered(component.build(component.options(accuracy=0.9)))
    manager.fire("finetune_epoch_end", run=run, epoch=1, metrics={"val_accuracy": 0.8})
    manager.fire("finetune_epoch_end", run=run, epoch=2, metrics={"train_loss": 0.1})
    assert run.stop_reason is None
    manager.fire("finetune_epoch_end", run=run, epoch=3, metrics={"val_accuracy": 0.95})
    assert run.stop_reason == "val_accuracy has reached 0.9"


def test_finetune_audits(load: Load) -> None:
    from finetune.components import AuditedImages

    component = only(Audit, load("finetune_audits"))
    white, grey = np.full((4, 4, 3), 255, np.uint8), np.full((4, 4, 3), 99, np.uint8)
    images = AuditedImages(
        paths=("a", "b"),
        splits=("train", "train"),
        labels=np.array([0, 1]),
        classes=("x", "y"),
        features=np.zeros((2, 3), np.float32),
        read=lambda index: (grey, white)[index],
    )
    (found,) = component.build(component.options())(images)
    assert (found.image, found.text, found.exclude) == (1, "brightness 1.00", True)


def test_finetune_fetch_weights(load: Load, tmp_path: Path) -> None:
    module: Any = load("finetune_fetch_weights")
    module.SHARED = tmp_path
    (tmp_path / "known.ckpt").touch()
    manager = registered(module)
    for name, expected in (("known", tmp_path / "known.ckpt"), ("unknown", None)):
        weights = SimpleNamespace(sha256=name)
        answer = manager.call_first("finetune_fetch_weights", weights=weights, cache=tmp_path)
        assert (answer and answer[1]) == expected


def test_finetune_run_start(load: Load, run: Run) -> None:
    registered(load("finetune_run_start")).fire("finetune_run_start", run=run)
    assert run.messages == ["only 20 training images for 3 classes: expect little"]


def test_finetune_epoch_start(load: Load, run: Run) -> None:
    registered(load("finetune_epoch_start")).fire("finetune_epoch_start", run=run, epoch=4)
    assert run.messages == ["epoch 4: body, head train"]


def test_finetune_step_end(load: Load, run: Run) -> None:
    manager = registered(load("finetune_step_end"))
    for step in (99, 100):
        manager.fire("finetune_step_end", run=run, step=step, loss=0.25)
    assert run.messages == ["step 100: loss 0.250, learning rates {'head': 0.1}"]


def test_finetune_epoch_end(load: Load, run: Run) -> None:
    manager = registered(load("finetune_epoch_end"))
    for epoch in (1, 2):
        manager.fire("finetune_epoch_end", run=run, epoch=epoch, metrics={"seconds": 2000.0})
        assert run.state == {"budget": 2000.0 * epoch}
    assert run.stop_reason == "3600 seconds of training are used up"


def test_finetune_checkpoint_saved(load: Load, run: Run, tmp_path: Path) -> None:
    module: Any = load("finetune_checkpoint_saved")
    module.BACKUP = tmp_path / "backup"
    module.BACKUP.mkdir()
    saved = tmp_path / "step-00000001.safetensors"
    saved.write_bytes(b"weights")
    manager = registered(module)
    manager.fire("finetune_checkpoint_saved", run=run, epoch=1, path=saved, best=False)
    assert list(module.BACKUP.iterdir()) == []
    manager.fire("finetune_checkpoint_saved", run=run, epoch=1, path=saved, best=True)
    assert (module.BACKUP / f"{tmp_path.name}.safetensors").read_bytes() == b"weights"


def test_finetune_run_error(load: Load, run: Run, tmp_path: Path) -> None:
    manager = registered(load("finetune_run_error"))
    manager.fire("finetune_run_error", run=run, error=DataError("no photos"))
    assert (tmp_path / "error.txt").read_text() == "epoch 0, step 0: DataError('no photos')\n"


def test_finetune_run_end(load: Load, run: Run) -> None:
    manager = registered(load("finetune_run_end"))
    manager.fire("finetune_run_end", run=run)
    assert run.messages == []
    run.result, run.best = {"epochs": 3}, Best(epoch=2, value=0.875)
    manager.fire("finetune_run_end", run=run)
    assert run.messages == ["best epoch: 2 with 0.875"]


# The whole package
