"""What a fitted network knows about its own certainty: temperature, unknown images, label sets, heat maps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune import DataError, Explanation, Finetuner, UsageError, WeightsError
from finetune.model.decisions import NAME
from tests.drawn import folder
from tests.finetuner.small import NANO, pixels

if TYPE_CHECKING:
    from pathlib import Path


# The last stage returns maps of 3 x 3 positions.
LARGE: dict[str, Any] = {**NANO, "image": {"size": 96, "resize": 96}}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("many"), each=40)


@pytest.fixture(scope="module")
def head(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuner:
    """Return a network whose head was fitted out of fold."""
    ft = Finetuner(**{**LARGE, "weights": "fractals"}, output=tmp_path_factory.mktemp("head"))
    ft.fit(many)
    return ft


@pytest.fixture(scope="module")
def trained(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuner:
    """Return a network of which every stage was trained, with validation images."""
    ft = Finetuner(**NANO, freeze="none", output=tmp_path_factory.mktemp("trained"))
    ft.fit(many, epochs=3, validate={"folds": "off"}, dataset={"split": 0.3})
    return ft


def read_calibration(ft: Finetuner) -> dict[str, Any]:
    assert ft.run is not None
    found: dict[str, Any] = json.loads((ft.run.folder / "model" / "model.json").read_text())["calibration"]
    assert ft.run.result is not None
    assert ft.run.result["calibration"] == found
    return found


def test_a_fitted_head_is_calibrated_out_of_fold(head: Finetuner) -> None:
    found = read_calibration(head)
    assert (found["temperature"], found["method"], found["images"]) == (1.0, "out of fold", 120)
    assert 0 <= found["ece"] < 0.5


def test_a_trained_network_is_calibrated_by_validation_images(trained: Finetuner, many: Path) -> None:
    found = read_calibration(trained)
    assert (found["method"], found["images"]) == ("validation", trained.run.images["valid"])  # type: ignore[union-attr]
    assert found["temperature"] != 1.0
    report = trained.evaluate()
    assert report["temperature"] == found["temperature"]
    assert report["ece"] == pytest.approx(found["ece"], abs=2e-3)
    assert trained.model is not None
    images = sorted(many.rglob("*.jpg"))[:4]
    cold = [each.probability for each in trained.predict(images)]
    trained.model.predictor.temperature *= 2
    try:
        assert all(w < c for w, c in zip([p.probability for p in trained.predict(images)], cold, strict=True))
    finally:
        trained.model.predictor.temperature /= 2


@pytest.mark.parametrize("name", ["head", "trained"])
def test_decisions_do_not_change_predictions(name: str, many: Path, request: pytest.FixtureRequest) -> None:
    ft: Finetuner = request.getfixturevalue(name)
    images = sorted(many.rglob("*.jpg"))[::7]
    plain = ft.predict(images, top=3)
    assert all(each.unknown is each.labels is each.known_score is None for each in plain)
    decided = ft.predict(images, top=3, unknown=0.1, coverage=0.9)
    for before, after in zip(plain, decided, strict=True):
        assert before.top == after.top
        assert after.labels is not None
        assert after.known_score is not None
        assert after.labels == tuple(label for label, _ in after.top)[: len(after.labels)]


def test_images_of_no_class_are_marked(head: Finetuner, many: Path) -> None:
    rng = np.random.default_rng(0)
    strange = [rng.choice([0, 255], (40, 40, 1)).repeat(3, axis=2).astype(np.uint8) for _ in range(20)]
    known = pixels(sorted(many.rglob("*.jpg"))[::4])
    marked, alarms = (
        np.mean([each.unknown for each in head.predict(images, unknown=0.1)]) for images in (strange, known)
    )
    assert marked > 0.9
    assert alarms <= 0.2


def test_sets_are_larger_for_more_coverage(trained: Finetuner, many: Path) -> None:
    images = sorted(many.rglob("*.jpg"))
    sizes = [sum(len(each.labels or ()) for each in trained.predict(images, coverage=c)) for c in (0.5, 0.8, 0.95)]
    assert sizes == sorted(sizes)
    sets = trained.predict(images, coverage=0.95)
    assert np.mean([path.parent.name in (each.labels or ()) for path, each in zip(images, sets, strict=True)]) > 0.85


def test_a_copied_and_loaded_model_decides_the_same(head: Finetuner, many: Path, tmp_path: Path) -> None:
    copy = Finetuner.load(head.save(tmp_path / "copy"), progress=False)
    images = sorted(many.rglob("*.jpg"))[:6]
    assert copy.predict(images, unknown=0.05, coverage=0.9) == head.predict(images, unknown=0.05, coverage=0.9)
    (tmp_path / "copy" / NAME).unlink()
    with pytest.raises(UsageError, match=r"this model has no reference images: .*; train it again"):
        Finetuner.load(tmp_path / "copy", progress=False).predict(images, unknown=0.05)


def test_a_damaged_reference_is_an_error(head: Finetuner, many: Path, tmp_path: Path) -> None:
    copy = head.save(tmp_path / "copy")
    (copy / NAME).write_bytes((copy / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="is damaged"):
        Finetuner.load(copy, progress=False).predict(sorted(many.rglob("*.jpg"))[:1], coverage=0.9)


def test_an_interrupted_run_resumes_with_the_same_reference(head: Finetuner, many: Path) -> None:
    assert head.run is not None
    model = head.run.folder / "model"
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    (head.run.folder / "result.json").unlink()
    again = Finetuner(**{**LARGE, "weights": "fractals"})
    again.fit(many, resume=head.run.folder)
    assert {file.name: file.read_bytes() for file in model.iterdir()} == before


def test_with_too_few_images_nothing_is_known(tmp_path: Path) -> None:
    ft = Finetuner(**{**LARGE, "weights": "fractals"}, output=tmp_path / "runs")
    ft.fit(folder(tmp_path / "few", each=1))
    assert read_calibration(ft) == {"temperature": 1.0, "method": "none"}
    with pytest.raises(UsageError, match="its run had too few images"):
        ft.predict(sorted((tmp_path / "few").rglob("*.jpg")), unknown=0.05)


def test_heat_maps_are_exact_for_a_linear_head(head: Finetuner, many: Path) -> None:
    images = sorted(many.rglob("*.jpg"))[:5]
    found = head.explain(images)
    assert [each.path for each in found] == images
    assert [each.label for each in found] == [each.label for each in head.predict(images)]
    assert head.model is not None
    weight = head.model.network.head.fc.weight.asnumpy()
    bias = head.model.network.head.fc.bias.asnumpy()
    features = head.embed(images)
    for each, row in zip(found, features, strict=True):
        place = head.model.classes.index(each.label)
        assert each.method == "cam"
        assert each.map.mean() + bias[place] == pytest.approx(weight[place] @ row + bias[place], rel=0.03, abs=0.05)
        assert each.pixels.shape == (96, 96, 3)


def test_heat_maps_of_a_class(head: Finetuner, many: Path) -> None:
    images = sorted(many.rglob("*.jpg"))[:2]
    red, blue = head.explain(images, label="red"), head.explain(images, label="blue")
    assert {each.label for each in red} == {"red"}
    assert not np.allclose(red[0].map, blue[0].map)
    with pytest.raises(UsageError, match="the model has no class 'rad'; did you mean 'red'"):
        head.explain(images, label="rad")


def test_heat_maps_of_a_hidden_layer_follow_its_gradient(many: Path, tmp_path: Path) -> None:
    ft = Finetuner(**LARGE, head="mlp", output=tmp_path)
    ft.fit(many, epochs=1)
    found = ft.explain(sorted(many.rglob("*.jpg"))[:2])
    assert {each.method for each in found} == {"grad-cam"}
    assert all(np.isfinite(each.map).all() and np.ptp(each.map) > 0 for each in found)


def test_an_explanation_is_a_picture(head: Finetuner, many: Path, tmp_path: Path) -> None:
    (found,) = head.explain(pixels(sorted(many.rglob("*.jpg"))[:1]))
    assert isinstance(found, Explanation)
    assert found.heat.min() >= 0
    assert found.heat.max() > 0.8
    for name in ("map.png", "map.jpg"):
        found.save(tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (96, 96)
    assert found.overlay().shape == (96, 96, 3)


def test_an_image_that_cannot_be_read(head: Finetuner, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        head.explain([tmp_path / "broken.jpg"])
