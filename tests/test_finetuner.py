"""The Python API: everything one does with a ``Finetuner``, on small drawn photos."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import finetune
from finetune import Dataset, Finetuner, Options, Samples, hookimpl, plugins
from finetune.catalogue import Catalogue
from finetune.components import Backbone
from finetune.data.images import fit, read
from finetune.errors import DataError, FinetuneError, PluginError, RecipeError, ResourceError, UsageError, WeightsError
from finetune.recipe import keywords
from finetune.recipe import plan as plans
from finetune.weights import tensorfile
from tests.drawn import COLOURS, folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from finetune.components import Split
    from finetune.run import Run

NANO: dict[str, Any] = {
    "backbone": "resnext_nano",
    "weights": "none",
    "device": "cpu",
    "image": {"size": 32, "resize": 36},
    "train": {"batch_size": 8},
    "progress": False,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def paths(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.jpg"))


@pytest.fixture(scope="module")
def table(photos: Path, paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file that lists all photos."""
    file = tmp_path_factory.mktemp("table") / "photos.csv"
    file.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    return file


@pytest.fixture(scope="module")
def recipe(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe file for all photos."""
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(
        f"seed: 5\ndataset: {{use: folder, root: {photos}, split: 0.5}}\n"
        "backbone: {use: resnext_nano, weights: none}\nimage: {size: 32, resize: 36}\n"
        "freeze: {use: gradual, schedule: {1: head}}\n"
        "loss: {label_smoothing: 0.1}\ntrain: {epochs: 9, batch_size: 8}\n"
    )
    return file


@pytest.fixture(scope="module")
def component(paths: list[Path]) -> Dataset:
    """Return a dataset of a user's own, with options."""

    class Some(Options):
        each: int = 12

    def build(options: Some, split: Split) -> Samples | None:
        kept = [path for path in paths if int(path.stem) < options.each]
        classes = ("blue", "green", "red")
        labels = [classes.index(path.parent.name) for path in kept]
        return Samples(images=kept, labels=labels, classes=classes) if split == "train" else None

    return Dataset(name="some", options=Some, build=build)


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuner:
    ft = Finetuner(**NANO, freeze="none", output=tmp_path_factory.mktemp("runs"))
    ft.fit(photos, epochs=2)
    return ft


@pytest.fixture(scope="module")
def loaded(fitted: Finetuner) -> Finetuner:
    assert fitted.run is not None
    return Finetuner.load(fitted.run.folder, progress=False, train={"batch_size": 8})


def only_head(output: Path, **more: Any) -> Finetuner:
    """Return a ``Finetuner`` that has yet to be fitted, and is so quickly."""
    return Finetuner(**{**NANO, "freeze": "head", "output": output, **more})


def planned(run: Run) -> Any:
    return run.recipe.model_dump(mode="json")


def pixels(paths: list[Path]) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in paths]


def weights(run: Run) -> str:
    """Return a hash of a run's final weights."""
    tensors = tensorfile.read(run.folder / "model" / "weights.safetensors").tensors
    return hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()


# What fit takes


def test_fit_learns_from_a_folder(fitted: Finetuner, photos: Path) -> None:
    run = fitted.run
    assert run is not None
    assert run.result is not None
    assert run.classes == ("blue", "green", "red")
    assert [line["epoch"] for line in fitted.history] == [1, 2]
    assert fitted.history[1]["train_loss"] < fitted.history[0]["train_loss"]
    assert [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()] == fitted.history
    assert planned(run)["dataset"]["root"] == str(photos)


def test_fit_takes_a_table(table: Path, photos: Path, tmp_path: Path) -> None:
    ft = only_head(tmp_path)
    run = ft.fit(str(table), epochs=1)
    assert run.images == {"train": 30, "valid": 6}
    assert ft.evaluate(photos)["images"] == 36  # a folder, though the table has a root, too


def test_fit_takes_arrays(paths: list[Path], tmp_path: Path) -> None:
    ft = only_head(tmp_path)
    run = ft.fit((np.stack(pixels(paths)), np.repeat([1, 2, 10], 12)), epochs=1)
    assert run.classes == ("1", "2", "10")
    assert run.images == {"train": 30, "valid": 6}
    shifted = ft.evaluate((pixels(paths), [1] * 12 + [2] * 12 + [10] * 12))
    assert [each["images"] for each in shifted["per_class"]] == [12, 12, 12]


