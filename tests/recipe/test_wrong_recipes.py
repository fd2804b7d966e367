"""Forty wrong recipes: all that is said of each, with file, line and column, in a moment and without MindSpore.

What single keys say of wrong values is in ``test_plan_mistakes.py``, what YAML says in ``test_document.py``; here are
complete recipes as people write them, with the bundled components, and what the JSON schema makes of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.errors import RecipeError
from finetune.recipe.document import read_recipe
from finetune.recipe.schema import build_json_schema
from tests.cli.calling import environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SECONDS = 1.0


@dataclass(frozen=True)
class Wrong:
    """A recipe, what is said of it without the file's name where it is its own, and whether a schema can refuse it."""

    text: str
    said: tuple[str, ...]
    schema: bool = True


def wrong(text: str, *said: str, schema: bool = True) -> Wrong:
    return Wrong(text.strip("\n") + "\n", said, schema)


# What some of the recipes extend.
BASES = {
    "good.yaml": "dataset: {use: folder, root: photos}\nfreeze: {use: gradual, schedule: {1: head, 3: all}}\n",
    "bad.yaml": "dataset: {use: folder, rot: photos}\ntrain: {epochs: many}\n",
    "circle.yaml": "extends: circle.yaml\n",
    "torn.yaml": "dataset: {use: folder\n",
}
PHOTOS = "dataset: {use: folder, root: photos}\n"

