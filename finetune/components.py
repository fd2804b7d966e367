"""The five kinds of component that a recipe selects with ``use: <name>``, and what they build."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from finetune.errors import UsageError
from finetune.normalisation import find_image_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from mindspore.nn import Cell
    from numpy.typing import NDArray

    from finetune.recipe.models import Recipe

    Pixels = NDArray[np.uint8]
    Transform = Callable[[Pixels, np.random.Generator], Pixels]
    Image: TypeAlias = "Path | Pixels | Encoded"

Split = Literal["train", "valid", "test"]
Severity = Literal["error", "warning", "note"]

POSITIONS = ("last", "last 2", "all")  # examples of stages by position
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Options(BaseModel):
    """Base of a component's options: unknown keys, loose types and NaN are errors, and values cannot change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class NoOptions(Options):
    """Options of a component that has none."""


Stage = Annotated[str, Field(json_schema_extra={"examples": ["head", *POSITIONS]})]
"""A stage in the options of a freezing policy: its name or a position, which editors then offer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something noticed before training: an ``error`` ends the run, all findings are reported together.

    ``subject`` is what it is about: a photo or a folder of a dataset, a key of a component's options.
    """

    severity: Severity
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An image as the bytes of its file, such as a JPEG's, which the engine decodes; messages call it by ``name``."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One split of a dataset.

    ``images[i]`` is a path, the bytes of a file or an HWC uint8 RGB array, read from several threads at once and the
    same at every reading; ``labels[i]`` is the index of its class in ``classes``. ``findings`` says what was left out
    and why. ``digests`` are the hashes of images that are known to be sound, which saves looking at each before
    training: BLAKE2b of 16 bytes over the file, in hex. ``groups`` name what images belong together, such as a patient
    or a video: those of a group are on one side of a split; None is an image on its own.
    """

    images: Sequence[Image]
    labels: Sequence[int]
    classes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    digests: Sequence[str] | None = None
    groups: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.images)


Color: TypeAlias = Literal["convert", "ignore"]
"""What becomes of a colour profile in an image's file: the colours are converted to sRGB, or taken as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How an image becomes the input of the network: side lengths in pixels, mean and std of RGB in 0..1.

    ``color`` says whether colours are converted to sRGB by the profile in an image's file.
    """

    size: int = 224
    resize: int = 256
    keep_aspect: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    background: tuple[int, int, int] = (255, 255, 255)
    color: Color = "convert"

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for a mean or std that is not of pixels in 0..1."""
        if fault := find_image_fault({"mean": self.mean, "std": self.std}):
            raise UsageError(f"ImageSpec: {fault}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Where pretrained weights come from and what they expect.

    ``url`` is https or file; a file is used where it lies. ``sha256`` is 64 hex digits, the first 8 or more where the
    publisher states no more, or empty. ``layout`` names the ``Layout`` of the file, whose size is ``bytes``. ``size``
    and ``resize`` are in pixels, ``mean`` and ``std`` of RGB in 0..1. ``classes`` is the number of logits and
    ``labels`` a text file with a class name a line, in their order. ``accuracy`` is the reported top-1 in 0..1 and
    ``source`` says who made the weights, from what. ``options`` are backbone options that belong to these weights,
    such as the padding of a pooling layer.
    """

    url: str
    sha256: str
    layout: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    size: int = 224
    resize: int = 256
    keep_aspect: bool = True
    classes: int = 1000
    licence: str = "unknown"
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    citation: str = ""
    accuracy: float | None = None
    bytes: int | None = None
    labels: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a family of weight files names the parameters of a backbone.

    ``rules`` are (regular expression, replacement) pairs for whole names, the first match wins; the results are the
    backbone's own names, the classifier's being ``head.fc.weight`` and ``head.fc.bias``. ``ignore`` matches entries
    that are not part of a network, such as optimizer state. ``options`` are backbone options that the family needs.
    ``pieces`` is such a pair for tensors that the file holds in pieces, to be joined on the first axis: the pattern's
    last group is the number of the piece, and the replacement the name of the whole, to which ``rules`` then apply.
    ``transpose`` are (regular expression for a file's whole name, axes) pairs for tensors whose axes the file has in
    another order; axis ``i`` here is axis ``axes[i]`` of the file, as ``numpy.transpose`` takes them. Keras's
    convolutions need ``(3, 2, 0, 1)``, its Dense kernels ``(1, 0)``.
    ``writes`` are rules the other way, from own names to the file's, and ``format`` the kind of file that it then is.
    A layout renames, joins and transposes whole tensors. It cannot split one or compute with its numbers: a file that
    needs this has to be saved with own names first, such as by ``safetensors.numpy.save_file``.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    ignore: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    pieces: tuple[str, str] | None = None
    transpose: tuple[tuple[str, tuple[int, ...]], ...] = ()
    writes: tuple[tuple[str, str], ...] = ()
    format: Literal["safetensors", "ckpt"] = "safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known of a run before it begins; ``classes`` and ``steps`` are None until the dataset was looked at.

    ``constant`` are the metrics, with their values, that cannot change with so many classes. While the recipe leaves
    the number of epochs open, it is the largest that there can be.
    """

    recipe: Recipe
    classes: int | None = None
    steps: int | None = None
    constant: Mapping[str, float] = field(default_factory=dict)

    @property
    def evaluations(self) -> int:
        """Return how often the run is evaluated: once the head is fitted, every so many epochs, after the last one."""
        start = getattr(self.recipe.head, "start", "random")
        fitted = start == "fitted" or (start == "auto" and self.recipe.backbone.weights != "none")
        return max(1, fitted + math.ceil(self.recipe.train.length / self.recipe.evaluate.every))


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Something a recipe selects with ``use: <name>``; ``options`` is the model of the keys beside ``use``."""

    kind: ClassVar[str] = "component"

    name: str
    options: type[Options] = NoOptions
    build: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone(Component):
    """A network without its classifier, as named stages in order.

    ``build(options)`` returns a mapping from each of ``stages`` to a ``Cell``; the first takes (N, 3, H, W) float32,
    each takes what the one before returns, and the mean over the last one's positions has width ``features``.
    ``shapes(options)`` returns the names and shapes of the stages' parameters, such as ``layer1.0.conv2.weight``,
    without building the network. ``products(stages)`` returns, for training on CPUs, the same stages over the same
    parameters with matrix products in place of convolutions (matmul form): they take and return maps (C, H, W, N).
    With AVX-512 all stages train in that form; with AVX2 those of ``products_avx2``, unless `finetune doctor
    --measure` found others faster. ``activations(options, side)`` returns how many numbers the cells of each stage
    return for one image, by which a run estimates whether the memory is enough for that form. ``aliases`` are other
    names of the very same network, by which a publisher's card may call it.
    """

    kind: ClassVar[str] = "backbone"

    build: Callable[[Any], Mapping[str, Cell]]
    stages: tuple[str, ...]
    features: int
    weights: Mapping[str, Weights] = field(default_factory=dict)
    layouts: tuple[Layout, ...] = ()
    shapes: Callable[[Any], Mapping[str, tuple[int, ...]]] | None = None
    products: Callable[[Mapping[str, Cell]], Mapping[str, Cell]] | None = None
    aliases: tuple[str, ...] = ()
    products_avx2: tuple[str, ...] = ()
    activations: Callable[[Any, int], Mapping[str, int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(Component):
    """Images with labels: ``build(options, split)`` returns the ``Samples`` of a split, or None if it has no such."""

    kind: ClassVar[str] = "dataset"

    build: Callable[[Any, Split], Samples | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation(Component):
    """A change of training images: ``build(options, image)`` returns ``(pixels, rng) -> pixels``.

    Pixels are HWC uint8 RGB of any size; all randomness comes from ``rng``, which the engine seeds for each sample.
    ``native(options, image)`` returns the same change as operations of ``mindspore.dataset.vision``, from the bytes of
    a file to HWC uint8 of the image's size, for devices that MindSpore's own pipeline feeds; None if there are none.
    ``check(options)`` yields what is wrong with options that are right by type; it imports nothing heavy.
    ``for_head(options)`` returns options that suit a head which is fitted to a frozen network, where those given leave
    the choice open.
    """

    kind: ClassVar[str] = "augmentation"

    build: Callable[[Any, ImageSpec], Transform]
    native: Callable[[Any, ImageSpec], Sequence[Any] | None] | None = None
    check: Callable[[Any], Iterable[Finding]] | None = None
    for_head: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezer(Component):
    """A freezing policy: ``build(options)`` returns a pure function ``(epoch, stages) -> stages that train``.

    Epochs count from 1; ``stages`` are in order of the network and end with ``head``. ``check(options, stages,
    epochs)`` yields what is wrong with the options for such a network and so many epochs. Options reach both with names
    of stages where the recipe has positions such as ``last 2``; ``positions=False`` leaves them as they are written.
    """

    kind: ClassVar[str] = "freezer"

    build: Callable[[Any], Callable[[int, tuple[str, ...]], frozenset[str]]]
    check: Callable[[Any, tuple[str, ...], int], Iterable[Finding]] | None = None
    positions: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback(Component):
    """Something that watches a run: ``build(options)`` returns an object whose ``@hookimpl`` methods are events.

    ``check(options, facts)`` yields what is wrong with the options for such a run, or can have no effect in it. It is
    called before the dataset is looked at and again after that, with more ``facts``.
    """

    kind: ClassVar[str] = "callback"

    build: Callable[[Any], object]
    check: Callable[[Any, RunFacts], Iterable[Finding]] | None = None


KINDS: tuple[type[Component], ...] = (Backbone, Dataset, Augmentation, Freezer, Callback)
