"""Parts: how they describe their images, and the part to evaluate on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from finetune.data import loading as data
from finetune.errors import DataError
from tests.data.test_data import arrays, dataset, files, load

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


def test_parts_describe_their_images(tmp_path: Path) -> None:
    samples = files(tmp_path / "train", {"a\n.png": 0, "b.png": 1, "c.png": 1, "d.png": 0}, ("a", "b"))
    loaded = load(dataset(train=samples))
    assert {loaded.train.describe(0), loaded.valid.describe(0)} <= {
        f"{tmp_path}/train/{name}" for name in (r"a\n.png", "b.png", "c.png", "d.png")
    }
    source = arrays([4, 4])
    loaded = load(dataset(train=source))
    for part in (loaded.train, loaded.valid):
        for index in range(len(part)):
            row = int(part.describe(index).removeprefix("dataset 'test' train[").removesuffix("]"))
            np.testing.assert_array_equal(part.images[index], source.images[row])
            assert part.labels[index] == source.labels[row]


def test_a_part_to_evaluate_on_takes_the_classes_of_a_model() -> None:
    found = data.build_part(arrays([1, 2], ["cow", "ant"]), ("ant", "bee", "cow"), "test", 0)
    assert found.name == "test"
    assert found.labels.tolist() == [2, 0, 0]
    with pytest.raises(DataError, match="'Cow': is not a class of the model; did you mean 'cow'"):
        data.build_part(arrays([1, 2], ["Cow", "ant"]), ("ant", "cow"), "test", 0)
    with pytest.raises(DataError, match="the data cannot be used\n1 problem with the splits:"):
        data.build_part(arrays([0, 0], ["cow", "ant"]), ("ant", "cow"), "test", 0)
