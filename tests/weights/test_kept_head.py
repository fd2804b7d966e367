"""A head that is kept: the classes of the weights stay, and photos of some of them are enough to go on training."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Backbone, Finetuner, Layout, UsageError, Weights, WeightsError, hookimpl
from finetune.weights.formats import tensorfile
from tests.drawn import folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# In an order of their own, and with classes that there are no photos of.
NAMES = ("violet", "red", "yellow", "blue", "green", "grey")
COLOURS = np.array([(0.6, 0, 0.6), (0.8, 0.2, 0.2), (0.8, 0.8, 0.1), (0.2, 0.3, 0.8), (0.2, 0.7, 0.2), (0.5, 0.5, 0.5)])


def stages(options: object) -> Mapping[str, Any]:
    from mindspore import nn

    return {"stem": nn.SequentialCell(nn.Conv2d(3, 3, 1, has_bias=False, pad_mode="valid"))}


def arrays() -> dict[str, np.ndarray]:
    """Return a network that computes the mean colour, and a head that says which of NAMES is nearest to it."""
    return {
        "w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        "fc.weight": (40 * COLOURS).astype(np.float32),
        "fc.bias": (-20 * (COLOURS**2).sum(axis=1)).astype(np.float32),
    }


class Plugin:
    """Offers the network, its weights, and the same weights without class names."""

    def __init__(self, weights: Path, names: Path) -> None:
        self.weights, self.names = weights, names

    @hookimpl
    def finetune_backbones(self) -> Iterator[Backbone]:
        said: dict[str, Any] = {
            "url": self.weights.as_uri(),
            "sha256": hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            "layout": "file",
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
            "size": 32,
            "resize": 32,
            "classes": len(NAMES),
            "licence": "CC0-1.0",
            "source": "drawn by a test",
            "citation": "Nobody 2026",
            "accuracy": 1.0,
        }
        rules = ((r"w", "stem.0.weight"), (r"fc\.(.*)", r"head.fc.\1"))
        yield Backbone(
            name="mean_colour",
            build=stages,
            stages=("stem",),
            features=3,
            weights={
                "named": Weights(**said, labels=self.names),
                "nameless": Weights(**said),
                "unverified": Weights(**said | {"sha256": ""}, labels=self.names),
            },
            layouts=(Layout(name="file", rules=rules),),
        )


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    tensorfile.write_tensors(tmp_path / "colours.safetensors", arrays(), {})
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    return Plugin(tmp_path / "colours.safetensors", tmp_path / "names.txt")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder(tmp_path / "photos", each=6)


def finetuner(plugin: Plugin, folder: Path, weights: str = "named", **more: Any) -> Finetuner:
    said: dict[str, Any] = {"head": {"keep_pretrained": True}, "progress": False, **more}
    said |= {"backbone": "mean_colour", "plugins": [plugin], "output": folder, "device": "cpu"}
    return Finetuner(weights=weights, train={"batch_size": 4}, **said)


def test_it_predicts_before_any_fit(plugin: Plugin, photos: Path, tmp_path: Path) -> None:
    ft = finetuner(plugin, tmp_path)
    paths = sorted(photos.rglob("*.jpg"))
    assert ft.embed(paths).shape == (18, 3)
    predictions = ft.predict(paths)
    assert [p.label for p in predictions] == [path.parent.name for path in paths]
    assert {name for name, _ in ft.predict(paths[:1], top=9)[0].top} == set(NAMES)
    assert np.allclose(ft.embed(paths[:1]), finetuner(plugin, tmp_path, "nameless", head={}).embed(paths[:1]))


def test_without_a_kept_head_nothing_is_fitted(plugin: Plugin, photos: Path, tmp_path: Path) -> None:
    for head in ({}, {"keep_pretrained": False}):
        with pytest.raises(UsageError, match="nothing has been fitted yet"):
            finetuner(plugin, tmp_path, head=head).predict(sorted(photos.rglob("*.jpg")))
    with pytest.raises(UsageError, match="nothing has been fitted yet"):
        finetuner(plugin, tmp_path).evaluate(photos)


def test_without_names_or_weights_there_is_no_head_to_keep(plugin: Plugin, photos: Path, tmp_path: Path) -> None:
    for use in ("predict", "fit"):
        argument = [photos / "red" / "00.jpg"] if use == "predict" else photos
        with pytest.raises(WeightsError, match=r"weights 'nameless': without class names"):
            getattr(finetuner(plugin, tmp_path, "nameless"), use)(argument)
        with pytest.raises(UsageError, match=r"needs weights with a head, but backbone.weights is none"):
            getattr(finetuner(plugin, tmp_path, "none"), use)(argument)
    assert finetuner(plugin, tmp_path, "nameless").embed([photos / "red" / "00.jpg"]).shape == (1, 3)


def test_a_fit_takes_the_classes_of_the_weights(plugin: Plugin, photos: Path, tmp_path: Path) -> None:
    ft = finetuner(plugin, tmp_path / "runs", freeze="head", optimizer={"lr": 1e-9})
    run = ft.fit(photos, epochs=1)
    assert run.classes == NAMES
    assert run.weights["reinitialised"] == []
    assert run.history[0]["val_accuracy"] == 1.0
    data = json.loads((run.folder / "data.json").read_text())
    assert data["classes"] == list(NAMES)
    assert [sum(data["counts"][part][name] for part in ("train", "valid")) for name in NAMES] == [0, 6, 0, 6, 6, 0]
    paths = sorted(photos.rglob("*.jpg"))
    assert [p.label for p in ft.predict(paths)] == [path.parent.name for path in paths]
    assert ft.evaluate(photos)["accuracy"] == 1.0

    card = (run.folder / "model" / "README.md").read_text()
    digest = hashlib.sha256(plugin.weights.read_bytes()).hexdigest()
    for row in (
        "| pretrained weights | named |",
        "| their source | drawn by a test |",
        "| their licence | CC0-1.0 |",
        "| their citation | Nobody 2026 |",
        f"| their sha256 | {digest} |",
        "| their layout | file |",
    ):
        assert row in card
    assert run.weights["verified"] == "sha256"
    assert run.weights["origin"] == "drawn by a test"

    own = run.folder / "model" / "weights.safetensors"
    again = finetuner(plugin, tmp_path / "runs", str(own), freeze="head", optimizer={"lr": 1e-9})
    assert [p.label for p in again.predict(paths)] == [path.parent.name for path in paths]
    assert again.fit(photos, epochs=1).classes == NAMES
    assert again.run is not None
    assert again.run.weights["verified"] is None


def test_photos_of_unknown_classes_are_refused(plugin: Plugin, photos: Path, tmp_path: Path) -> None:
    (photos / "red").rename(photos / "Red")
    (photos / "blue").rename(photos / "azure")
    ft = finetuner(plugin, tmp_path / "runs")
    with pytest.raises(WeightsError) as caught:
        ft.fit(photos, epochs=1)
    text = str(caught.value)
    assert text.startswith("the head of 'named' has 6 classes, but none named 'Red' (did you mean 'red', which differs")
    assert "'azure'; set head={\"keep_pretrained\": False} for a new head" in text
    assert not (tmp_path / "runs").exists()


def test_the_first_use_of_an_unverified_file_is_said_once(
    plugin: Plugin, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    for said in (1, 0):
        ft = finetuner(plugin, tmp_path / "runs", "unverified", progress=True)
        ft.predict([photos / "red" / "00.jpg"])
        assert (
            capsys.readouterr().out.count("the publisher states no sha256; later files must have the hash of this one")
            == said
        )
    run = finetuner(plugin, tmp_path / "runs", "unverified").fit(photos, epochs=1)
    assert run.weights["verified"] == "first use"


def test_classes_of_one_name_work_from_weights_to_predictions(plugin: Plugin, photos: Path, tmp_path: Path) -> None:
    plugin.names.write_text("\n".join("red" if name == "blue" else name for name in NAMES) + "\n")
    (photos / "blue").rename(photos / "red (2)")
    paths = sorted(photos.rglob("*.jpg"))
    ft = finetuner(plugin, tmp_path / "runs", freeze="head", optimizer={"lr": 1e-9})
    assert [p.label for p in ft.predict(paths)] == [path.parent.name for path in paths]
    run = ft.fit(photos, epochs=1)
    assert run.classes == ("violet", "red", "yellow", "red (2)", "green", "grey")
    assert ft.evaluate(photos)["accuracy"] == 1.0
    loaded = Finetuner.load(run.folder, plugins=[plugin])
    assert {p.label for p in loaded.predict(paths)} == {"red", "red (2)", "green"}


def test_a_file_that_the_plugin_does_not_know_gets_its_preprocessing(
    plugin: Plugin, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.safetensors"
    tensorfile.write_tensors(own, {**arrays(), "fc.bias": np.zeros(6, np.float32)}, {})
    paths = sorted(photos.rglob("*.jpg"))
    ft = finetuner(plugin, tmp_path / "runs", str(own), head={}, progress=True)
    assert np.allclose(ft.embed(paths), finetuner(plugin, tmp_path / "runs", head={}).embed(paths))
    line = '"size": 32, "resize": 32, "keep_aspect": True, "mean": [0, 0, 0], "std": [1, 1, 1]'
    said = f"weights '{own}': using the preprocessing of weights 'named', 'nameless', 'unverified': {{{line}}}"
    assert said in capsys.readouterr().out
    run = ft.fit(photos, epochs=1)
    assert json.loads((run.folder / "weights.json").read_text())["preprocessing"] == {
        "image": {"size": 32, "resize": 32, "keep_aspect": True, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
        "why": "weights 'named', 'nameless', 'unverified'",
        "certain": False,
        "alternatives": [],
    }
    image = {"size": 32, "resize": 32, "keep_aspect": True, "mean": [0.5] * 3, "std": [0.5] * 3}
    capsys.readouterr()
    stated = finetuner(plugin, tmp_path / "runs", str(own), head={}, image=image, progress=True)
    assert not np.allclose(stated.embed(paths), ft.embed(paths))
    assert "using the preprocessing" not in capsys.readouterr().out