def test_fit_takes_a_component_and_its_options(component: Dataset, paths: list[Path], tmp_path: Path) -> None:
    ft = only_head(tmp_path)
    run = ft.fit(component, epochs=1, dataset={"each": 8, "split": 0.25})
    assert run.images == {"train": 18, "valid": 6}
    assert ft.evaluate(component)["images"] == 24


def test_fit_takes_a_section_of_a_recipe(photos: Path, tmp_path: Path) -> None:
    run = only_head(tmp_path).fit({"use": "folder", "root": str(photos), "split": 0.5}, epochs=1)
    assert run.images == {"train": 18, "valid": 18}


def test_fit_takes_a_recipe_which_speaks_first(recipe: Path, tmp_path: Path) -> None:
    ft = Finetuner(output=tmp_path, progress=False, optimizer="sgd")
    run = ft.fit(recipe, epochs=1, loss={"class_weights": {"red": 2.0}}, train={"accumulate": 2}, name="own")
    said = planned(run)
    assert said["seed"] == 5
    assert said["freeze"]["use"] == "gradual"
    assert (said["train"]["epochs"], said["train"]["batch_size"], said["train"]["accumulate"]) == (1, 8, 2)
    assert said["loss"] == {"use": "cross_entropy", "label_smoothing": 0.1, "class_weights": {"red": 2.0}}
    assert said["optimizer"]["use"] == "sgd"
    assert run.folder == tmp_path / "own-001"
    assert run.images == {"train": 18, "valid": 18}


def test_what_is_given_stands_above_a_recipe(recipe: Path) -> None:
    ft = Finetuner(seed=7, freeze="none", weights="some.safetensors", device="cpu", callbacks=["tensorboard"])
    plan, _ = ft._plan(recipe, keywords.merged(ft.sections, {"seed": 8}))
    said = plan.recipe.model_dump(mode="json")
    assert said["seed"] == 8
    assert said["freeze"] == {"use": "none", "batch_norm": "train"}
    assert said["backbone"]["use"] == "resnext_nano"
    assert said["backbone"]["weights"] == str(Path.cwd() / "some.safetensors")
    assert said["runner"]["device"] == "cpu"
    assert [each["use"] for each in said["callbacks"]] == ["tensorboard"]


def test_what_is_left_out_is_as_in_a_recipe(photos: Path, tmp_path: Path) -> None:
    ft = Finetuner()
    said = ft._plan(photos, ft.sections)[0].recipe
    file = tmp_path / "run.yaml"
    file.write_text(f"dataset: {{use: folder, root: {photos}}}\noutput: {Path.cwd() / 'runs'}\n")
    assert said == plans.load(file, [], Catalogue(plugins.load())).recipe


def test_every_fit_starts_from_the_same_weights(photos: Path, tmp_path: Path) -> None:
    ft = only_head(tmp_path)
    first, second = ft.fit(photos, epochs=1), ft.fit(photos, epochs=1)
    assert weights(first) == weights(second)
    assert first.folder != second.folder


def test_fine_tune_trains_the_head_then_everything(photos: Path, tmp_path: Path) -> None:
    ft = Finetuner(**NANO, output=tmp_path)
    run = ft.fine_tune(photos, epochs=1, freeze_epochs=1, base_lr=1e-3, optimizer={"weight_decay": 0.0})
    assert [line["trainable"] for line in ft.history] == [["head"], [*run.stages]]
    optimizer = planned(run)["optimizer"]
    assert (optimizer["lr"], optimizer["layer_decay"], optimizer["weight_decay"]) == (1e-3, 0.5, 0.0)


def test_fine_tune_can_begin_with_everything(photos: Path) -> None:
    seen: dict[str, Any] = {}

    class Asked(Finetuner):
        def fit(self, data: Any, **said: Any) -> Any:
            seen.update(said)

    Asked().fine_tune(photos, epochs=3, freeze_epochs=0)
    assert seen["epochs"] == 3
    assert seen["freeze"]["schedule"] == {1: "all"}


# What a fitted one does


