"""``check_dataset``: checks the contract of datasets."""

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
from finetune.data.scan import hash_array, hash_image
from finetune.errors import DataError
from finetune.testing.contract import (
    COMMON,
    PROCESS,
    Inspection,
    StopCheck,
    call_build,
    describe_failure,
    inspect_component,
)
from finetune.testing.threads import describe_differences, find_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence


def find_uncompilable(cell: Any) -> Iterator[str]:
    """Yield why MindSpore cannot compile the classes of a cell and of its child cells, with remedies."""
    for kind in dict.fromkeys(type(each) for _, each in cell.cells_and_names()):
        if kind.__module__.partition(".")[0] != "mindspore":
            yield from check_class(kind)


def check_class(kind: type) -> Iterator[str]:
    """Yield why MindSpore cannot compile a class."""
    for name, function in vars(kind).items():
        if not isinstance(function, FunctionType) or (name.startswith("__") and name.endswith("__")):
            continue
        first = next(iter(signature(function).parameters), "nothing")
        if first != "self":
            text = f"{name} of class {kind.__name__} names its first argument '{first}'"
            yield f"{text}; name it self, which MindSpore requires"
    try:
        getsource(kind.construct)  # type: ignore[attr-defined]
    except (OSError, TypeError):
        text = f"construct of class {kind.__name__} has no source file, which MindSpore needs to compile it"
        yield f"{text}; define the class in a module, not in exec or a terminal"


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
MOST = 64  # images of a split that are read, spread evenly

Found = dict[str, Samples]


def check_dataset(
    dataset: Dataset | str, options: Mapping[str, Any] | None = None, *, skip: Collection[str] = ()
) -> None:
    """Raise ``ContractError`` with every rule of datasets that one breaks.

    ``dataset`` is a component, or the name of an installed one; ``options`` are its options as in a recipe, with paths
    relative to the current folder. ``skip`` lists rules to skip. Up to 64 images of each split are read.
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
    """Build all splits, and return those that exist."""
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
    """Check that images, labels and classes of a split are consistent."""
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
            inspection.breaks(rule, f"{what} {describe_failure(error, 'return sequences that have a length')}")
            raise StopCheck from None
    if split == "train" and inspection.wants("sizes") and not len(samples.images):
        inspection.breaks("sizes", "split train has no images; pass options for which it has some")
    for finding in samples.findings:
        if not isinstance(finding, Finding) or finding.severity not in get_args(Severity):
            text = f"{what} has {finding!r:.80}; use finetune.Finding with severity error, warning or note"
            inspection.breaks("findings", text)
        elif finding.severity == "error":
            text = f"{what} reports an error: {finding.subject}: {finding.text}; pass options that cause no errors"
            inspection.breaks("findings", text)


def compare_classes(inspection: Inspection[Dataset], splits: Found) -> None:
    """Check that training has every class, and an image of each."""
    train = splits["train"]
    counts = np.bincount(np.asarray(train.labels, np.int64), minlength=len(train.classes))
    if len(train.classes) < 2:
        inspection.breaks("classes", f"'{train.classes[0]}' is the only class; return at least two")
    for name, count in zip(train.classes, counts, strict=True):
        if not count:
            inspection.breaks("classes", f"'{name}' has no training images; leave it out of classes")
    for split, samples in splits.items():
        used = {samples.classes[label] for label in samples.labels}
        if strange := sorted(used - set(train.classes)):
            text = f"split {split} has '{strange[0]}', which train does not have; use the same classes in all splits"
            inspection.breaks("classes", text)


def choose_places(samples: Samples) -> list[int]:
    """Return the indices of the images to read."""
    count = len(samples.images)
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, MOST))}) if count else []


def identify_image(samples: Samples, place: int) -> Any:
    """Return the identity of an image: its path, or a hash of its bytes or values."""
    image = samples.images[place]
    if isinstance(image, Path):
        return image
    return (image.name, image.data) if isinstance(image, Encoded) else hash_array(np.asarray(image))


def read_split(inspection: Inspection[Dataset], split: str, samples: Samples) -> list[Any]:
    """Decode the images of a split, and return the identity of each."""
    found: list[Any] = []
    for place in choose_places(samples):
        what = f"image {place} of split {split}"
        with inspection.rule("images", what, "fix the code that makes the image"):
            image = samples.images[place]
            if not isinstance(image, Path | Encoded | np.ndarray):
                text = f"{what} is a {type(image).__name__}; return a Path, finetune.Encoded or HWC uint8 array"
                inspection.breaks("images", text)
                break
            try:
                decode(image)
            except DataError as error:
                inspection.breaks("images", f"{what}: {error}")
                break
            found.append(identify_image(samples, place))
            if samples.digests is not None and samples.digests[place] != (right := hash_image(image)):
                text = f"{what} has {right}, but digests has {samples.digests[place]!r:.40}; use BLAKE2b with 16 bytes"
                inspection.breaks("digests", text)
        if not inspection.wants("images"):
            break
    return found


def reread_split(inspection: Inspection[Dataset], split: str, samples: Samples, alone: Sequence[Any]) -> None:
    """Read images again in reverse order, then in several threads."""
    there = choose_places(samples)
    remedy = "derive each image from its index only"
    with inspection.rule("repeat", f"split {split}, read in reverse order,", remedy):
        for place, before in list(zip(there, alone, strict=True))[::-1]:
            if identify_image(samples, place) != before:
                inspection.breaks("repeat", f"image {place} of split {split} was different when read again; {remedy}")
                return
    with inspection.rule("threads", f"split {split}, read by threads,", remedy):
        if wrong := find_differences(lambda place: identify_image(samples, place), there, alone):
            first = there[wrong[0][0]]
            text = f"image {first} of split {split}, read by several threads at once, {describe_differences(wrong)}"
            inspection.breaks("threads", f"{text}; keep no state between calls, or use a threading.Lock")


def rebuild_splits(inspection: Inspection[Dataset], splits: Found, alone: Mapping[str, Sequence[Any]]) -> None:
    """Build all splits again: resumed runs and other processes must get the same images."""
    for split, samples in splits.items():
        with inspection.rule("repeat", f"another build of split {split}", "return the same again"):
            again = inspection.component.build(inspection.options, cast_split(split))
            same = (
                again is not None
                and tuple(again.classes) == tuple(samples.classes)
                and list(again.labels) == list(samples.labels)
                and [identify_image(again, place) for place in choose_places(again)] == list(alone[split])
            )
            if not same:
                text = (
                    f"split {split}, built twice, has different images or a different order; sort listings of folders"
                )
                inspection.breaks("repeat", f"{text}, and use a fixed seed for random numbers")


def cast_split(split: str) -> Split:
    """Return the name of a split with its type."""
    return next(each for each in SPLITS if each == split)