KNOWN = "known: all, head, last, last 2, layer1, layer2, layer3, layer4, stem"
RECIPES: dict[str, Wrong] = {
    # names that nearly fit
    "section": wrong(
        "datset: {use: folder, root: photos}",
        "1:1: dataset: missing; the smallest recipe is 'dataset: {use: folder, root: photos/}'",
        "1:1: datset: unknown key 'datset'; did you mean 'dataset'?",
    ),
    "key of another section": wrong(
        PHOTOS + "train: {lr: 1e-3, batchsize: 16}",
        "2:9: train.lr: unknown key 'lr'; did you mean 'optimizer.lr'?",
        "2:19: train.batchsize: unknown key 'batchsize'; did you mean 'batch_size'?",
    ),
    "backbone": wrong(
        "backbone: {use: resnet50}\ndataset: {use: folder, root: photos}",
        "1:12: backbone.use: no backbone named 'resnet50'; did you mean 'resnext50'?",
    ),
    "dataset": wrong(
        "dataset: {use: flower102}",
        "1:11: dataset.use: no dataset named 'flower102'; did you mean 'flowers102'?",
    ),
    "freezer": wrong(
        PHOTOS + "freeze: {use: gradualy}",
        "2:10: freeze.use: no freezer named 'gradualy'; did you mean 'gradual'?",
    ),
    "callback": wrong(
        PHOTOS + "callbacks:\n  - use: early_stoping\n    patience: 3",
        "3:5: callbacks[0].use: no callback named 'early_stoping'; did you mean 'early_stopping'?",
    ),
    "weights": wrong(
        "backbone: {use: resnext50, weights: hub-1.1}\ndataset: {use: folder, root: photos}",
        "1:28: backbone.weights: no weights named 'hub-1.1' for 'resnext50'; did you mean 'hub-v1.1'?",
        schema=False,
    ),
    "option of a dataset": wrong(
        "dataset: {use: csv, fil: photos.csv, label: species}",
        "1:1: dataset.file: missing; dataset 'csv' needs it",
        "1:21: dataset.fil: unknown key 'fil'; did you mean 'file'?",
        (
            "1:38: dataset.label: unknown key 'label'; "
            "known: corrections, file, group_column, groups, label_column, on_bad_image, path_column, root, split, "
            "split_column, use"
        ),
    ),
    "option of another dataset": wrong(
        "dataset: {use: folder, file: photos.csv}",
        "1:1: dataset.root: missing; dataset 'folder' needs it",
        "1:24: dataset.file: unknown key 'file'; did you mean 'dataset.file' with 'use: csv'?",
    ),
    "option of a head": wrong(
        PHOTOS + "head: {use: mlp, hidden_size: 256}",
        "2:18: head.hidden_size: unknown key 'hidden_size'; did you mean 'hidden'?",
    ),
    "metric": wrong(
        PHOTOS + "evaluate: {metric: acuracy}",
        (
            "2:12: evaluate.metric: expected 'auto', 'accuracy', 'top5', 'macro_f1' or 'loss', got 'acuracy'; "
            "did you mean 'accuracy'?"
        ),
    ),
    "device": wrong(
        PHOTOS + "runner: {device: cuda}",
        "2:10: runner.device: no device named 'cuda'; known: ascend, auto, cpu, gpu",
    ),
    # stages, by name, by pattern and by epoch
    "stage of a schedule": wrong(
        PHOTOS + "freeze: {use: gradual, schedule: {1: head, 4: layr4}}",
        "2:44: freeze.schedule.4: no stage named 'layr4'; did you mean 'layer4'?",
        schema=False,
    ),
    "stage of another network": wrong(
        PHOTOS + "freeze: {use: gradual, schedule: {1: fc, 3: conv5}}",
        f"2:35: freeze.schedule.1: no stage named 'fc'; {KNOWN}",
        f"2:42: freeze.schedule.3: no stage named 'conv5'; {KNOWN}",
        schema=False,
    ),
    "stage to train": wrong(
        PHOTOS + "freeze: {use: stages, train: [layer3, layer44, classifier]}",
        "2:39: freeze.train[1]: no stage matches 'layer44'; did you mean 'layer4'?",
        f"2:48: freeze.train[2]: no stage matches 'classifier'; {KNOWN}",
        schema=False,
    ),
    "pattern that matches nothing": wrong(
        PHOTOS + 'freeze: {use: stages, frozen: [stem, "layer[5-9]", "bn*"]}',
        "2:38: freeze.frozen[1]: no stage matches 'layer[5-9]'; did you mean 'layer4'?",
        f"2:52: freeze.frozen[2]: no stage matches 'bn*'; {KNOWN}",
        schema=False,
    ),
    "nothing left to train": wrong(
        PHOTOS + 'freeze: {use: stages, frozen: ["*"]}',
        "2:23: freeze.frozen: leaves nothing to train; do not freeze the head",
        schema=False,
    ),
    "schedule that begins late": wrong(
        PHOTOS + "freeze: {use: gradual, schedule: {3: head, 5: all}}",
        "2:24: freeze.schedule: the schedule starts with epoch 3; start it with epoch 1, such as {1: head}",
        schema=False,
    ),
    "schedule for another freezer": wrong(
        PHOTOS + "freeze: {use: head, schedule: {1: head}}",
        (
            "2:21: freeze.schedule: unknown key 'schedule'; "
            "did you mean 'freeze.schedule' with 'use: gradual' or 'schedule' at the top?"
        ),
    ),
    "train and frozen": wrong(
        PHOTOS + "freeze: {use: stages, train: [layer4], frozen: [stem]}",
        "2:1: freeze: give either 'train' or 'frozen', a list of stages such as [last 2]",
        schema=False,
    ),
    # augmentation
    "transform": wrong(
        PHOTOS + "augment:\n  - use: albumentations\n    ops: [HorizontalFlipp, {RandomCropp: {height: 9}}]",
        "4:11: augment[0].ops[0]: no transform 'HorizontalFlipp' in albumentations; did you mean 'HorizontalFlip'?",
        "4:28: augment[0].ops[1]: no transform 'RandomCropp' in albumentations; did you mean 'RandomCrop'?",
    ),
    "transform inside another": wrong(
        PHOTOS + "augment:\n  - use: albumentations\n    ops:\n      - OneOf:\n          transforms:"
        "\n            - Blurr\n            - {ToGrey: {p: 1}}",
        "7:15: augment[0].ops[0].OneOf.transforms[0]: no transform 'Blurr' in albumentations; did you mean 'Blur'?",
        "8:15: augment[0].ops[0].OneOf.transforms[1]: no transform 'ToGrey' in albumentations; did you mean 'ToGray'?",
        schema=False,
    ),
    "two transforms in one": wrong(
        PHOTOS + "augment:\n  - {use: albumentations, ops: [{Blur: {}, ToGray: {}}]}",
        "3:5: augment[0]: ops[0] has 2 keys; give one, such as {HorizontalFlip: {p: 0.5}}",
    ),
    "preset": wrong(
        PHOTOS + "augment: [{use: albumentations, preset: standart}]",
        (
            "2:33: augment[0].preset: expected 'none', 'light', 'standard' or 'strong', got 'standart'; "
            "did you mean 'standard'?"
        ),
    ),
    "preset and ops": wrong(
        PHOTOS + "augment: [{use: albumentations, preset: light, ops: [Blur]}]",
        "2:11: augment[0]: preset 'light' conflicts with ops; remove one of them",
        schema=False,
    ),
    "augment as a mapping": wrong(
        PHOTOS + "augment: {use: albumentations}",
        "2:1: augment: expected a list, got a mapping; put '- ' before each item",
    ),
    # values
    "percent": wrong(
        "dataset: {use: folder, root: photos, split: 20%}",
        "1:38: dataset.split: expected a number or 'auto', got '20%'",
    ),
    "quotes": wrong(
        PHOTOS + 'optimizer: {lr: "1e-3"}\ntrain: {epochs: "5"}',
        "2:13: optimizer.lr: expected a number or 'auto', got '1e-3'; remove the quotes",
        "3:9: train.epochs: expected a whole number or 'auto', got '5'; remove the quotes",
    ),
    "comma": wrong(
        PHOTOS + "optimizer: {lr: 0,001}",
        "2:13: optimizer.lr: must be more than 0, got 0",
        "2:19: optimizer.001: unknown key '001'; known: betas, eps, layer_decay, lr, use, weight_decay",
    ),
    "out of bounds": wrong(
        PHOTOS + "seed: -1\ntrain: {epochs: -1, ema: 1.0}\nhead: {dropout: 1}",
        "2:1: seed: must be at least 0, got -1",
        "3:9: train.epochs: must be at least 0, got -1",
        "3:21: train.ema: must be less than 1, got 1.0",
        "4:8: head.dropout: must be less than 1, got 1",
    ),
    "sizes that do not fit": wrong(
        PHOTOS + "image: {size: 288, resize: 256}",
        "2:9: image.size: 288 is more than image.resize, which is 256",
        schema=False,
    ),
    "warm-up longer than the run": wrong(
        PHOTOS + "train: {epochs: 3}\nschedule: {warmup_epochs: 5}",
        "3:12: schedule.warmup_epochs: 5 is more than train.epochs, which is 3",
        schema=False,
    ),
    "link without a hash": wrong(
        "backbone: {weights: https://example.org/net.ckpt}\ndataset: {use: folder, root: photos}",
        "1:12: backbone.weights: a URL needs the sha256 of its file; add '#sha256=HEX'",
        schema=False,
    ),
    "option of another device": wrong(
        PHOTOS + "runner: {device: cpu, memory_gb: 8}",
        (
            "2:23: runner.memory_gb: unknown key 'memory_gb'; "
            "did you mean 'runner.memory_gb' with 'device: gpu' or 'runner.memory_gb' with 'device: ascend'?"
        ),
    ),
    # layout
    "tab": wrong(
        "dataset:\n\tuse: folder",
        "2:1: a tab character; use spaces",
    ),
    "no space after a colon": wrong(
        "dataset: {use:folder, root:photos}",
        "1:1: dataset.use: missing; put a space after the ':' of 'use:folder'",
    ),
    "key given twice": wrong(
        PHOTOS + "train: {epochs: 3}\nseed: 1\ntrain: {batch_size: 8}",
        "4:1: train: duplicate key; the first one is on line 2",
        schema=False,
    ),
    "text alone": wrong(
        "photos/",
        "1:1: a recipe is a mapping such as 'dataset: {use: folder, root: photos/}', not text",
    ),
    # extends
    "base that is not there": wrong(
        "extends: god.yaml\ntrain: {epochs: 3}",
        "1:1: extends: no file 'god.yaml' in FOLDER; did you mean 'good.yaml'?",
        schema=False,
    ),
    "base with mistakes": wrong(
        "extends: bad.yaml\ntrain: {epoch: 3}\nfreeze: {schedule: {1: head}}",
        "2:9: train.epoch: unknown key 'epoch'; did you mean 'epochs'?",
        (
            "3:10: freeze.schedule: unknown key 'schedule'; "
            "did you mean 'freeze.schedule' with 'use: gradual' or 'schedule' at the top?"
        ),
        "bad.yaml:1:1: dataset.root: missing; dataset 'folder' needs it",
        "bad.yaml:1:24: dataset.rot: unknown key 'rot'; did you mean 'root'?",
        "bad.yaml:2:9: train.epochs: expected a whole number or 'auto', got 'many'",
    ),
    "circle": wrong(
        "extends: circle.yaml",
        (
            "circle.yaml:1:1: extends: 'circle.yaml' leads back to itself: circle.yaml -> circle.yaml; "
            "remove 'extends' from one of them"
        ),
        schema=False,
    ),
    "base that cannot be read": wrong(
        "extends: torn.yaml\nseed: 1\nseed: 2",
        "3:1: seed: duplicate key; the first one is on line 2",
        "torn.yaml:1:10: unclosed bracket; add the closing bracket",
        schema=False,
    ),
    "other freezer than the base": wrong(
        "extends: good.yaml\nfreeze: {use: head, schedule: {1: all}}\ntrain: {epoch: 2}",
        (
            "2:21: freeze.schedule: unknown key 'schedule'; "
            "did you mean 'freeze.schedule' with 'use: gradual' or 'schedule' at the top?"
        ),
        "3:9: train.epoch: unknown key 'epoch'; did you mean 'epochs'?",
    ),
    "bundled recipe": wrong(
        "extends: flower\ndataset: {use: folder, root: photos}",
        "1:1: extends: no bundled recipe named 'flower'; did you mean 'flowers'?",
        schema=False,
    ),
}

