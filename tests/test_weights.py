"""Weights: from the word in a recipe to a file, and from the file to a network's arrays."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from finetune.components import Backbone, ImageSpec, Layout, Options, Weights
from finetune.errors import DownloadError, UsageError, WeightsError
from finetune.files.home import cache_folder
from finetune.weights import loading, sources, tensorfile

THEIRS = Layout(
    name="theirs", rules=((r"f\.(.*)", r"stem.\1"), (r"last\.(.*)", r"head.fc.\1")), options={"pool": "same"}
)
ARRAYS = {
    "stem.conv.weight": np.arange(8, dtype=np.float32).reshape(4, 2),
    "stem.bn.gamma": np.ones(4, np.float32),
    "head.fc.weight": np.full((3, 4), 2, np.float32),
    "head.fc.bias": np.zeros(3, np.float32),
}
HEAD = frozenset({"head.fc.weight", "head.fc.bias"})
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


class ToyOptions(Options):
    pool: Literal["auto", "same", "symmetric"] = "auto"


def toy(**offers: Weights) -> Backbone:
    return Backbone(
        name="toy",
        options=ToyOptions,
        build=lambda options: {},
        stages=("stem",),
        features=4,
        weights=offers,
        layouts=(THEIRS,),
    )


def record(path: Path, url: str = "https://user:secret@example.invalid/toy.safetensors?key=1", **said: Any) -> Weights:
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return Weights(url=url, sha256=digest, layout="theirs", **said)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a weights file in the own layout."""
    path = tmp_path / "own.safetensors"
    tensorfile.write(path, ARRAYS, {})
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forbid the network, and start with an empty cache."""
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))


def load(path: Path, keep_head: bool = False, expected: dict[str, tuple[int, ...]] = SHAPES) -> loading.Loaded:
    return loading.load(sources.Source(path=path, name="x"), toy(), expected, HEAD, keep_head)


# resolve


def test_none_is_no_file() -> None:
    assert sources.resolve("none", toy()) is None


def test_a_path_is_that_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources.resolve(str(file), toy()) == sources.Source(path=file, name=str(file))
    monkeypatch.setenv("HOME", str(file.parent))
    found = sources.resolve("~/own.safetensors", toy())
    assert found is not None
    assert found.path == file
    monkeypatch.chdir(file.parent)
    file.rename("plain")
    found = sources.resolve("plain", toy())
    assert found is not None
    assert found.path == Path("plain")


def test_a_path_to_an_offered_file_brings_its_record(file: Path) -> None:
    offer = record(file, size=96)
    found = sources.resolve(str(file), toy(best=offer, other=Weights(url="", sha256="1" * 64, layout="")))
    assert found is not None
    assert found.record == offer


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.ckpt", "weights/gone", "gone.pth"])
def test_a_missing_file_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(WeightsError, match=f"no weights file at '{name}'; name a"):
        sources.resolve(name, toy())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.ckpt")
    source = sources.resolve(str(tmp_path / "x.ckpt"), toy(best=record(tmp_path)))
    assert source is not None
    with pytest.raises(WeightsError, match=r"is a pipe"):
        loading.peek(source, toy())


def test_an_unknown_name_shows_the_nearest(tmp_path: Path) -> None:
    backbone = toy(**{"hub-v1.1": record(tmp_path), "hub-v1.2": record(tmp_path)})
    with pytest.raises(UsageError, match=r"'toy' offers no weights named 'hub-v11'; did you mean 'hub-v1.1'"):
        sources.resolve("hub-v11", backbone)
    with pytest.raises(UsageError, match=r"'imagenet'; known: auto, hub-v1.1, hub-v1.2, none"):
        sources.resolve("imagenet", backbone)


def test_auto_without_offers_says_how_to_start_from_random() -> None:
    with pytest.raises(UsageError, match=r"'toy' offers no weights; write weights: none for a random start"):
        sources.resolve("auto", toy())


def test_auto_is_the_first_offer_and_a_plugin_is_asked_first(file: Path) -> None:
    asked = []

    def fetch(wanted: Weights, cache: Path) -> Path:
        asked.append((wanted, cache))
        return file

    backbone = toy(first=record(file), second=record(file, size=32))
    found = sources.resolve("auto", backbone, fetch)
    assert found == sources.Source(path=file, name="first", record=backbone.weights["first"])
    assert asked == [(backbone.weights["first"], cache_folder() / "weights")]
    assert getattr(sources.resolve("second", backbone, fetch), "name", None) == "second"


def test_an_offer_is_downloaded_once_and_then_needs_no_network(file: Path, offline: None) -> None:
    backbone = toy(best=record(file, url=file.as_uri()))
    first = sources.resolve("best", backbone)
    assert first is not None
    assert first.path.parent == cache_folder() / "weights"
    assert first.path.read_bytes() == file.read_bytes()
    file.unlink()
    assert sources.resolve("best", backbone) == first


def test_a_url_with_its_hash_is_fetched(file: Path, offline: None) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = sources.resolve(f"{file.as_uri()}#sha256={digest.upper()}", toy())
    assert source is not None
    assert source.name == file.as_uri()
    assert source.path.read_bytes() == file.read_bytes()
    assert loading.peek(source, toy()) == {}
    assert loading.load(source, toy(), SHAPES, HEAD, False).report["sha256"] == digest


@pytest.mark.parametrize("fragment", ["", "#sha256=12", "#md5=" + "0" * 32])
def test_a_url_without_its_hash_is_refused(fragment: str) -> None:
    with pytest.raises(UsageError, match=r"'https://example.invalid/w' needs the sha256 of its file"):
        sources.resolve(f"https://me:pw@example.invalid/w{fragment}", toy())


def test_what_cannot_be_fetched_is_explained_on_one_screen(tmp_path: Path, offline: None) -> None:
    backbone = toy(best=record(tmp_path))
    with pytest.raises(DownloadError) as caught:
        sources.resolve("best", backbone)
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert len(text.splitlines()) < 10
    assert text.startswith("no weights 'best' for 'toy': the file is needed, but FINETUNE_OFFLINE is set\n")
    assert "address: https://example.invalid/toy.safetensors\n" in text
    assert "secret" not in text
    assert f"sha256:  {'0' * 64}\n" in text
    place = sources.target(backbone.weights["best"], cache_folder() / "weights")
    assert f"file:    {place} (put there by hand, it needs no network)" in text
    for remedy in ("backbone.weights=FILE", "backbone.weights=none", "`finetune run quickstart`"):
        assert remedy in text


def test_a_file_put_there_by_hand_is_found(file: Path, offline: None) -> None:
    backbone = toy(best=record(file))
    place = sources.target(backbone.weights["best"], cache_folder() / "weights")
    place.parent.mkdir(parents=True)
    file.rename(place)
    assert getattr(sources.resolve("best", backbone), "path", None) == place


# peek and image_defaults


def test_options_come_from_the_record_then_from_the_names(file: Path) -> None:
    theirs = file.with_name("theirs.safetensors")
    tensorfile.write(theirs, {"f.conv.weight": ARRAYS["stem.conv.weight"]}, {})
    plain = sources.Source(path=theirs, name="x")
    assert loading.peek(plain, toy()) == {"pool": "same"}
    known = sources.Source(path=theirs, name="x", record=record(theirs, options={"pool": "symmetric"}))
    assert loading.peek(known, toy()) == {"pool": "symmetric"}
    assert loading.peek(sources.Source(path=file, name="x"), toy()) == {}
    tensorfile.write(theirs, {"strange": ARRAYS["stem.conv.weight"]}, {})
    assert loading.peek(plain, toy()) == {}


def test_files_of_this_project_say_their_options_and_images(file: Path) -> None:
    image = {"size": 64, "resize": 72, "keep_aspect": False, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    metadata = {"backbone": json.dumps({"use": "toy", "options": {"pool": "same"}}), "image": json.dumps(image)}
    tensorfile.write(file, ARRAYS, metadata)
    source = sources.Source(path=file, name="x")
    assert loading.peek(source, toy()) == {"pool": "same"}
    spec = ImageSpec(**loading.image_defaults(source))
    assert spec == ImageSpec(size=64, resize=72, keep_aspect=False, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    tensorfile.write(file, ARRAYS, {"backbone": json.dumps({"use": "another", "options": {"depth": 3}})})
    assert loading.peek(source, toy()) == {}


def test_images_come_from_the_record_else_are_as_imagenet(file: Path) -> None:
    said = record(file, size=227, resize=256, keep_aspect=False, mean=(0.1, 0.2, 0.3))
    spec = ImageSpec(**loading.image_defaults(sources.Source(path=file, name="x", record=said)))
    assert spec == ImageSpec(size=227, resize=256, keep_aspect=False, mean=(0.1, 0.2, 0.3))
    assert loading.image_defaults(sources.Source(path=file, name="x")) == {}
    assert loading.image_defaults(None) == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {"backbone": "{"},
        {"backbone": "[]"},
        {"backbone": '{"use": "toy", "options": {"pool": 5}}'},
        {"backbone": '{"use": "toy", "options": {"depth": 5}}'},
        {"image": "{"},
        {"image": '{"size": -4}'},
        {"image": '{"std": [0, 1, 1]}'},
    ],
)
def test_damaged_metadata_is_an_error(file: Path, metadata: dict[str, str]) -> None:
    tensorfile.write(file, ARRAYS, metadata)
    source = sources.Source(path=file, name="x")
    with pytest.raises(WeightsError, match=r"damaged metadata"):
        (loading.peek(source, toy()), loading.image_defaults(source))


# load


def test_everything_but_the_head_is_loaded_and_reported(file: Path) -> None:
    loaded = load(file)
    assert set(loaded.tensors) == SHAPES.keys() - HEAD
    assert all(np.array_equal(array, ARRAYS[name]) for name, array in loaded.tensors.items())
    assert loaded.report == {
        "source": "x",
        "path": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "layout": "finetune",
        "loaded": ["stem.conv.weight", "stem.bn.gamma"],
        "missing": [],
        "unexpected": [],
        "reinitialised": ["head.fc.weight", "head.fc.bias"],
        "ignored": [],
        "counts": {"loaded": 2, "missing": 0, "unexpected": 0, "reinitialised": 2, "ignored": 0},
    }


def test_a_head_of_another_kind_or_width_starts_anew(file: Path) -> None:
    expected = {**{n: s for n, s in SHAPES.items() if n not in HEAD}, "head.hidden.weight": (7, 4)}
    source = sources.Source(path=file, name="x")
    report = loading.load(source, toy(), expected, {"head.hidden.weight"}, False).report
    assert report["reinitialised"] == report["missing"] == ["head.hidden.weight"]
    assert sorted(report["unexpected"]) == sorted(HEAD)
    wide = {**SHAPES, "head.fc.weight": (102, 4), "head.fc.bias": (102,)}
    assert load(file, expected=wide).report["missing"] == []


def test_a_kept_head_is_loaded_too(file: Path) -> None:
    loaded = load(file, keep_head=True)
    assert set(loaded.tensors) == set(SHAPES)
    assert loaded.report["reinitialised"] == []


def test_a_kept_head_must_fit(file: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"another shape for 1: 'head.fc.bias \(3,\) for \(5,\)'; write head.keep_pre"
    ):
        load(file, True, {**SHAPES, "head.fc.bias": (5,)})
    with pytest.raises(
        WeightsError, match=r"lacks 1: 'head.out.bias'; it has no place for 1: 'head.fc.bias'; write head"
    ):
        load(file, True, {**{n: s for n, s in SHAPES.items() if n != "head.fc.bias"}, "head.out.bias": (3,)})


def test_every_other_difference_is_an_error(file: Path) -> None:
    with pytest.raises(WeightsError, match=r"own.safetensors': the file has another shape for 1: 'stem.conv.weight"):
        load(file, expected={**SHAPES, "stem.conv.weight": (4, 3)})
    with pytest.raises(WeightsError, match=r"own.safetensors': these are not .* lacks 1: 'stem.bn.beta'") as caught:
        load(file, expected={**SHAPES, "stem.bn.beta": (4,)})
    assert caught.value.exit_code == 4
    with pytest.raises(WeightsError, match=r"no place for 1: 'stem.bn.gamma'"):
        load(file, expected={n: s for n, s in SHAPES.items() if n != "stem.bn.gamma"})


def test_the_file_of_a_record_must_have_its_hash(file: Path) -> None:
    source = sources.Source(path=file, name="x", record=record(file.parent))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=f"has sha256 {digest}, not {'0' * 64} as promised"):
        loading.load(source, toy(), SHAPES, HEAD, False)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_widths_are_converted(file: Path, dtype: str) -> None:
    tensorfile.write(file, {name: array.astype(dtype) for name, array in ARRAYS.items()}, {})
    tensors = load(file, True).tensors
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(array, ARRAYS[name]) for name, array in tensors.items())


def test_whole_numbers_are_no_weights(file: Path) -> None:
    tensorfile.write(file, {**ARRAYS, "stem.bn.gamma": np.ones(4, np.int64)}, {})
    with pytest.raises(WeightsError, match=r"has whole numbers for 1: 'stem.bn.gamma'"):
        load(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_numbers_that_are_not_finite_are_refused(file: Path, value: float) -> None:
    bad = ARRAYS["stem.conv.weight"].astype(np.float64)
    bad[1, 1] = value
    tensorfile.write(file, {**ARRAYS, "stem.conv.weight": bad}, {})
    with pytest.raises(WeightsError, match=r"NaN or infinity in 'stem.conv.weight'"):
        load(file)