def test_predict_takes_paths_arrays_and_pillow_images(fitted: Finetuner, paths: list[Path]) -> None:
    from_paths = fitted.predict([str(path) for path in paths], top=2)
    assert [each.path for each in from_paths] == [str(path) for path in paths]
    assert all(len(each.top) == 2 and each.top[0] == (each.label, each.probability) for each in from_paths)
    assert np.mean([each.label == path.parent.name for each, path in zip(from_paths, paths, strict=True)]) > 0.6
    for images in (pixels(paths), np.stack(pixels(paths)), [Image.open(path) for path in paths]):
        assert [each.top for each in fitted.predict(images, top=2)] == [each.top for each in from_paths]  # type: ignore[arg-type]
    assert fitted.predict(pixels(paths[:1]))[0].path == "images[0]"
    assert sum(probability for _, probability in fitted.predict(paths[:1], top=9)[0].top) == pytest.approx(1.0)


def test_evaluate_takes_what_fit_takes(
    fitted: Finetuner, photos: Path, paths: list[Path], table: Path, recipe: Path, component: Dataset
) -> None:
    names = [path.parent.name for path in paths]
    numbers = np.array([("blue", "green", "red").index(name) for name in names])
    every = [photos, f"{photos}/", table, recipe, component, (paths, names), (np.stack(pixels(paths)), numbers)]
    found = [fitted.evaluate(data) for data in (*every, {"use": "folder", "root": str(photos)})]
    assert {(each["images"], each["accuracy"], round(each["loss"], 5)) for each in found} == {
        (36, found[0]["accuracy"], round(found[0]["loss"], 5))
    }
    assert found[0]["accuracy"] == np.mean([p.label == n for p, n in zip(fitted.predict(paths), names, strict=True)])
    assert [(each["class"], each["images"]) for each in found[0]["per_class"]] == [(n, 12) for n in sorted(COLOURS)]


def test_evaluate_prefers_the_test_split(fitted: Finetuner, tmp_path: Path) -> None:
    for name, each in (("train", 3), ("test", 2)):
        folder(tmp_path / name, each=each)
    found = fitted.evaluate(tmp_path)
    assert (found["part"], found["images"]) == ("test", 6)


def test_embed_gives_features_of_any_form_of_image(fitted: Finetuner, paths: list[Path]) -> None:
    features = fitted.embed(paths)
    assert (features.shape, features.dtype) == ((36, 512), np.float32)
    assert np.array_equal(features, fitted.embed(pixels(paths)))
    assert np.array_equal(features, fitted.embed([Image.open(path) for path in paths]))
    assert np.allclose(features, fitted.embed(ready(fitted, paths)), atol=1e-5)


def ready(ft: Finetuner, paths: list[Path]) -> np.ndarray:
    """Return images as the network takes them, made by hand."""
    assert ft.model is not None
    spec = ft.model.image
    images = np.stack([fit(read(path, spec), spec) for path in paths]).astype(np.float32) / 255.0
    return ((images - np.float32(spec.mean)) / np.float32(spec.std)).transpose(0, 3, 1, 2)


def test_embed_before_fit_uses_the_pretrained_network(fitted: Finetuner, paths: list[Path], tmp_path: Path) -> None:
    ft = only_head(tmp_path)
    features = ft.embed(paths[:5])
    assert (features.shape, features.dtype) == ((5, 512), np.float32)
    assert np.array_equal(features, ft.embed(pixels(paths[:5])))
    assert np.allclose(features, ft.embed(ready(fitted, paths[:5])), atol=1e-5)
    assert not np.allclose(features, fitted.embed(paths[:5]), atol=1e-3)


def test_saved_and_loaded_it_predicts_the_same(
    fitted: Finetuner, loaded: Finetuner, paths: list[Path], tmp_path: Path
) -> None:
    target = fitted.save(tmp_path / "model")
    assert {path.name for path in target.iterdir()} == {"weights.safetensors", "model.json", "README.md"}
    expected = fitted.predict(paths)
    assert loaded.predict(paths) == expected
    assert Finetuner.load(str(target)).predict(paths) == expected
    assert loaded.history == []