CHECK = """
import json, sys, time
from pathlib import Path
from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.errors import RecipeError
from finetune.recipe.plan import load_plan

found = {}
for number, text in enumerate(json.load(sys.stdin)):
    Path("recipe.yaml").write_text(text)
    start = time.process_time()
    try:
        load_plan(Path("recipe.yaml"), [], Catalogue(plugins.load_plugins()))
    except RecipeError as error:
        found[number] = [time.process_time() - start, error.mistakes]
print(json.dumps([list(found.values()), [name for name in ("mindspore", "albumentations") if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the recipes that others extend."""
    folder = tmp_path_factory.mktemp("wrong").resolve()
    for name, text in BASES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def answers(place: Path, repo: Path) -> tuple[dict[str, Any], list[str]]:
    """Return seconds and mistakes for each recipe, and which large libraries it took to find them."""
    texts = json.dumps([each.text for each in RECIPES.values()])
    command = [sys.executable, "-P", "-c", CHECK]
    done = subprocess.run(
        command, cwd=place, env=environment(repo), input=texts, capture_output=True, text=True, check=True
    )
    found, imported = json.loads(done.stdout)
    return dict(zip(RECIPES, found, strict=True)), imported


@pytest.mark.parametrize("name", RECIPES)
def test_all_that_is_wrong_is_said(name: str, answers: tuple[dict[str, Any], list[str]], place: Path) -> None:
    seconds, mistakes = answers[0][name]
    names = (f"recipe.yaml:{each}" if each[0].isdigit() else each for each in RECIPES[name].said)
    assert mistakes == [each.replace("FOLDER", str(place)) for each in names]
    assert seconds < SECONDS


def test_there_are_forty_and_no_large_library_is_needed(answers: tuple[dict[str, Any], list[str]]) -> None:
    assert len(answers[0]) >= 40
    assert answers[1] == []


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    return Draft202012Validator(build_json_schema(Catalogue(plugins.load_plugins())))


@pytest.mark.parametrize("name", RECIPES)
def test_a_schema_refuses_what_it_can(name: str, schema: Draft202012Validator, place: Path) -> None:
    (place / "seen.yaml").write_text(RECIPES[name].text)
    try:
        values = read_recipe(place / "seen.yaml").values
    except RecipeError:
        assert RECIPES[name].schema, "an editor refuses what is not YAML, and no mapping"
        return
    assert schema.is_valid(values) is not RECIPES[name].schema
