"""``check_dataset``: what the engine relies on in a dataset."""

from __future__ import annotations

from inspect import getsource, signature
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from finetune.components import Dataset, Encoded, Finding, Samples, Severity, Split
from finetune.data import labelled as given
from finetune.data.images import decode
from finetune.data.loading import SPLITS
from finetune.data.scan import array_digest, digest_of
from finetune.errors import DataError
from finetune.testing.contract import (
    COMMON,
    PROCESS,
    Inspection,
    StopCheck,
    call_build,
    inspect_component,
)
from finetune.testing.endurance import describe_differences, find_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence


def find_uncompilable(cell: Any) -> Iterator[str]:
    """Yield why the classes of a cell and of all cells in it cannot be compiled, and what to do."""
    for kind in dict.fromkeys(type(each) for _, each in cell.cells_and_names()):
        if kind.__module__.partition(".")[0] != "mindspore":
            yield from check_class(kind)


def check_class(kind: type) -> Iterator[str]:
    """Yield what is wrong with a class."""
    for name, function in vars(kind).items():
        if not isinstance(function, FunctionType) or (name.startswith("__") and name.endswith("__")):
            continue
        first = next(iter(signature(function).parameters), "nothing")
        if first != "self":
            text = f"{name} of class {kind.__name__} calls its first argument '{first}'"
            yield f"{text}; call it self, by which MindSpore tells that it is not one of the arguments passed"
    try:
        getsource(kind.construct)  # type: ignore[attr-defined]
    except (OSError, TypeError):
        text = f"construct of class {kind.__name__} has no source file, which MindSpore compiles from"
        yield f"{text}; put the class into a module, not into exec or a terminal"


RULES = {
    **COMMON,
    "build": "`build(options, split)` returns `Samples`, or None, but not for `train`",
    "sizes": "there are as many labels as images, and at least one training image",
    "classes": "there are at least two distinct names, each with a training image; other splits add none",
    "labels": "each label is an integer from 0, the index of a class",
    "findings": "each is a `Finding`, and none is an error",
    "images": "each is a path, an `Encoded` or an HWC uint8 RGB array, and can be decoded",
    "digests": "if there are any, they are the hashes of the images",
    "repeat": "an image is the same at each reading, in any order, and after another `build`",
    "threads": "images are the same if several threads read them at the same time",
    **PROCESS,
}
MOST = 64  # images of a split that are read, evenly spread

Found = dict[str, Samples]


def check_dataset(
    dataset: Dataset | str, options: Mapping[str, Any] | None = None, *, skip: Collection[str] = ()
) -> None:
    """Raise ``ContractError`` with every rule of datasets that one breaks.

    ``dataset`` is a component, or the name of an installed one; ``options`` are what a recipe says beside ``use:``,
    relative paths starting at the current folder. ``skip`` leaves rules out. Up to 64 images of a split are read.
    """
    __tracebackhide__ = True
    inspection = inspect_component(Dataset, dataset, options, RULES, skip)
    with inspection.going_on():
        splits = build_splits(inspection)
        for split, samples in splits.items():
            check_split(inspection, split, samples)
        if not {"sizes", "classes", "labels"} & set(inspection.broken):
            compare_classes(inspection, splits)
        alone = {split: read_split(inspection, split, samples) for split, samples in splits.items()}
        if inspection.wants("images") and inspection.wants("sizes"):
            for split, samples in splits.items():
                reread_split(inspection, split, samples, alone[split])
            rebuild_splits(inspection, splits, alone)
    inspection.report()


def build_splits(inspection: Inspection[Dataset]) -> Found:
    """Return the splits that there are."""
    splits: Found = {}
    for split in SPLITS:
        samples = call_build(inspection, split)
        if samples is None and split == "train":
            inspection.breaks("build", "build returned None for 'train'; return the Samples to train on")
            raise StopCheck
        if samples is not None and not isinstance(samples, Samples):
            text = f"build returned a {type(samples).__name__} for '{split}'; return finetune.Samples or None"
            inspection.breaks("build", text)
            raise StopCheck
        if samples is not None:
            splits[split] = samples
    return splits