def test_fit_after_load_starts_from_those_weights(loaded: Finetuner, photos: Path, tmp_path: Path) -> None:
    before = loaded.embed(sorted(photos.rglob("*.jpg")))
    ft = Finetuner.load(loaded.model.folder, progress=False)  # type: ignore[union-attr, arg-type]
    run = ft.fit(photos, epochs=1, freeze="head", output=tmp_path, train={"batch_size": 8})
    assert planned(run)["image"]["size"] == "auto"
    assert ft.model is not None
    assert (ft.model.image.size, ft.model.image.resize) == (32, 36)
    assert run.weights["reinitialised"] == ["head.fc.weight", "head.fc.bias"]
    assert np.array_equal(before, ft.embed(sorted(photos.rglob("*.jpg"))))


def test_a_kept_head_needs_the_same_classes(loaded: Finetuner, photos: Path, tmp_path: Path) -> None:
    keep = {"keep_pretrained": True}
    assert loaded.model is not None
    ft = Finetuner.load(loaded.model.folder, progress=False, head=keep, freeze="head", output=tmp_path)  # type: ignore[arg-type]
    assert ft.fit(photos, epochs=1, optimizer={"lr": 1e-9}).weights["reinitialised"] == []
    assert ft.history[0]["val_accuracy"] >= 0.5
    others = folder(tmp_path / "others", each=3)
    (others / "red").rename(others / "amber")
    with pytest.raises(WeightsError, match=r"has 3 classes, and none named 'amber'; write head={"):
        ft.fit(others, epochs=1)
    assert ft.run is not None
    again = Finetuner.load(ft.run.folder, progress=False, freeze="head", output=tmp_path)
    for head in ({}, {"head": "linear"}):
        run = again.fit(others, epochs=1, **head)
        assert run.weights["reinitialised"] == ["head.fc.weight", "head.fc.bias"]
        assert "amber" in run.classes


@pytest.mark.parametrize("format", ["onnx", "mindir"])
def test_an_exported_graph_says_the_same(fitted: Finetuner, paths: list[Path], tmp_path: Path, format: str) -> None:
    file = tmp_path / "new" / f"flowers.{format}"
    report = fitted.export(file)
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, f"{file.name}.json"]
    assert report["largest_difference"] < 1e-4
    about = json.loads((file.parent / f"{file.name}.json").read_text())
    assert about["classes"] == ["blue", "green", "red"]
    assert fitted.run is not None
    exactly = Finetuner.load(fitted.run.folder, progress=False, trunk={"precision": "fp32"})
    assert exactly.model is not None
    spec = exactly.model.image
    for path in paths[::9]:
        image = fit(read(path, spec), spec).astype(np.float32)[None] / 255.0
        found = RUN[format](file, np.ascontiguousarray(image.transpose(0, 3, 1, 2)))[0]
        expected = dict(exactly.predict([path])[0].top)
        assert np.allclose(found, [expected[name] for name in about["classes"]], atol=1e-4)


def run_onnx(file: Path, images: np.ndarray) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_mindir(file: Path, images: np.ndarray) -> Any:
    import mindspore as ms

    return ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)).asnumpy()


RUN = {"onnx": run_onnx, "mindir": run_mindir}


def test_it_shows_itself(fitted: Finetuner, tmp_path: Path) -> None:
    assert repr(only_head(tmp_path, seed=3)).startswith("<Finetuner: not fitted, {'backbone': {'use': 'resnext_nano', ")
    assert fitted.model is not None
    score = fitted.model.about["metrics"]["val_accuracy"]
    shown = f"<Finetuner: resnext_nano, 3 classes, val_accuracy {score:.4f}, {fitted.model.folder}>"
    assert repr(fitted) == shown
    assert len(repr(fitted.run)) < 300
    assert len(repr(fitted.model)) < 300


# Plugins of a Finetuner's own


class Counter:
    """Counts epochs, and offers a backbone."""

    def __init__(self) -> None:
        self.epochs = 0

    @hookimpl
    def finetune_epoch_end(self, run: Run) -> None:
        self.epochs += 1

    @hookimpl
    def finetune_backbones(self) -> Iterator[Backbone]:
        yield Backbone(name="pooled", build=stages, stages=("stem",), features=4)


