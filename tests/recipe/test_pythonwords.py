"""Errors that reach Python say what to do in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import FinetuneError, Finetuner, UsageError
from finetune.recipe.keywords import translate_to_python

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write train.batch_size=8", 'write train={"batch_size": 8}'),
        ("write head.keep_pretrained=false for a new head", 'write head={"keep_pretrained": False} for a new head'),
        ("consider loss.class_weights=auto", 'consider loss={"class_weights": "auto"}'),
        ("set backbone.weights='own file.ckpt'", 'set backbone={"weights": "own file.ckpt"}'),
        ("add freeze.train=[last, head]; x", 'add freeze={"train": ["last", "head"]}; x'),
        ("freeze.schedule={1: head, 3: all}", 'freeze={"schedule": {1: "head", 3: "all"}}'),
        ("a list of stages such as [last 2]", 'a list of stages such as ["last 2"]'),
        ("expected a list, got 'last'; write [last]", "expected a list, got 'last'; write [\"last\"]"),
        ("lower train.batch_size", 'lower train={"batch_size": …}'),
        ("raise train.epochs, which is 4", 'raise train={"epochs": …}, which is 4'),
        ("write {use: linear}", 'write {"use": "linear"}'),
        ("callbacks: x; write [{use: checkpoint}]", 'callbacks: x; write [{"use": "checkpoint"}]'),
        ("is 'dataset: {use: folder, root: photos/}'", 'is \'dataset={"use": "folder", "root": "photos/"}\''),
        ("write weights: none for a random start", 'write weights="none" for a random start'),
        ("or write use: constant", 'or write {"use": "constant"}'),
        ("got 'no'; write false", "got 'no'; write False"),
        ("or add --allow-changed", "or add allow_changed=True"),
        ("choose another with --output", 'choose another with output="FOLDER"'),
        ("finish it with: finetune run --resume runs/a-001", 'finish it with: fit(…, resume="runs/a-001")'),
        # What is no remedy stays as it is: positions, parameters, files, prose.
        ("recipe: train.epochs: must be at least 0, got -1", "recipe: train.epochs: must be at least 0, got -1"),
        ("'head.fc.weight' has shape (3, 4)", "'head.fc.weight' has shape (3, 4)"),
        ("set head.fc to zero", "set head.fc to zero"),
        ("no image in 'image.jpg'", "no image in 'image.jpg'"),
        ("more than train.epochs, which is 3", "more than train.epochs, which is 3"),
    ],
)
def test_remedies_in_python(text: str, expected: str) -> None:
    assert translate_to_python(text) == expected
    assert translate_to_python(expected) == expected, "a second time changes nothing"


PHOTOS = ([np.full((32, 32, 3), value, np.uint8) for value in range(0, 240, 20)], ["a", "b", "c"] * 4)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"runner": "cpu"}, 'runner: expected a mapping, got \'cpu\'; write {"device": "cpu"}'),
        ({"head": {"keep_pretrained": True}}, 'set head={"keep_pretrained": False} for a new head'),
        ({"train": {"epochs": 2}, "freeze": {"use": "gradual", "schedule": {"2": "all"}}}, 'such as {1: "head"}'),
        ({"image": {"size": 64, "resize": 32}}, "image.size: 64 is more than image.resize, which is 32"),
    ],
)
def test_errors_of_fit(sections: dict[str, Any], said: str, tmp_path: Path) -> None:
    ft = Finetuner("resnext_nano", weights="none", output=tmp_path / "runs", progress=False)
    with pytest.raises(FinetuneError) as caught:
        ft.fit(PHOTOS, **sections)
    assert said in str(caught.value)


def test_errors_of_load(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match=r'is not finished; finish it with: fit\(…, resume="'):
        Finetuner.load(tmp_path)
