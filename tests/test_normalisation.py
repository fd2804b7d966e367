"""Mean and std that cannot be of pixels in 0..1 are refused wherever they come from."""

from __future__ import annotations

import json
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Finetuner, ImageSpec, UsageError, Weights, WeightsError
from finetune.components import IMAGENET_MEAN, IMAGENET_STD
from finetune.model.modelfolder import ImageRecord
from finetune.normalisation import find_mean_fault, find_std_fault
from finetune.weights import fetching, loading
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from pathlib import Path

MEAN_255, STD_255 = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.mark.parametrize("mean", [IMAGENET_MEAN, (0.5,) * 3, (0, 0, 0), (0, 0.1, 1), (0.0019, 0.0018, 0.0016)])
def test_means_that_can_be(mean: Any) -> None:
    assert find_mean_fault(mean) is None


@pytest.mark.parametrize("std", [IMAGENET_STD, (0.5,) * 3, (1, 1, 1), (1 / 255,) * 3, (0.00392,) * 3])
def test_deviations_that_can_be(std: Any) -> None:
    assert find_std_fault(std) is None


@pytest.mark.parametrize(
    ("mean", "fault"),
    [
        (MEAN_255, "[123.7, 116.3, 103.5] is in 0..255, not in 0..1; divide by 255: [0.485, 0.456, 0.406]"),
        ((127.5,) * 3, "[127.5, 127.5, 127.5] is in 0..255, not in 0..1; divide by 255: [0.5, 0.5, 0.5]"),
        ((0, 0, 104), "[0.0, 0.0, 104.0] is in 0..255, not in 0..1; divide by 255: [0.0, 0.0, 0.4078]"),
        ((32768,) * 3, "divide by 65535: [0.5, 0.5, 0.5]"),
        ((1e6,) * 3, "is not in 0..1; give the values for pixels in 0..1"),
        ((0.485, 116.28, 0.406), "the values have different scales"),
        ((0.485, 116.28, 0.406), "in 0..1 they are probably [0.485, 0.456, 0.406]"),
        ((-0.5, 0.5, 0.5), "a mean cannot be negative, got [-0.5, 0.5, 0.5]"),
        (0.5, "expected a number for each of red, green and blue, got 0.5; write [0.5, 0.5, 0.5]"),
        ((0.5,), "expected three numbers, got 1"),
        ((0.5,) * 4, "expected three numbers, got 4"),
        ((0.5, nan, 0.5), "must be finite numbers"),
        ("0.5", "expected three numbers, got '0.5'"),
        (None, "expected three numbers, got None"),
    ],
)
def test_means_that_cannot_be(mean: Any, fault: str) -> None:
    assert fault in str(find_mean_fault(mean))


@pytest.mark.parametrize(
    ("std", "fault"),
    [
        (STD_255, "is in 0..255, not in 0..1; divide by 255: [0.229, 0.224, 0.225]"),
        ((255,) * 3, "divide by 255: [1.0, 1.0, 1.0]"),
        ((0.229, 57.12, 0.225), "in 0..1 they are probably [0.229, 0.224, 0.225]"),
        ((0, 0.2, 0.2), "a standard deviation must be more than 0"),
        ((-0.2, 0.2, 0.2), "a standard deviation must be more than 0"),
        ((0.229 / 255,) * 3, "is less than 1/255; multiply by 255: [0.229, 0.229, 0.229]"),
        ((0.229, 0.0009, 0.225), "the values have different scales"),
    ],
)
def test_deviations_that_cannot_be(std: Any, fault: str) -> None:
    assert fault in str(find_std_fault(std))


def test_a_network_that_takes_0_to_255_gets_it() -> None:
    from finetune.data.images import normalise

    out = np.empty((3, 1, 1), np.float32)
    normalise(np.full((1, 1, 3), 200, np.uint8), ImageSpec(mean=(0, 0, 0), std=(1 / 255,) * 3), out)
    np.testing.assert_allclose(out, 200, rtol=1e-6)


def test_image_spec() -> None:
    with pytest.raises(UsageError, match=r"ImageSpec: mean: .* divide by 255: \[0.485, 0.456, 0.406\]"):
        ImageSpec(mean=tuple(MEAN_255))  # type: ignore[arg-type]


def test_finetuner(tmp_path: Path) -> None:
    ft = Finetuner("resnext_nano", weights="none", image={"mean": MEAN_255}, output=tmp_path, progress=False)
    with pytest.raises(UsageError, match=r"image.mean: .* divide by 255: \[0.485, 0.456, 0.406\]"):
        ft.fit(([], []))


def test_records_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    tensorfile.write_tensors(file, {"a": np.zeros(1, np.float32)}, {})
    record = Weights(url="", sha256="", layout="", std=tuple(STD_255))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"'own' has an invalid std: .* divide by 255: \[0.229, 0.224, 0.225\]"):
        loading.read_image_defaults(fetching.Source(path=file, name="own", record=record))


def test_metadata_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    tensorfile.write_tensors(file, {"a": np.zeros(1, np.float32)}, {"image": json.dumps({"mean": MEAN_255})})
    with pytest.raises(WeightsError, match=r"damaged image metadata \(mean: .* divide by 255"):
        loading.read_image_defaults(fetching.Source(path=file, name="own"))


def test_model_json() -> None:
    said = {"size": 32, "resize": 36, "keep_aspect": True, "std": [0.5] * 3, "background": [0] * 3}
    ImageRecord.model_validate_json(json.dumps({**said, "mean": [0.5] * 3}))
    with pytest.raises(ValueError, match=r"divide by 255: \[0.485, 0.456, 0.406\]"):
        ImageRecord.model_validate_json(json.dumps({**said, "mean": MEAN_255}))