def stages(options: Options) -> Mapping[str, Any]:
    from mindspore import nn

    # A pool that is padded on all sides has no ONNX export.
    return {"stem": nn.SequentialCell(nn.Conv2d(3, 4, 4, 4), nn.MaxPool2d(3, 2, pad_mode="pad", padding=1))}


def test_plugins_given_are_there_and_what_has_no_export_is_said(
    photos: Path, paths: list[Path], tmp_path: Path
) -> None:
    counter = Counter()
    ft = only_head(tmp_path / "runs", backbone="pooled", freeze="none", plugins=[counter])
    run = ft.fit(photos, epochs=2)
    assert counter.epochs == 2
    with pytest.raises(FinetuneError, match="MindSpore cannot export this network as onnx: "):
        ft.export(tmp_path / "a.onnx")
    assert list(tmp_path.glob("*.onnx*")) == list(tmp_path.glob(".*onnx*")) == []
    assert Finetuner.load(run.folder, plugins=[Counter()]).predict(paths) == ft.predict(paths)
    with pytest.raises(UsageError, match="no backbone named 'pooled'"):
        Finetuner.load(run.folder)
    with pytest.raises(PluginError, match="two backbones named 'pooled'"):
        Finetuner(**{**NANO, "backbone": "pooled"}, plugins=[Counter(), Counter()]).embed(paths)


# Interrupts


class Interrupt:
    """Sends this process SIGINT, as the stop button of a notebook does, after a step."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    @hookimpl
    def finetune_step_end(self, step: int) -> None:
        for _ in range(self.times if step == self.step else 0):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_fit_is_saved_and_can_go_on(fitted: Finetuner, photos: Path, tmp_path: Path) -> None:
    interrupt = Interrupt(step=6)
    ft = Finetuner(**NANO, freeze="none", output=tmp_path, plugins=[interrupt])
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match=r"saved and stopped in epoch 2, step 6; go on with fit\(…, resume="):
        ft.fit(photos, epochs=2)
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [line["epoch"] for line in ft.history] == [1]
    assert ft.run is not None
    assert repr(ft) == f"<Finetuner: interrupted in epoch 2, {ft.run.folder}>"
    for use in (lambda: ft.predict([]), lambda: ft.embed([])):
        with pytest.raises(UsageError, match=r"the last fit was not finished; go on with fit\(…, resume="):
            use()
    interrupt.times = 0
    again = ft.fit(photos, epochs=2, resume=ft.run.folder)
    assert fitted.run is not None
    assert weights(again) == weights(fitted.run)
    assert [line["epoch"] for line in ft.history] == [1, 2]
    assert ft.evaluate(photos) == fitted.evaluate(photos)


def test_the_engine_resumes_what_python_began(fitted: Finetuner, photos: Path, tmp_path: Path) -> None:
    from finetune.training import engine

    ft = Finetuner(**NANO, freeze="none", output=tmp_path, plugins=[Interrupt(step=2)])
    with pytest.raises(KeyboardInterrupt):
        ft.fit(photos, epochs=2)
    assert ft.run is not None
    catalogue = Catalogue(plugins.load())
    plan = plans.load(ft.run.folder / "recipe.yaml", [], catalogue)
    resumed = engine.fine_tune(plan, catalogue, resume=ft.run.folder, say=lambda message: None)
    assert fitted.run is not None
    assert weights(resumed) == weights(fitted.run)


def test_a_second_interrupt_stops_at_once_and_the_process_lives(photos: Path, tmp_path: Path) -> None:
    ft = only_head(tmp_path, plugins=[Interrupt(step=2, times=2)])
    with pytest.raises(KeyboardInterrupt, match="stopped without saving"):
        ft.fit(photos, epochs=1)
    assert ft.run is not None
    assert not (ft.run.folder / "checkpoints").exists()


# Python loses an interrupt that meets a destructor, so this one comes again, as from a person.
PREDICTING = """
import os, signal, sys, threading, time
from finetune import Finetuner

ft = Finetuner.load(sys.argv[1])
ft.predict([sys.argv[2]])
over = threading.Event()
def interrupt():
    while not over.wait(2):
        os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    while True:
        ft.predict([sys.argv[2]] * 64)