def check_split(inspection: Inspection[Dataset], split: str, samples: Samples) -> None:
    """Compare images, labels and classes of a split with one another."""
    what = f"split {split}"
    checks: dict[str, Callable[[], object]] = {
        "classes": lambda: given.check_classes(samples.classes, what),
        "sizes": lambda: given.check_sizes(samples, what),
        "labels": lambda: given.check_labels(samples.labels, len(samples.classes), what),
    }
    for rule, check in checks.items():
        try:
            check()
        except DataError as error:
            inspection.breaks(rule, str(error))
        except Exception as error:
            inspection.breaks(rule, f"{what} {describe_failure(error, 'give sequences that know their length')}")
            raise StopCheck from None
    if split == "train" and inspection.wants("sizes") and not len(samples.images):
        inspection.breaks("sizes", "split train has no image; give the check options with which there are some")
    for finding in samples.findings:
        if not isinstance(finding, Finding) or finding.severity not in get_args(Severity):
            text = f"{what} has {finding!r:.80}; give finetune.Finding with a severity error, warning or note"
            inspection.breaks("findings", text)
        elif finding.severity == "error":
            text = f"{what} reports an error: {finding.subject}: {finding.text}; give the check options without"
            inspection.breaks("findings", text)


def compare_classes(inspection: Inspection[Dataset], splits: Found) -> None:
    """See that training knows every class, and has an image of each."""
    train = splits["train"]
    counts = np.bincount(np.asarray(train.labels, np.int64), minlength=len(train.classes))
    if len(train.classes) < 2:
        inspection.breaks("classes", f"there is only '{train.classes[0]}'; at least two are needed")
    for name, count in zip(train.classes, counts, strict=True):
        if not count:
            inspection.breaks("classes", f"'{name}' has no image to train on; leave it out of classes")
    for split, samples in splits.items():
        used = {samples.classes[label] for label in samples.labels}
        if strange := sorted(used - set(train.classes)):
            text = f"split {split} has '{strange[0]}', which train does not; give all splits the same classes"
            inspection.breaks("classes", text)


def choose_places(samples: Samples) -> list[int]:
    """Return which images are read."""
    count = len(samples.images)
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, MOST))}) if count else []


def identify_image(samples: Samples, place: int) -> Any:
    """Return what tells an image from others: its path, or a hash of its bytes or values."""
    image = samples.images[place]
    if isinstance(image, Path):
        return image
    return (image.name, image.data) if isinstance(image, Encoded) else array_digest(np.asarray(image))


def read_split(inspection: Inspection[Dataset], split: str, samples: Samples) -> list[Any]:
    """Decode the images of a split, and return what tells each from others."""
    found: list[Any] = []
    for place in choose_places(samples):
        what = f"image {place} of split {split}"
        with inspection.rule("images", what, "mend what makes the image"):
            image = samples.images[place]
            if not isinstance(image, Path | Encoded | np.ndarray):
                text = f"{what} is a {type(image).__name__}; give a Path, finetune.Encoded or HWC uint8 array"
                inspection.breaks("images", text)
                break
            try:
                decode(image)
            except DataError as error:
                inspection.breaks("images", f"{what}: {error}")
                break
            found.append(identify_image(samples, place))
            if samples.digests is not None and samples.digests[place] != (right := digest_of(image)):
                text = f"{what} has {right}, and digests say {samples.digests[place]!r:.40}; give BLAKE2b of 16 bytes"
                inspection.breaks("digests", text)
        if not inspection.wants("images"):
            break
    return found


def reread_split(inspection: Inspection[Dataset], split: str, samples: Samples, alone: Sequence[Any]) -> None:
    """Read images a second time backwards, then in several threads."""
    there = choose_places(samples)
    remedy = "make each image from its index alone"
    with inspection.rule("repeat", f"split {split}, read backwards,", remedy):
        for place, before in list(zip(there, alone, strict=True))[::-1]:
            if identify_image(samples, place) != before:
                inspection.breaks("repeat", f"image {place} of split {split} was another when read again; {remedy}")
                return
    with inspection.rule("threads", f"split {split}, read by threads,", remedy):
        if wrong := find_differences(lambda place: identify_image(samples, place), there, alone):
            first = there[wrong[0][0]]
            text = f"image {first} of split {split}, read by several threads at once, {describe_differences(wrong)}; keep no state "
            inspection.breaks("threads", f"{text}between readings, or put a threading.Lock around it")


def rebuild_splits(inspection: Inspection[Dataset], splits: Found, alone: Mapping[str, Sequence[Any]]) -> None:
    """Build once more: a resumed run, and another process, must find the same."""
    for split, samples in splits.items():
        with inspection.rule("repeat", f"another build of split {split}", "build the same again"):
            again = inspection.component.build(inspection.options, cast_split(split))
            same = (
                again is not None
                and tuple(again.classes) == tuple(samples.classes)
                and list(again.labels) == list(samples.labels)
                and [identify_image(again, place) for place in choose_places(again)] == list(alone[split])
            )
            if not same:
                text = f"split {split}, built twice, had other images or another order; sort what a folder lists"
                inspection.breaks("repeat", f"{text}, and take random numbers from a fixed seed")


def cast_split(split: str) -> Split:
    """Return a split by its name."""
    return next(each for each in SPLITS if each == split)
