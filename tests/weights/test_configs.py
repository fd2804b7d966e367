"""Preprocessing in the words of other projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune.weights import preprocessing

if TYPE_CHECKING:
    from pathlib import Path

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"input_size": [3, 224, 224], "crop_pct": 0.95}, {"size": 224, "resize": 235, "keep_aspect": True}),
        ({"input_size": [3, 224, 224]}, {"size": 224, "resize": 224, "keep_aspect": True}),
        (
            {"input_size": [3, 288, 288], "crop_pct": 1.0, "crop_mode": "squash"},
            {"size": 288, "resize": 288, "keep_aspect": False},
        ),
        ({"size": 224}, {"size": 224, "resize": 224, "keep_aspect": True}),
        ({"size": {"height": 224, "width": 224}}, {"size": 224, "resize": 224, "keep_aspect": False}),
        ({"size": {"shortest_edge": 256}, "crop_size": 224}, {"size": 224, "resize": 256, "keep_aspect": True}),
        ({"image_size": 384}, {"size": 384, "resize": 384, "keep_aspect": True}),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, HALF),
        ({"mean": [127.5] * 3, "std": [127.5] * 3}, HALF),
        (
            {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}},
            {**HALF, "interpolation": "bicubic"},
        ),
        (
            {"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "resample": 2},
            {"mean": (0,) * 3, "std": (1,) * 3, "interpolation": "bilinear"},
        ),
    ],
)
def test_what_is_known(said: dict[str, Any], found: dict[str, Any]) -> None:
    assert preprocessing.from_config(said) == found


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"size": True},
        {"size": 1e9},
        {"size": "224"},
        {"size": [224, 196]},
        {"size": {"shortest_edge": None}},
        {"input_size": [3, 0, 0]},
        {"mean": [0.5, 0.5, 0.5]},
        {"mean": [0.5] * 3, "std": [0.0] * 3},
        {"mean": [0.5] * 3, "std": [-1.0] * 3},
        {"mean": [0.5], "std": [0.5]},
        {"mean": [float("nan")] * 3, "std": [0.5] * 3},
        {"mean": [500.0] * 3, "std": [1.0] * 3},
        {"mean": "0.5", "std": {"a": 1}},
        {"pretrained_cfg": [1]},
    ],
)
def test_what_is_not_known_says_nothing(said: dict[str, Any]) -> None:
    assert preprocessing.from_config(said) == {}


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "[" * 100_000, "\ufeff{}", '{"size": 1e999}', '{"crop_pct": 1e-300, "size": 1}']
)
def test_files_that_are_no_configuration_are_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "w.md").write_text(text)
    (tmp_path / "model.json").mkdir()
    assert list(preprocessing.read_neighbours(tmp_path / "w.safetensors")) == []
