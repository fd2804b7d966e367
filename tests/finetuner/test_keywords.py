"""How keyword arguments of a Finetuner become sections of a recipe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.recipe import keywords
from finetune.recipe import plan as plans

if TYPE_CHECKING:
    from pathlib import Path


def test_sections_are_merged_key_by_key_while_they_use_the_same() -> None:
    base = {"optimizer": {"lr": 1.0}, "freeze": {"use": "gradual", "schedule": {1: "all"}, "batch_norm": "frozen"}}
    assert keywords.merge_sections(base, {"optimizer": {"weight_decay": 0.0}})["optimizer"] == {
        "lr": 1.0,
        "weight_decay": 0.0,
    }
    assert keywords.merge_sections(base, {"optimizer": {"use": "adamw"}})["optimizer"] == {"lr": 1.0, "use": "adamw"}
    assert keywords.merge_sections(base, {"optimizer": {"use": "sgd"}})["optimizer"] == {"use": "sgd"}
    assert keywords.merge_sections(base, {"freeze": {"use": "head"}})["freeze"] == {
        "use": "head",
        "batch_norm": "frozen",
    }
    assert keywords.merge_sections(base, {"seed": 2}) == {**base, "seed": 2}


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
    catalogue = Catalogue(plugins.load_plugins())
    file = tmp_path / "same.yaml"
    file.write_text(json.dumps(said))
    from_file = plans.load_plan(file, keywords.make_overrides(over), catalogue)
    assert from_file.recipe == plans.load_plan(keywords.merge_sections(said, over), [], catalogue).recipe


def test_short_forms() -> None:
    said = {
        "head": "mlp",
        "augment": "albumentations",
        "callbacks": ["checkpoint", {"use": "tensorboard"}],
        "name": "x",
    }
    assert keywords.expand_short_forms(said) == {
        "head": {"use": "mlp"},
        "augment": [{"use": "albumentations"}],
        "callbacks": [{"use": "checkpoint"}, {"use": "tensorboard"}],
        "name": "x",
    }
