"""From recipe to plan: what is accepted, every sentence about what is not, paths, names and the way back."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, PositiveInt, field_validator

from finetune.catalogue import Catalogue
from finetune.components import Augmentation, Backbone, Callback, Dataset, Freezer, Options, Weights
from finetune.errors import PluginError, RecipeError
from finetune.hookspecs import hookimpl
from finetune.plugins import Origin, Plugins
from finetune.recipe.plan import Plan, dump_given, dump_plan, load_plan
from finetune.text import escape_line
from tests.clocks import least_processor_time

FOLDER = "dataset: {use: folder, root: photos}\n"


class Files(Options):
    root: Path
    valid: Path | None = None
    index: Path | Literal["auto"] = "auto"
    more: tuple[Path, ...] = ()
    named: dict[str, Path] | None = None


class Flowers(Options):
    root: Path = Path("~/flowers")


class Crop(Options):
    use: Literal["crop"]
    size: Annotated[int, Field(ge=1)]
    scale: tuple[float, float] = (0.5, 1.0)


class Flip(Options):
    use: Literal["flip"]
    p: Annotated[float, Field(ge=0, le=1)] = 0.5


class Images(Options):
    preset: Literal["light", "standard", "heavy"] = "standard"
    ops: tuple[Annotated[Crop | Flip, Field(discriminator="use")], ...] = ()
    either: Crop | Flip | None = None


class Gradual(Options):
    schedule: dict[PositiveInt, str | tuple[str, ...]]

    @field_validator("schedule")
    @classmethod
    def _from_one(cls, schedule: dict[int, Any]) -> dict[int, Any]:
        if 1 not in schedule:
            raise ValueError("No stage trains in epoch 1; begin with '1: head'.")
        return schedule


class Patience(Options):
    patience: PositiveInt = 5


class Clash(Options):
    split: str = "random"


class Failing(Options):
    x: int = 0

    @field_validator("x")
    @classmethod
    def _fail(cls, x: int) -> int:
        raise KeyError(x)


WEIGHTS = Weights(url="https://example.org/w.ckpt", sha256="0" * 64, layout="hub")


class Some:
    """Components enough for any recipe here."""

    @hookimpl
    def finetune_backbones(self) -> list[Backbone]:
        weights = {"hub-v1.1": WEIGHTS, "hub-v1.2": WEIGHTS}
        return [Backbone(name="resnext50", build=dict, stages=("stem", "layer1"), features=8, weights=weights)]

    @hookimpl
    def finetune_datasets(self) -> list[Dataset]:
        named: dict[str, type[Options]] = {"folder": Files, "flowers102": Flowers, "clash": Clash, "failing": Failing}
        return [Dataset(name=name, options=options, build=_nothing) for name, options in named.items()]

    @hookimpl
    def finetune_augmentations(self) -> list[Augmentation]:
        return [Augmentation(name="albumentations", options=Images, build=_nothing)]

    @hookimpl
    def finetune_freezers(self) -> list[Freezer]:
        named: dict[str, type[Options]] = {"head": Options, "gradual": Gradual}
        return [Freezer(name=name, options=options, build=_nothing) for name, options in named.items()]

    @hookimpl
    def finetune_callbacks(self) -> list[Callback]:
        named: dict[str, type[Options]] = {"tensorboard": Options, "checkpoint": Options, "early_stopping": Patience}
        return [Callback(name=name, options=options, build=_nothing) for name, options in named.items()]


def _nothing(*_: object) -> Any:
    return None


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    plugins = Plugins()
    plugins.register(Some(), Origin(name="some", distribution="tests", version="1"))
    return Catalogue(plugins)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, so that messages begin with ``recipe.yaml``."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(catalogue: Catalogue, text: str, *overrides: str) -> Plan:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return load_plan(Path("recipe.yaml"), overrides, catalogue)


def refused(catalogue: Catalogue, text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as error:
        planned(catalogue, text, *overrides)
    assert error.value.exit_code == 2
    return error.value.mistakes


# Recipes with one mistake each: what is written above the dataset, and the message without the file's name.
WRONG: list[tuple[str, str]] = [
    # unknown keys
    ("epochs: 3", "1:1: epochs: unknown key 'epochs'; did you mean 'train.epochs'?"),
    ("train: {epoch: 3}", "1:9: train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
    ("train:\n  epochs: 3\n  lr: 1e-3", "3:3: train.lr: unknown key 'lr'; did you mean 'optimizer.lr'?"),
    ("runer: {}", "1:1: runer: unknown key 'runer'; did you mean 'runner'?"),
    ("train: {seed: 1}", "1:9: train.seed: unknown key 'seed'; did you mean 'seed' at the top?"),
    ("head: {use: mlp, hiden: 3}", "1:18: head.hiden: unknown key 'hiden'; did you mean 'hidden'?"),
    ("head: {hidden: 3}", "1:8: head.hidden: unknown key 'hidden'; did you mean 'head.hidden' with 'use: mlp'?"),
    ("callbacks: [{use: checkpoint, zzz: 5}]", "1:31: callbacks[0].zzz: unknown key 'zzz'; known: use"),
    (
        "callbacks: [{use: early_stopping}, {use: checkpoint, patience: 5}]",
        "1:54: callbacks[1].patience: unknown key 'patience'; did you mean 'callbacks[0].patience'?",
    ),
    ("freeze: {batchnorm: frozen}", "1:10: freeze.batchnorm: unknown key 'batchnorm'; did you mean 'batch_norm'?"),
    ("1: 2", "1:1: 1: unknown key '1'; known: augment, backbone, cache, callbacks, dataset, evaluate, extends, "),
    ('"a b": 2', "1:1: \"a b\": unknown key 'a b'; known: augment, backbone"),
    # names of components
    ("backbone: {use: resnext5}", "1:12: backbone.use: no backbone named 'resnext5'; did you mean 'resnext50'?"),
    ("freeze: {use: gradually}", "1:10: freeze.use: no freezer named 'gradually'; did you mean 'gradual'?"),
    ("callbacks: [{use: tensorbord}]", "1:14: callbacks[0].use: no callback named 'tensorbord'; did you mean 'tensorb"),
    ("augment: [{use: kornia}]", "1:12: augment[0].use: no augmentation named 'kornia'; known: albumentations"),
    ("head: {use: mpl}", "1:8: head.use: no head named 'mpl'; did you mean 'mlp'?"),
    ("optimizer: {use: adam}", "1:13: optimizer.use: no optimizer named 'adam'; did you mean 'adamw'?"),
    ("schedule: {use: 3}", "1:12: schedule.use: no schedule named '3'; known: constant, cosine, step"),
    (
        "callbacks: [{keep: 2}]",
        "1:13: callbacks[0].use: missing; choose one of: checkpoint, early_stopping, tensorboard",
    ),
    # types
    ("seed: '1'", "1:1: seed: expected a whole number, got '1'; remove the quotes"),
    ("seed: true", "1:1: seed: expected a whole number, got true"),
    ("seed: 1_000", "1:1: seed: expected a whole number, got '1_000'; write it without '_' and spaces"),
    ("seed: 010", "1:1: seed: expected a whole number, got '010'; write it without the leading 0"),
    ("seed: 1:30", "1:1: seed: expected a whole number, got '1:30'"),
    ("seed: 2024-01-01", "1:1: seed: expected a whole number, got '2024-01-01'"),
    ("train: {epochs: 1e3}", "1:9: train.epochs: expected a whole number or 'auto', got 1000.0; write 1000"),
    ("train: {epochs: 2.5}", "1:9: train.epochs: expected a whole number or 'auto', got 2.5"),
    (
        "train: {epochs: }",
        "1:9: train.epochs: expected a whole number or 'auto', got nothing; give it a value or remove the key",
    ),
    ("train:", "1:1: train: expected a mapping, got nothing; give it a value or remove the key"),
    ("train: 3", "1:1: train: expected a mapping, got 3"),
    ("optimizer: {lr: '1e-3'}", "1:13: optimizer.lr: expected a number or 'auto', got '1e-3'; remove the quotes"),
    ("optimizer: {lr: '0,1'}", "1:13: optimizer.lr: expected a number or 'auto', got '0,1'; write it with '.'"),
    ("head: {keep_pretrained: no}", "1:8: head.keep_pretrained: expected true or false, got 'no'; write false"),
    ("head: {keep_pretrained: 1}", "1:8: head.keep_pretrained: expected true or false, got 1"),
    ("name: 3", "1:1: name: expected text, got 3; put it in quotes"),
    ("output: [a]", "1:1: output: expected text, got a list"),
    ("augment: {use: x}", "1:1: augment: expected a list, got a mapping; put '- ' before each item"),
    ("callbacks: [tensorboard]", "1:13: callbacks[0]: expected a mapping, got 'tensorboard'"),
    ("optimizer: {betas: [0.9, x]}", "1:26: optimizer.betas[1]: expected a number, got 'x'"),
    # choices and unions
    (
        "evaluate: {metric: lost}",
        "1:12: evaluate.metric: expected 'auto', 'accuracy', 'top5', 'macro_f1' or 'loss', got 'lost'; "
        "did you mean 'loss'?",
    ),
    ("runner: {amp: on}", "1:10: runner.amp: expected 'auto', 'off' or 'O2', got 'on'"),
    ("runner: {device: tpu}", "1:10: runner.device: no device named 'tpu'; did you mean 'gpu'?"),
    (
        "runner: {device: ascend, threads: 8}",
        "1:26: runner.threads: unknown key 'threads'; did you mean 'runner.threads' with 'device: cpu'?",
    ),
    ("image: {size: big}", "1:9: image.size: expected a whole number or 'auto', got 'big'"),
    ("image: {size: Auto}", "1:9: image.size: expected a whole number or 'auto', got 'Auto'; did you mean 'auto'?"),
    ("image: {size: 8}", "1:9: image.size: must be at least 16, got 8"),
    ("image: {keep_aspect: off}", "1:9: image.keep_aspect: expected true or false or 'auto', got 'off'; write false"),
    ("image: {mean: [0.5]}", "1:9: image.mean: must have at least 3 items, got 1"),
    ("image: {std: [1, 1, 1, 1]}", "1:9: image.std: must have at most 3 items, got 4"),
    ("image: {std: [1, 0, 1]}", "1:18: image.std[1]: must be more than 0, got 0"),
    ("loss: {class_weights: {rose: 0}}", "1:24: loss.class_weights.rose: must be more than 0, got 0"),
    (
        "loss: {class_weights: atuo}",
        "1:8: loss.class_weights: expected 'measured', 'none', 'sqrt', 'auto' or a mapping, got 'atuo'; "
        "did you mean 'auto'?",
    ),
    ("train: {clip_norm: [1]}", "1:9: train.clip_norm: expected a number, got a list"),
    # bounds
    ("seed: -1", "1:1: seed: must be at least 0, got -1"),
    ("seed: 4294967296", "1:1: seed: must be less than 4294967296, got 4294967296"),
    ("train: {epochs: -1}", "1:9: train.epochs: must be at least 0, got -1"),
    ("validate: {folds: 1}", "1:12: validate.folds: must be at least 2, got 1"),
    ("train: {epochs: 1000000}", "1:9: train.epochs: must be at most 100000, got 1000000"),
    ("loss: {label_smoothing: 1.0}", "1:8: loss.label_smoothing: must be less than 1, got 1.0"),
    ("optimizer: {lr: .nan}", "1:13: optimizer.lr: must be a finite number, got .nan"),
    ("optimizer: {lr: .inf}", "1:13: optimizer.lr: must be a finite number, got .inf"),
    ("optimizer: {lr: 1e999}", "1:13: optimizer.lr: must be a finite number, got .inf"),
    ("name: a/b", "1:1: name: must be 1 to 80 letters, digits and any of '_', '-' and '.', got 'a/b'"),
    (f"name: {'x' * 90}", "1:1: name: must be 1 to 80 letters, digits and any of '_', '-' and '.', got 'xxx"),
    ("runner: {devices: 0}", "1:10: runner.devices: must be at least 1, got 0"),
    # options of components
    ("freeze: {use: gradual}", "1:1: freeze.schedule: missing; freezer 'gradual' needs it"),
    ("freeze: {use: gradual, schedule: {one: head}}", "1:35: freeze.schedule.one: the key should be a whole number"),
    (
        "freeze: {use: gradual, schedule: {1: 5}}",
        "1:35: freeze.schedule.1: expected text or a list, got 5; put it in quotes",
    ),
    (
        "freeze: {use: gradual, schedule: {2: head}}",
        "1:24: freeze.schedule: no stage trains in epoch 1; begin with '1: head'",
    ),
    (
        "augment: [{use: albumentations, preset: hevy}]",
        "1:33: augment[0].preset: expected 'light', 'standard' or 'heavy', got 'hevy'; did you mean 'heavy'?",
    ),
    (
        "augment: [{use: albumentations, ops: [{use: crp}]}]",
        "1:40: augment[0].ops[0].use: no choice named 'crp'; did you mean 'crop'?",
    ),
    (
        "augment: [{use: albumentations, ops: [{use: crop}]}]",
        "1:39: augment[0].ops[0].size: missing; augmentation 'albumentations' needs it",
    ),
    (
        "augment: [{use: albumentations, ops: [{use: flip, q: 1}]}]",
        "1:51: augment[0].ops[0].q: unknown key 'q'; known: p, use",
    ),
    (
        "augment: [{use: albumentations, ops: [{use: crop, size: 3, scale: [1]}]}]",
        "1:60: augment[0].ops[0].scale: must have at least 2 items, got 1",
    ),
    (
        "augment: [{use: albumentations, either: {use: flip, p: 2}}]",
        "1:53: augment[0].either.p: must be at most 1, got 2",
    ),
    ("augment: [{use: albumentations, either: 3}]", "1:33: augment[0].either: expected a mapping, got 3"),
    # between keys
    (
        "schedule: {warmup_epochs: 20}\ntrain: {epochs: 10}",
        "1:12: schedule.warmup_epochs: 20 is more than train.epochs, which is 10",
    ),
    (
        "train: {epochs: 2}\nschedule: {use: step, warmup_epochs: 2.5}",
        "2:23: schedule.warmup_epochs: 2.5 is more than train.epochs, which is 2",
    ),
    ("image: {size: 256, resize: 224}", "1:9: image.size: 256 is more than image.resize, which is 224"),
    (
        "callbacks: [{use: checkpoint}, {use: checkpoint}]",
        "1:33: callbacks[1].use: duplicate 'checkpoint'; already at callbacks[0]",
    ),
    (
        "backbone: {weights: hub-v11}",
        "1:12: backbone.weights: no weights named 'hub-v11' for 'resnext50'; did you mean 'hub-v1.1'?",
    ),
    (
        "backbone: {weights: https://x.org/y.ckpt}",
        "1:12: backbone.weights: a URL needs the sha256 of its file; add '#sha256=HEX'",
    ),
    (
        "output: ~nobody-has-this-name/runs",
        "1:1: output: no home folder for '~nobody-has-this-name/runs'; write the full path",
    ),
    # what reading finds
    ("seed: 1\nseed: 2", "2:1: seed: duplicate key; the first one is on line 1"),
    ("seed: !!int '3'", "1:7: seed: tag '!!int' is not supported; write plain text, numbers, lists and mappings"),
    ("train: *x", "1:8: train: no anchor '&x' above '*x'"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_each_mistake_has_its_sentence(catalogue: Catalogue, text: str, message: str) -> None:
    mistakes = refused(catalogue, f"{text}\n{FOLDER}")
    assert len(mistakes) == 1, mistakes
    assert mistakes[0].startswith(f"recipe.yaml:{message}")


DATASETS = [
    ("seed: 1", "1:1: dataset: missing; the smallest recipe is 'dataset: {use: folder, root: photos/}'"),
    ("dataset: photos/", "1:1: dataset: expected a mapping, got 'photos/'; write {use: folder, root: photos/}"),
    ("dataset: {root: x}", "1:1: dataset.use: missing; choose one of: clash, failing, flowers102, folder"),
    ("dataset: {use: [folder]}", "1:11: dataset.use: expected text, got a list"),
    ("dataset: {use: folder}", "1:1: dataset.root: missing; dataset 'folder' needs it"),
    ("dataset: {use: foldr, root: x}", "1:11: dataset.use: no dataset named 'foldr'; did you mean 'folder'?"),
    ("dataset: {use: folder, rot: x, root: y}", "1:24: dataset.rot: unknown key 'rot'; did you mean 'root'?"),
    (
        "dataset: {use: folder, root: x, splitt: 0.1}",
        "1:33: dataset.splitt: unknown key 'splitt'; did you mean 'split'?",
    ),
    ("dataset: {use: folder, root: 3}", "1:24: dataset.root: expected text, got 3; put it in quotes"),
    (
        "dataset: {use: folder, root: x, index: 3}",
        "1:33: dataset.index: expected text or 'auto', got 3; put it in quotes",
    ),
    ("dataset: {use: folder, root: x, split: 2}", "1:33: dataset.split: must be less than 1, got 2"),
    ("dataset: {use: flowers102, roots: x}", "1:28: dataset.roots: unknown key 'roots'; did you mean 'root'?"),
]


@pytest.mark.parametrize(("text", "message"), DATASETS, ids=[text for text, _ in DATASETS])
def test_datasets_have_their_sentences(catalogue: Catalogue, text: str, message: str) -> None:
    assert refused(catalogue, text) == (f"recipe.yaml:{message}",)


def test_all_mistakes_at_once_in_the_order_of_the_file(catalogue: Catalogue) -> None:
    text = """\
