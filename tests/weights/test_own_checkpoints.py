"""What a run wrote, as the weights of another: checkpoints, their folder, the run's folder, its model."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.components import Backbone
from finetune.errors import Interrupted, WeightsError
from finetune.training import saving
from finetune.weights import examining, fetching, labels, loading, preprocessing
from finetune.weights.formats import tensorfile
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At
from tests.weights.nano import NANO

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]
BACKBONE = tiny.catalogue().get(Backbone, "tiny")
IMAGE = {"size": 16, "resize": 20, "mean": [0.4, 0.5, 0.6]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("drawn") / "photos", each=6)


def recipe(photos: Path, output: Path, **sections: Any) -> dict[str, Any]:
    train = {"epochs": 2, "batch_size": 8, **sections.pop("train", {})}
    callbacks = [{"use": "checkpoint", "every": "1 step", "keep": 100}]
    more = {"runner": {"mode": "pynative"}, "image": IMAGE, "freeze": {"use": "none"}, "callbacks": callbacks}
    return tiny.recipe(photos, output, train=train, **{**more, **sections})


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run that keeps a moving average."""
    said = recipe(photos, tmp_path_factory.mktemp("finished"), train={"ema": 0.5}, backbone={"scale": 0.5})
    return tiny.run(said).run.folder


@pytest.fixture(scope="module")
def unfinished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was ended after its second step."""
    output = tmp_path_factory.mktemp("unfinished")
    with pytest.raises(Interrupted):
        tiny.run(recipe(photos, output), watchers=[At(tiny.terminate, step=2)])
    (found,) = output.iterdir()
    return found


def loaded(word: Path, photos: Path, output: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], Any]:
    """Return the network that begins with some weights, the report on them, and the preprocessing."""
    said = recipe(photos, output, backbone={"weights": str(word)}, image={"size": "auto", "resize": "auto"})
    ready = tiny.prepared(said | {"image": {}})
    return {p.name: p.asnumpy() for p in ready.network.get_parameters()}, ready.weights, ready


def stages_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if not name.startswith("head.")}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(found[name], array) for name, array in stages_of(expected).items())


def test_a_checkpoint_is_the_network_that_its_run_would_give(finished: Path, photos: Path, tmp_path: Path) -> None:
    last = saving.list_checkpoints(finished / "checkpoints")[-1]
    held = saving.load_checkpoint(last)
    found, report, ready = loaded(last, photos, tmp_path)
    assert held.select("average")
    assert same(found, held.select("network") | held.select("average"))
    assert not same(found, held.select("network"))
    assert (report["layout"], report["reinitialised"]) == ("finetune", ["head.fc.weight", "head.fc.bias"])
    assert len(report["ignored"]) == len(held.select("optimizer"))
    assert all(name.startswith("optimizer/") for name in report["ignored"])
    assert report["preprocessing"]["why"] == "the file itself"
    assert (ready.image.size, ready.image.resize, ready.image.mean) == (16, 20, (0.4, 0.5, 0.6))
    assert ready.backbone_options.scale == 0.5


def test_folders_of_a_run_stand_for_its_weights(finished: Path, unfinished: Path) -> None:
    model = finished / "model" / "weights.safetensors"
    assert fetching.find_in_folder(finished) == fetching.find_in_folder(finished / "model") == model
    assert fetching.find_in_folder(finished / "checkpoints") == finished / "checkpoints" / "best.safetensors"
    newest = saving.list_checkpoints(unfinished / "checkpoints")[-1]
    assert not (unfinished / "model" / "weights.safetensors").exists()
    assert fetching.find_in_folder(unfinished) == fetching.find_in_folder(unfinished / "checkpoints") == newest


def test_the_best_checkpoint_of_a_run_is_its_model(finished: Path, photos: Path, tmp_path: Path) -> None:
    best, *_ = loaded(finished / "checkpoints", photos, tmp_path)
    assert same(best, tensorfile.read_tensors(finished / "model" / "weights.safetensors").tensors)


def test_what_a_checkpoint_is_is_said(finished: Path, unfinished: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "next"
    said = recipe(photos, output, backbone={"weights": str(unfinished)}, train={"epochs": 1})
    made = tiny.run(said)
    step = saving.list_checkpoints(unfinished / "checkpoints")[-1]
    assert made.told("is a checkpoint of a run") == [
        f"'{step}' is a checkpoint of a run (epoch 1, step 2): using the network, without the optimizer's state"
    ]
    source = fetching.resolve(str(finished / "checkpoints"), BACKBONE)
    assert source is not None
    assert "using the moving average of the weights, without the optimizer's state" in source.note
    assert json.loads((made.run.folder / "weights.json").read_text())["preprocessing"]["certain"] is True
    own = fetching.resolve(str(finished), BACKBONE)
    assert own is not None
    assert own.note == ""


def test_classes_and_images_come_from_the_run(unfinished: Path) -> None:
    source = fetching.resolve(str(unfinished), BACKBONE)
    assert source is not None
    assert labels.keep_classes(source) == ("blue", "green", "red")
    assert preprocessing.find_preprocessing(source, BACKBONE).image["mean"] == (0.4, 0.5, 0.6)


def test_a_checkpoint_can_be_inspected(unfinished: Path) -> None:
    path = fetching.find_in_folder(unfinished)
    report = examining.build_report(examining.examine(path, [BACKBONE]))
    assert (report["backbone"], report["layout"], report["classes"]) == ("tiny", "finetune", 3)
    assert report["preprocessing"]["image"]["resize"] == 20
    assert all(name.startswith("optimizer/") for name in report["ignored"])


@pytest.mark.parametrize("name", ["", "checkpoints"])
def test_a_run_of_another_backbone_is_refused_by_name(name: str, finished: Path) -> None:
    source = fetching.resolve(str(finished / name), NANO)
    assert source is not None
    with pytest.raises(WeightsError, match=r"safetensors' is for backbone 'tiny': these are not the weights of"):
        loading.load(source, NANO, {"stem.conv.weight": (32, 3, 3, 3)}, frozenset(), False)


@pytest.mark.parametrize("name", ["model/model.json", "model/README.md", "recipe.yaml", "weights.json"])
def test_a_file_that_only_describes_weights_names_its_folder(name: str, finished: Path) -> None:
    path = finished / name
    with pytest.raises(WeightsError, match=f"'{path}' holds no weights; name its folder, '{path.parent}'"):
        fetching.resolve(str(path), BACKBONE)


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    (tmp_path / "checkpoints").mkdir()
    for path in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(
            WeightsError, match=f"'{path}' belongs to a run that has not saved a checkpoint; name a different run"
        ):
            fetching.resolve(str(path), BACKBONE)


@pytest.mark.parametrize("damage", ["cut", "flip", "state", "old"])
def test_a_damaged_checkpoint_is_an_error(damage: str, unfinished: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "step-00000002.safetensors"
    shutil.copy(fetching.find_in_folder(unfinished), path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-9])
    elif damage == "flip":
        data[-5] ^= 1
        path.write_bytes(data)
    else:
        file = tensorfile.read_tensors(path)
        state = json.loads(file.metadata["finetune"])
        del state["start"]
        text = "{" if damage == "state" else json.dumps(state)
        tensorfile.write_tensors(path, file.tensors, {"finetune": text})
    with pytest.raises(
        WeightsError, match=r"damaged|is a checkpoint whose state cannot be read .*; use a different"
    ) as caught:
        loaded(path, photos, tmp_path / "runs")
    assert caught.value.exit_code == 4
    assert str(path) in str(caught.value)
