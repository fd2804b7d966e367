"""Every sentence about what is wrong in a recipe, with its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.recipe.planning import (
    FOLDER,
    build_catalogue,
    mistakes_of,
    refused,
)

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, so that messages begin with ``recipe.yaml``."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    (
        "1: 2",
        "1:1: 1: unknown key '1'; known: audit, augment, backbone, cache, callbacks, dataset, evaluate, extends, ",
    ),
    ('"a b": 2', "1:1: \"a b\": unknown key 'a b'; known: audit, augment, backbone"),
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