optimizer: {lr: fast}
augment:
  - {use: albumentations, preset: 3}
dataset: {use: folder, rot: photos}
train: {epochs: 3, epochs: 4, batch: 8}
schedule: {warmup_epochs: 5}
seed: !x 1
"""
    assert refused(catalogue, text, "runner.amp=01", "callbacks[9].keep=1", "trian.epochs=5") == (
        "recipe.yaml:1:13: optimizer.lr: expected a number or 'auto', got 'fast'; did you mean 'auto'?",
        "recipe.yaml:3:27: augment[0].preset: expected 'light', 'standard' or 'heavy', got 3",
        "recipe.yaml:4:1: dataset.root: missing; dataset 'folder' needs it",
        "recipe.yaml:4:24: dataset.rot: unknown key 'rot'; did you mean 'root'?",
        "recipe.yaml:5:20: train.epochs: duplicate key; the first one is on line 5",
        "recipe.yaml:5:31: train.batch: unknown key 'batch'; did you mean 'batch_size'?",
        "recipe.yaml:6:12: schedule.warmup_epochs: 5 is more than train.epochs, which is 3",
        "recipe.yaml:7:7: seed: tag '!x' is not supported; write plain text, numbers, lists and mappings",
        "override 'runner.amp=01': runner.amp: expected 'auto', 'off' or 'O2', got '01'",
        "override 'callbacks[9].keep=1': 'callbacks' has items [0] to [1] only",
        "override 'trian.epochs=5': trian: unknown key 'trian'; did you mean 'train'?",
    )


@pytest.mark.parametrize("number", ["9" * 300, "-" + "9" * 300, "9" * 390, "9" * 4000, "0x" + "f" * 300, "1e308"])
@pytest.mark.parametrize("key", ["seed", "train.epochs", "optimizer.lr", "schedule.warmup_epochs", "image.size"])
def test_huge_numbers(catalogue: Catalogue, key: str, number: str) -> None:
    Path("recipe.yaml").write_text(FOLDER)
    mistakes = mistakes_of(catalogue, Path("recipe.yaml"), f"{key}={number}", "image.resize=16")
    assert all(len(mistake) < 500 for mistake in mistakes)


def test_a_flood_of_mistakes_is_cut(catalogue: Catalogue) -> None:
    mistakes = refused(catalogue, FOLDER + "".join(f"k{i}: 1\n" for i in range(4000)))
    assert len(mistakes) == 101
    assert mistakes[-1] == "and 3900 more mistakes"


def test_the_smallest_recipe(catalogue: Catalogue, folder: Path) -> None:
    plan = planned(catalogue, FOLDER)
    assert plan.backbone.component.name == "resnext50"
    assert plan.dataset.options == Files(root=folder / "photos")
    assert [augment.component.name for augment in plan.augment] == ["albumentations"]
    assert plan.freezer.component.name == "head"
    assert [callback.component.name for callback in plan.callbacks] == ["tensorboard", "checkpoint"]
    assert plan.recipe.output == folder / "runs"
    assert plan.recipe.name == "recipe"
    assert plan.recipe.dataset.given["valid"] is None, "the recipe is complete"


def test_values_keep_their_meaning(catalogue: Catalogue) -> None:
    text = """\
