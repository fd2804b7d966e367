"""Datasets that break one rule each, with what is to be said of it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict, field_serializer

from finetune import DataError, Dataset, Encoded, Finding, Freezer, Options, Samples
from finetune.testing.photos import draw_picture

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = tuple(draw_picture(8, 8, seed=number) for number in range(6))
LABELS = (0, 1, 0, 1, 0, 1)
CLASSES = ("a", "b")


class Size(Options):
    """How many."""

    count: int = 6
    """Images."""


class Loose(Options):
    """Options that take anything."""

    model_config = ConfigDict(extra="allow")


class Rounded(Options):
    """Options that are written otherwise than they are read."""

    share: float = 0.25
    """Part of the photos."""

    @field_serializer("share")
    def rounded(self, share: float) -> float:
        return round(share, 1)


class Using(Options):
    """Options with a key of the engine."""

    split: float = 0.2
    """Share."""


def samples(images: Any = IMAGES, labels: Any = LABELS, classes: Any = CLASSES, **more: Any) -> Samples:
    return Samples(images=images, labels=labels, classes=classes, **more)


def dataset(build: Callable[..., Any], options: type[Options] = Size) -> Dataset:
    return Dataset(name="mine", options=options, build=build)


def of(*arguments: Any, **more: Any) -> Dataset:
    """Return a dataset with nothing but training samples."""
    return dataset(lambda options, split: samples(*arguments, **more) if split == "train" else None)


def doing(act: Callable[[], Any]) -> Dataset:
    """Return a dataset in order that does something more when it is built."""

    def build(options: Any, split: str) -> Samples | None:
        if split == "train":
            act()
            return samples()
        return None

    return dataset(build)


class Lazy:
    """Pictures made when they are asked for, by a function of the place."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, place: int) -> Any:
        return self.make(place)


def counting() -> Callable[[int], Any]:
    """Return what makes another picture at every reading."""
    read = [0]

    def make(place: int) -> Any:
        read[0] += 1
        return draw_picture(8, 8, seed=read[0])

    return make


def sharing() -> Callable[[int], Any]:
    """Return what keeps the place that it works on where threads overwrite it."""
    state = {"place": 0}

    def make(place: int) -> Any:
        state["place"] = place
        time.sleep(0.001)
        return IMAGES[state["place"]]

    return make


def impatient() -> Callable[[int], Any]:
    """Return what works in one thread only."""
    owner = threading.get_ident()

    def make(place: int) -> Any:
        if threading.get_ident() != owner:
            raise RuntimeError("connection belongs to another thread")
        return IMAGES[place]

    return make


def fail(error: BaseException) -> Any:
    raise error


def shuffled() -> Dataset:
    """Return a dataset in another order at every build."""
    built = [0]

    def build(options: Any, split: str) -> Samples | None:
        if split != "train":
            return None
        built[0] += 1
        return samples(IMAGES[::-1] if built[0] % 2 else IMAGES)

    return dataset(build)


def other_classes(options: Any, split: str) -> Samples:
    return samples(classes=CLASSES if split == "train" else ("a", "c"))