except KeyboardInterrupt:
    over.set()
    print("interrupted", len(ft.predict([sys.argv[2]])))
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("alive")
"""


def test_interrupting_predict_leaves_the_process_alive(fitted: Finetuner, paths: list[Path]) -> None:
    assert fitted.run is not None
    command = [sys.executable, "-c", PREDICTING, str(fitted.run.folder), str(paths[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("interrupted 1\nalive\n", 0), done.stderr


# What cannot be done


def test_nothing_works_before_fit_but_embed(photos: Path, tmp_path: Path) -> None:
    ft = only_head(tmp_path)
    uses = (
        lambda: ft.predict(["a.jpg"]),
        lambda: ft.evaluate(photos),
        lambda: ft.save(tmp_path / "model"),
        lambda: ft.export(tmp_path / "a.onnx"),
    )
    for use in uses:
        with pytest.raises(UsageError, match=r"nothing has been fitted yet; call fit, or open a model with .*load"):
            use()
    assert ft.history == []
    assert ft.embed([]).shape == (0, 512)


@pytest.mark.parametrize(
    ("use", "error", "text"),
    [
        (lambda ft: ft.predict("a.jpg"), UsageError, r"images must be a list; for a single str write \[image\]"),
        (lambda ft: ft.predict(np.zeros((8, 8, 3), np.uint8)), UsageError, "for a single ndarray write"),
        (lambda ft: ft.predict(["none.jpg"]), DataError, r"'none\.jpg' does not exist"),
        (lambda ft: ft.predict([np.zeros((8, 8), np.uint8)]), DataError, r"shape 8x8 .* pass \(height, width, 3\)"),
        (lambda ft: ft.predict([Image.new("LAB", (8, 8))]), DataError, r"images\[0\] has the colour mode LAB"),
        (lambda ft: ft.predict(["a.jpg"], top=0), UsageError, "top=0 asks for no class"),
        (lambda ft: ft.embed(np.zeros((1, 3, 8, 8))), UsageError, "and type float64 cannot be embedded"),
        (lambda ft: ft.embed(np.zeros((8, 8, 3), np.float32)), UsageError, r"pass ready \(N, 3, H, W\) float32"),
        (lambda ft: ft.evaluate("nowhere"), DataError, "no data at nowhere; name a folder of class folders"),
        (lambda ft: ft.evaluate(["a.jpg"]), UsageError, "a list is no data; give a path"),
        (lambda ft: ft.evaluate((["a.jpg"],)), UsageError, r"a tuple of 1 is no data; give \(images, labels\)"),
        (lambda ft: ft.evaluate(([], [])), DataError, "there is none that can be used"),
        (lambda ft: ft.evaluate((["a.jpg"], [])), DataError, "1 images but 0 labels; give one label for each"),
        (lambda ft: ft.evaluate(([grey()], [7])), DataError, "label 0 is 7, but there are 3 classes"),
        (lambda ft: ft.evaluate(([grey()], ["yellow"])), DataError, "'yellow': is not a class of the model"),
        (lambda ft: ft.fit(([grey()], [-1])), DataError, "label 0 is -1; labels are names, or whole numbers from 0"),
        (lambda ft: ft.fit(([grey()], [np.eye(3)[0]])), DataError, r"label 0 is array\(\[1., 0., 0.\]\); labels are"),
        (lambda ft: ft.fit(([], [])), DataError, "there is none to train on"),
        (lambda ft: ft.fit("nowhere"), DataError, "no data at nowhere"),
        (lambda ft: ft.fit("nowhere.yaml"), RecipeError, r"nowhere\.yaml: no such file"),
        (lambda ft: ft.fit(__file__), UsageError, "neither a folder nor a .csv file; for other data name a recipe"),
        (lambda ft: ft.fit("tests", epochs=0), RecipeError, r"train\.epochs: must be more than 0, got 0"),
        (lambda ft: ft.fit("tests", optimiser="sgd"), RecipeError, "unknown key 'optimiser'; did you mean 'optimizer'"),
        (lambda ft: ft.fit("tests", freeze="haed"), RecipeError, "no freezer named 'haed'; did you mean 'head'"),
        (lambda ft: ft.fit("tests", dataset={"use": "csv"}), UsageError, "dataset.use=csv is of no use beside data"),
        (lambda ft: ft.export("a.pb"), UsageError, r"cannot export to 'a\.pb'; end the file's name with \.onnx or"),
        (lambda ft: ft.export("a.bin", "onnx"), UsageError, r"a\.bin does not end with \.onnx; name the file a\.onnx"),
        (lambda ft: ft.save(Path(__file__).parent), UsageError, "is not empty; name a new folder"),
        (lambda ft: ft.save(__file__), ResourceError, "cannot write .* a part of this path is a file"),
        (lambda ft: Finetuner.load("nowhere"), UsageError, "no model in nowhere: name a run folder"),
        (lambda ft: Finetuner(weights="nosuch", backbone="resnext_nano").embed([]), RecipeError, "no weights named"),
        (lambda ft: Finetuner("resnext5").embed([]), RecipeError, "no backbone named 'resnext5'; did you mean"),
    ],
)
def test_errors_say_what_to_do(
    fitted: Finetuner, repo: Path, monkeypatch: pytest.MonkeyPatch, use: Any, error: type[Exception], text: str
) -> None:
    monkeypatch.chdir(repo)
    with pytest.raises(error, match=text):
        use(fitted)


def grey() -> np.ndarray:
    return np.full((8, 8, 3), 128, np.uint8)


def test_a_component_that_needs_options_says_so(fitted: Finetuner) -> None:
    class Needy(Options):
        root: Path

    with pytest.raises(UsageError, match=r"dataset 'needy' needs options \(root\)"):
        fitted.evaluate(Dataset(name="needy", options=Needy, build=lambda options, split: None))
    with pytest.raises(DataError, match="dataset 'empty' has no images; its build must return Samples"):
        fitted.evaluate(Dataset(name="empty", build=lambda options, split: None))


# Which word counts


def test_sections_are_merged_key_by_key_while_they_use_the_same() -> None:
    base = {"optimizer": {"lr": 1.0}, "freeze": {"use": "gradual", "schedule": {1: "all"}, "batch_norm": "frozen"}}
    assert keywords.merged(base, {"optimizer": {"weight_decay": 0.0}})["optimizer"] == {"lr": 1.0, "weight_decay": 0.0}
    assert keywords.merged(base, {"optimizer": {"use": "adamw"}})["optimizer"] == {"lr": 1.0, "use": "adamw"}
    assert keywords.merged(base, {"optimizer": {"use": "sgd"}})["optimizer"] == {"use": "sgd"}
    assert keywords.merged(base, {"freeze": {"use": "head"}})["freeze"] == {"use": "head", "batch_norm": "frozen"}
    assert keywords.merged(base, {"seed": 2}) == {**base, "seed": 2}


def test_overrides_do_to_a_file_what_merging_does_to_a_mapping(photos: Path, tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "dataset": {"use": "folder", "root": str(photos)},
        "output": str(tmp_path),
        "name": "same",
        "freeze": {"use": "gradual", "schedule": {1: "head"}},
        "loss": {"class_weights": {"red": 2.0}},
    }
    over: dict[str, Any] = {
        "freeze": {"schedule": {1: "head", 2: "all"}},
        "optimizer": {"lr": np.float32(0.5)},
        "loss": {"class_weights": {"a b.c": 1.5}},
        "schedule": {"use": "constant"},
        "callbacks": [{"use": "early_stopping", "patience": 3}],
        "backbone": {"weights": tmp_path / "a: b.safetensors"},
        "image": {"mean": (0.5, 0.5, 0.5), "keep_aspect": False},
    }
    catalogue = Catalogue(plugins.load())
    file = tmp_path / "same.yaml"
    file.write_text(json.dumps(said))
    from_file = plans.load(file, keywords.overrides(over), catalogue)
    assert from_file.recipe == plans.load(keywords.merged(said, over), [], catalogue).recipe


def test_short_forms() -> None:
    said = {
        "head": "mlp",
        "augment": "albumentations",
        "callbacks": ["checkpoint", {"use": "tensorboard"}],
        "name": "x",
    }
    assert keywords.spelled_out(said) == {
        "head": {"use": "mlp"},
        "augment": [{"use": "albumentations"}],
        "callbacks": [{"use": "checkpoint"}, {"use": "tensorboard"}],
        "name": "x",
    }


def test_the_package_offers_it() -> None:
    assert finetune.Finetuner is Finetuner