backbone: {weights: none}
head: {dropout: 0}
image: {size: 64, resize: auto, mean: [0, 0.5, 1], keep_aspect: false}
augment:
  - {use: albumentations, ops: [{use: crop, size: 3}, {use: flip}], either: {use: flip, p: 1}}
freeze: {use: gradual, schedule: {1: head, 4: [layer4, head]}}
loss: {class_weights: {1: 2, no: 0.5}}
optimizer: {lr: 1e-3}
schedule: {use: step, every: 2}
train: {clip_norm: 1}
runner: {amp: off}
callbacks: []
"""
    plan = planned(catalogue, text + FOLDER)
    recipe = plan.recipe
    assert (recipe.backbone.weights, recipe.head.use, recipe.head.dropout) == ("none", "linear", 0.0)
    assert (recipe.image.size, recipe.image.mean, recipe.image.keep_aspect) == (64, (0.0, 0.5, 1.0), False)
    assert plan.augment[0].options == Images(
        ops=(Crop(use="crop", size=3), Flip(use="flip")), either=Flip(use="flip", p=1.0)
    )
    assert plan.freezer.options == Gradual(schedule={1: "head", 4: ("layer4", "head")})
    assert recipe.loss.class_weights == {"1": 2.0, "no": 0.5}
    assert (recipe.optimizer.use, recipe.optimizer.lr, recipe.train.clip_norm) == ("adamw", 0.001, 1.0)
    assert (recipe.schedule.use, recipe.runner.amp, plan.callbacks) == ("step", "off", ())


class TestPaths:
    def test_start_where_they_are_written(self, catalogue: Catalogue, folder: Path, home: Path) -> None:
        (folder / "sub" / "work").mkdir(parents=True)
        text = (
            "dataset: {use: folder, root: ../a/../photos, valid: ~/valid, index: index.csv,\n"
            "  more: [b, /c], named: {d: e}}\nbackbone: {weights: w.ckpt}\noutput: out\n"
        )
        (folder / "sub" / "recipe.yaml").write_text(text)
        os.chdir(folder / "sub" / "work")
        plan = load_plan(Path("../recipe.yaml"), ["dataset.named.x=../y"], catalogue)
        assert plan.dataset.options == Files(
            root=folder / "photos",
            valid=home / "valid",
            index=folder / "sub" / "index.csv",
            more=(folder / "sub" / "b", Path("/c")),
            named={"d": folder / "sub" / "e", "x": folder / "sub" / "y"},
        )
        assert plan.recipe.backbone.weights == str(folder / "sub" / "w.ckpt")
        assert plan.recipe.output == folder / "sub" / "out"

    def test_of_overrides_mappings_and_defaults_start_here(
        self, catalogue: Catalogue, folder: Path, home: Path
    ) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "recipe.yaml").write_text("dataset: {use: flowers102}")
        plan = load_plan(Path("sub/recipe.yaml"), [], catalogue)
        assert plan.dataset.options == Flowers(root=home / "flowers")
        assert plan.recipe.output == folder / "runs"
        plan = load_plan(Path("sub/recipe.yaml"), ["dataset={use: folder, root: x}", "output=y"], catalogue)
        assert plan.dataset.options == Files(root=folder / "x")
        assert plan.recipe.output == folder / "y"
        plan = load_plan({"dataset": {"use": "folder", "root": Path("x")}, "output": "~/y"}, [], catalogue)
        assert plan.dataset.options == Files(root=folder / "x")
        assert plan.recipe.output == home / "y"

    def test_of_standard_input_start_here(
        self, catalogue: Catalogue, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FOLDER.encode())))
        plan = load_plan("-", ["train.epochs=2"], catalogue)
        assert plan.dataset.options == Files(root=folder / "photos")
        assert (plan.recipe.name, plan.recipe.train.epochs) == ("run", 2)

    @pytest.mark.parametrize(
        ("weights", "kept"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("hub-v1.1", "hub-v1.1"),
            (f"https://x.org/y.ckpt#sha256={'0' * 64}", f"https://x.org/y.ckpt#sha256={'0' * 64}"),
            ("w.safetensors", "{folder}/w.safetensors"),
            ("sub/w", "{folder}/sub/w"),
            ("~/w.md", "{home}/w.md"),
        ],
    )
    def test_of_weights(self, catalogue: Catalogue, folder: Path, home: Path, weights: str, kept: str) -> None:
        plan = planned(catalogue, f"backbone: {{weights: '{weights}'}}\n{FOLDER}")
        assert plan.recipe.backbone.weights == kept.format(folder=folder, home=home)

    @pytest.fixture
    def home(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
        home = tmp_path_factory.mktemp("home")
        monkeypatch.setenv("HOME", str(home))
        return home


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("flowers102.yaml", "flowers102"),
        ("my photos (2).yaml", "my-photos-2"),
        ("花.yaml", "花"),
        ("---.yaml", "run"),
        ("x" * 200 + ".yaml", "x" * 80),
    ],
)
def test_a_recipe_is_named_after_its_file(catalogue: Catalogue, file: str, name: str) -> None:
    Path(file).write_text(FOLDER)
    assert load_plan(Path(file), [], catalogue).recipe.name == name
    assert load_plan(Path(file), ["name=other"], catalogue).recipe.name == "other"


def test_lists_that_the_recipe_leaves_out_can_be_changed(catalogue: Catalogue) -> None:
    plan = planned(
        catalogue, FOLDER, "augment[0].preset=light", "callbacks[1]={use: early_stopping}", "callbacks[1].patience=2"
    )
    assert plan.augment[0].options == Images(preset="light")
    assert [callback.component.name for callback in plan.callbacks] == ["tensorboard", "early_stopping"]
    assert plan.callbacks[1].options == Patience(patience=2)
    assert planned(catalogue, FOLDER, "callbacks=[]").callbacks == ()


ROUND_TRIPS: list[tuple[str, tuple[str, ...]]] = [
    (FOLDER, ()),
    ("dataset: {use: flowers102}\nbackbone: {weights: ../w.ckpt}\noutput: ~/x\n", ("seed=7", "optimizer.lr=1e-8")),
    ("freeze: {use: gradual, schedule: {1: head, 4: [layer4, head], 8: all}}\n" + FOLDER, ()),
    (FOLDER, ("loss.class_weights={1: 2, 010: 3, no: 1e-30, 'a b': 1, \"x: y\": 1}", "dataset.named.1=x")),
    (
        FOLDER,
        ("augment=[{use: albumentations, ops: [{use: crop, size: 3}, {use: flip}], either: {use: crop, size: 1}}]",),
    ),
    (
        FOLDER,
        ("callbacks=[]", "augment=[]", "train.ema=0.999", "head.use=mlp", "schedule.use=constant", "optimizer.use=sgd"),
    ),
    (FOLDER, ("dataset.root='1e3'", "name=no", "image.mean=[0, 0.1, 1]", "image.keep_aspect=true")),
]


@pytest.mark.parametrize(("text", "overrides"), ROUND_TRIPS)
def test_a_plan_written_down_loads_as_the_same_plan(
    catalogue: Catalogue, tmp_path: Path, text: str, overrides: tuple[str, ...]
) -> None:
    plan = planned(catalogue, text, *overrides)
    written = dump_plan(plan)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.yaml").write_text(written, encoding="utf-8")
    os.chdir("/")
    again = load_plan(tmp_path / "elsewhere" / "other.yaml", [], catalogue)
    assert again == plan
    assert dump_plan(again) == written
    (tmp_path / "elsewhere" / "said.yaml").write_text(dump_given(plan), encoding="utf-8")
    same = load_plan(tmp_path / "elsewhere" / "said.yaml", [], catalogue)
    assert (same, same.notes) == (plan, plan.notes)
    assert same.recipe.dataset.model_fields_set == plan.recipe.dataset.model_fields_set
    assert "split" not in same.recipe.dataset.model_fields_set
    assert "split" in again.recipe.dataset.model_fields_set


def test_a_written_plan_is_complete(catalogue: Catalogue, folder: Path) -> None:
    text = dump_plan(planned(catalogue, "freeze: {use: gradual, schedule: {1: head}}\n" + FOLDER))
    for part in (
        f"root: {folder}/photos",
        "    1: head\n",
        "betas: [0.9, 0.999]",
        f"output: {folder}/runs",
        "seed: 42",
    ):
        assert part in text


def test_options_that_the_engine_reads_itself_are_a_plugin_error(catalogue: Catalogue) -> None:
    with pytest.raises(PluginError, match=r"plugin 'some' \(tests 1\): dataset 'clash' has an option 'split'"):
        planned(catalogue, "dataset: {use: clash}")


def test_options_that_fail_are_a_plugin_error(catalogue: Catalogue) -> None:
    with pytest.raises(
        PluginError, match=r"plugin 'some' \(tests 1\) failed in the options of dataset 'failing': KeyErr"
    ):
        planned(catalogue, "dataset: {use: failing, x: 3}")


SECTIONS = [
    *Plan.__dataclass_fields__,
    "extends",
    "head",
    "image",
    "loss",
    "optimizer",
    "schedule",
    "train",
    "augment",
    "freeze",
]
KEYS = st.sampled_from([*SECTIONS, "use", "root", "size", "ops", "epochs", "lr", "betas", "schedule", "class_weights"])
WORDS = st.sampled_from(["folder", "albumentations", "gradual", "crop", "auto", "none", "head", "mlp", "sgd", "~x", ""])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5),
    max_leaves=25,
)


def mistakes_of(catalogue: Catalogue, source: Path | dict[str, Any], *overrides: str) -> tuple[str, ...]:
    """Return what is wrong, at least one thing unless there is a plan."""
    try:
        load_plan(source, overrides, catalogue)
        return ()
    except RecipeError as error:
        mistakes = error.mistakes
    assert mistakes
    return mistakes


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.booleans())
def test_any_recipe_is_a_plan_or_a_recipe_error(catalogue: Catalogue, values: dict[str, Any], whole: bool) -> None:
    recipe = {**values, "dataset": {"use": "folder", "root": "x"}} if whole else values
    assert all(line == escape_line(line) for line in mistakes_of(catalogue, recipe))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(alphabet="ab:1 -[]{},&*!|>'\"%#\n", max_size=80) | st.dictionaries(KEYS, VALUES).map(repr))
def test_any_text_is_a_plan_or_a_recipe_error(catalogue: Catalogue, text: str) -> None:
    Path("recipe.yaml").write_bytes(text.encode("utf-8", "replace"))
    mistakes_of(catalogue, Path("recipe.yaml"), "train.epochs=2")


def test_a_recipe_loads_in_a_moment(catalogue: Catalogue) -> None:
    text = dump_plan(planned(catalogue, FOLDER))
    planned(catalogue, text)
    assert least_processor_time(lambda: planned(catalogue, text), 0.15) < 0.15


@pytest.mark.parametrize("section", ["loss: {class_weights: {%s}}", "train: {%s}", "%s"])
def test_the_largest_wrong_recipe_takes_less_than_a_second(catalogue: Catalogue, section: str) -> None:
    separator = "\n" if section == "%s" else ", "
    text = section % separator.join(f"k{i}: x" for i in range(4990)) + "\n" + FOLDER
    assert least_processor_time(lambda: refused(catalogue, text), 1.0) < 1.0


def test_planning_imports_nothing_heavy() -> None:
    heavy = ("mindspore", "numpy", "albumentations", "cv2", "PIL", "scipy", "tensorboardX", "requests")
    script = (
        f"import sys, finetune.recipe.plan, finetune.recipe.schema; print(*[m for m in {heavy} if m in sys.modules])"
    )
    repo = str(Path(__file__).resolve().parents[1])
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=repo)
    assert result.stdout.split() == []


def test_another_device_leaves_the_options_of_the_one_before_behind(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "npu.yaml"
    file.write_text(f"dataset: {{use: folder, root: {tmp_path}}}\nrunner: {{device: ascend, memory_gb: 30, amp: O2}}\n")
    runner = load_plan(file, ["runner.device=cpu", "runner.threads=4"], catalogue).recipe.runner
    assert (runner.device, runner.amp, runner.model_dump()["threads"]) == ("cpu", "O2", 4)