SERIES = "pass options for which it has some"
BROKEN: list[tuple[str, Any, str, str]] = [
    ("no dataset", Freezer(name="mine", build=print), "component", "finetune_datasets returned Freezer("),
    (
        "options of another type",
        Dataset(name="mine", options=dict, build=print),  # type: ignore[arg-type]
        "component",
        "options of dataset 'mine' must be a subclass of finetune.Options",
    ),
    (
        "loose options",
        dataset(lambda options, split: None if split != "train" else samples(), Loose),
        "options",
        "an unknown key is accepted, so a misspelt key has no effect; remove `extra` from model_config",
    ),
    (
        "options written otherwise",
        dataset(lambda options, split: None if split != "train" else samples(), Rounded),
        "options",
        "they change when written to a recipe and read back; use types of JSON, and Path",
    ),
    (
        "a key of the engine",
        dataset(lambda options, split: samples(), Using),
        "options",
        "an option is named 'split', which is a key of the engine; rename it",
    ),
    (
        "fails",
        dataset(lambda options, split: {}["x"]),
        "build",
        "build raised KeyError: 'x'; fix it; if users can fix the cause, raise an error of finetune, such as DataError",
    ),
    ("ends the process", doing(lambda: fail(SystemExit(3))), "build", "build raised SystemExit: 3; fix it; if"),
    (
        "says what is wrong",
        doing(lambda: fail(DataError("no photos in 'x'; put some there"))),
        "build",
        "build raised DataError: no photos in 'x'; put some there",
    ),
    (
        "no split",
        dataset(lambda options, split: None),
        "build",
        "build returned None for 'train'; return the Samples t",
    ),
    (
        "another type",
        dataset(lambda options, split: [1]),
        "build",
        "build returned a list for 'train'; return finetune.Samples or None",
    ),
    ("no images", of((), ()), "sizes", f"split train has no images; {SERIES}"),
    ("more labels", of(IMAGES[:5]), "sizes", "split train: 5 images but 6 labels; give one label for each image"),
    (
        "no length",
        of(images=iter(IMAGES)),
        "sizes",
        "split train raised TypeError: object of type 'tuple_iterator' has no len(); return sequences that have a"
        " length",
    ),
    ("one class", of(labels=[0] * 6, classes=("a",)), "classes", "'a' is the only class; return at least two"),
    ("text for classes", of(classes="ab"), "classes", "split train: classes must be a tuple of strings, not 'ab'"),
    (
        "two of one name",
        of(classes=("a", "a")),
        "classes",
        "split train: two classes named 'a'; class names must differ",
    ),
    (
        "an empty class",
        of(classes=("a", "b", "c")),
        "classes",
        "'c' has no training images; leave it out of classes",
    ),
    (
        "other classes",
        dataset(other_classes),
        "classes",
        "split valid has 'c', which train does not have; use the same classes in all splits",
    ),
    (
        "a label outside",
        of(labels=[0, 1, 2, 0, 1, 0]),
        "labels",
        "split train: label 2 is 2, but there are 2 classes; labels must be 0 to 1",
    ),
    (
        "labels that are names",
        of(labels=list("ababab")),
        "labels",
        "split train: label 0 is 'a'; labels must be whole numbers, one for each image",
    ),
    (
        "findings that are text",
        of(findings=("two left out",)),
        "findings",
        "split train has 'two left out'; use finetune.Finding with severity error, warning or note",
    ),
    (
        "an error found",
        of(findings=(Finding(severity="error", subject="a.jpg", text="is gone"),)),
        "findings",
        "split train reports an error: a.jpg: is gone; pass options that cause no errors",
    ),
    (
        "no image",
        of((*IMAGES[:5], "a.jpg")),
        "images",
        "image 5 of split train is a str; return a Path, finetune.Encoded or HWC uint8 array",
    ),
    (
        "a file that is gone",
        of((*IMAGES[:5], Path("/nowhere/a.jpg"))),
        "images",
        "image 5 of split train: '/nowhere/a.jpg' does not exist",
    ),
    (
        "bytes of no image",
        of((*IMAGES[:5], Encoded(name="a.jpg", data=b"<html>"))),
        "images",
        "image 5 of split train: 'a.jpg' is not an image: it is an HTML page",
    ),
    (
        "floats",
        of([image / 255 for image in IMAGES]),
        "images",
        "image 0 of split train: an array of shape 8x8x3 and type float64 is not an image; "
        "pass (height, width, 3) uint8",
    ),
    (
        "channels first",
        of([image.transpose(2, 0, 1) for image in IMAGES]),
        "images",
        "image 0 of split train: an array of shape 3x8x8 and type uint8 is not an image; pass (height, width, 3) uint8",
    ),
    (
        "images that fail",
        of(Lazy(lambda place: fail(OSError("no disk")))),
        "images",
        "image 0 of split train raised OSError: no disk; fix the code that makes the image",
    ),
    (
        "wrong digests",
        of(digests=["0" * 32] * 6),
        "digests",
        "image 0 of split train has e5ebe4f1d655d358a5b0cf67f9ae2e5c, but digests has "
        "'00000000000000000000000000000000'; use BLAKE2b with 16 bytes",
    ),
    (
        "another at every reading",
        of(Lazy(counting())),
        "repeat",
        "image 5 of split train was different when read again; derive each image from its index only",
    ),
    (
        "another order",
        shuffled(),
        "repeat",
        "split train, built twice, has different images or a different order; sort listings of folders, "
        "and use a fixed "
        "seed for random numbers",
    ),
    (
        "threads overwrite",
        of(Lazy(sharing())),
        "threads",
        "of split train, read by several threads at once, differed from the result of one thread; keep "
        "no state between "
        "calls, or use a threading.Lock",
    ),
    (
        "one thread only",
        of(Lazy(impatient())),
        "threads",
        "of split train, read by several threads at once, raised RuntimeError: connection belongs to another thread; "
        "keep no state between calls, or use a threading.Lock",
    ),
    (
        "prints",
        doing(lambda: print("reading …")),
        "process",
        "prints 'reading …\\n'; use run.say, findings or logging, because standard output is for programs",
    ),
    (
        "changes the folder",
        doing(lambda: os.chdir("/")),
        "process",
        "changes the current folder to '/'; use absolute paths instead of os.chdir",
    ),
    (
        "changes the environment",
        doing(lambda: os.environ.update(HOME="/nowhere")),
        "process",
        "changes the environment variable HOME; pass the value as an argument",
    ),
    (
        "sets the engine's environment",
        doing(lambda: os.environ.update(FINETUNE_OFFLINE="0")),
        "process",
        "sets the environment variable FINETUNE_OFFLINE; leave it to the user",
    ),
    (
        "handles signals",
        doing(lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)),
        "process",
        "replaces the handler of SIGTERM, which saves and stops runs; do not handle signals",
    ),
    (
        "seeds random",
        doing(lambda: random.seed(1)),
        "process",
        "draws from or seeds the generator of `random`; use your own, random.Random(seed)",
    ),
    (
        "seeds numpy",
        doing(lambda: np.random.seed(1)),
        "process",
        "draws from or seeds the generator of numpy.random; use your own, np.random.default_rng(seed)",
    ),
]
