"""What ``check_dataset`` says of datasets that break a rule each, and that it takes those in order."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Options, Samples, UsageError
from finetune.testing import ContractError, check_dataset
from tests.testing.bad_datasets import (
    CLASSES,
    IMAGES,
    LABELS,
    Lazy,
    dataset,
    of,
    samples,
    sharing,
)
from tests.testing.broken import broken

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.once


def test_all_broken_rules_are_told_together() -> None:
    def build(options: Any, split: str) -> Samples | None:
        print("hello")
        return samples(labels=(0, 1, 9), classes=("a", "a")) if split == "train" else None

    with pytest.raises(ContractError) as caught:
        check_dataset(dataset(build))
    assert str(caught.value).splitlines() == [
        "dataset 'mine' breaks 4 rules",
        "  sizes: split train: 6 images but 3 labels; give one label for each image",
        "  classes: split train: two classes named 'a'; class names must differ",
        "  labels: split train: label 2 is 9, but there are 2 classes; labels must be 0 to 1",
        "  process: prints 'hello\\n'; use run.say, findings or logging, because standard output is for programs",
    ]
    assert caught.value.component == "dataset 'mine'"
    assert isinstance(caught.value, AssertionError)


def test_options_are_those_of_a_recipe() -> None:
    wrong = (("options", "count: expected a whole number, got '6'; remove the quotes; "),)
    found = broken(check_dataset, of(), {"count": "6"})
    assert found[0][1].startswith(wrong[0][1])
    assert "'coun'; did you mean 'count'?" in broken(check_dataset, of(), {"coun": 6})[0][1]
    seen: list[Path] = []

    class Rooted(Options):
        root: Path
        """Folder."""

    def build(options: Rooted, split: str) -> Samples | None:
        seen.append(options.root)
        return samples() if split == "train" else None

    check_dataset(dataset(build, Rooted), {"root": Path("photos")})
    assert {*seen} == {Path.cwd() / "photos"}


def test_a_rule_can_be_left_out() -> None:
    check_dataset(of(Lazy(sharing())), skip=["threads"])
    with pytest.raises(UsageError, match=r"^no rule named 'thread' for a dataset; did you mean 'threads'\?$"):
        check_dataset(of(), skip=["thread"])


def test_an_installed_dataset_is_found_by_its_name() -> None:
    check_dataset("shapes", {"train": 20, "valid": 10, "test": 0})
    with pytest.raises(UsageError, match=r"^no dataset named 'shape'; did you mean 'shapes'\?"):
        check_dataset("shape")
    with pytest.raises(ContractError, match=r"^dataset 'folder' of plugin 'folder' \(mindspore-finetune .*\) breaks a"):
        check_dataset("folder", {"root": "/nowhere"})


def test_nothing_has_to_be_pickled() -> None:
    lock = threading.Lock()

    def make(place: int) -> Any:
        with lock:
            return IMAGES[place]

    component = of(Lazy(make))
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(component.build(component.options(), "train"))
    check_dataset(component)


def sequences() -> Sequence[Any]:
    return [IMAGES, list(IMAGES), np.stack(IMAGES)]


@pytest.mark.parametrize("images", sequences(), ids=["tuple", "list", "array"])
def test_any_sequence_will_do(images: Any) -> None:
    check_dataset(of(images, np.array(LABELS), [*CLASSES]))
