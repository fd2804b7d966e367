"""The five kinds of component that a recipe selects with ``use: <name>``, and what they build."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import wraps
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

POSITIONS = ("last", "last 2", "all")  # examples of positions of stages
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Options(BaseModel):
    """Base class of a component's options: unknown keys, loose types and NaN are errors, and instances are frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class NoOptions(Options):
    """Options of a component without options."""


Stage = Annotated[str, Field(json_schema_extra={"examples": ["head", *POSITIONS]})]
"""A stage in the options of a freezing policy: a name or a position, which editors complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An error, a warning or a note from before training; findings are reported together, and errors end the run.

    ``subject`` is the image or folder of a dataset, or the key of a component's options, that it concerns.
    """

    severity: Severity
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An image as the bytes of its file, such as a JPEG, which the engine decodes; messages show its ``name``."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One split of a dataset.

    ``images[i]`` is a path, the bytes of a file or an HWC uint8 RGB array. It is read from several threads at once and
    must be the same every time. ``labels[i]`` is the index of its class in ``classes``. ``findings`` reports what was
    left out and why. ``digests`` are hashes of images that are known to be intact, which saves a scan before training:
    BLAKE2b with 16 bytes over the file, in hex. ``groups`` names the group of each image, such as a patient or a video:
    the images of a group are on one side of a split; None is an image on its own.
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
"""How to treat a colour profile in an image file: convert the colours to sRGB, or ignore the profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """The preprocessing of images for the network: side lengths in pixels, mean and std of RGB in 0..1.

    ``color`` sets whether colours are converted to sRGB by the profile in the image file.
    """

    size: int = 224
    resize: int = 256
    keep_aspect: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    background: tuple[int, int, int] = (255, 255, 255)
    color: Color = "convert"

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for a mean or std that does not belong to pixels in 0..1."""
        if fault := find_image_fault({"mean": self.mean, "std": self.std}):
            raise UsageError(f"ImageSpec: {fault}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The source of pretrained weights, and the images that they expect.

    ``url`` is https or file; a file is used in place. ``sha256`` is 64 hex digits, the first 8 or more if the publisher
    states only these, or empty. ``layout`` is the name of the file's ``Layout``, ``bytes`` its size. ``size`` and
    ``resize`` are in pixels, ``mean`` and ``std`` for RGB in 0..1. ``classes`` is the number of logits, ``labels`` a
    text file with one class name per line, in the order of the logits. ``accuracy`` is the published top-1 accuracy in
    0..1, and ``source`` names who trained the weights and on which data. ``options`` are backbone options that these
    weights need, such as the padding of a pooling layer.
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

    ``rules`` are (regular expression, replacement) pairs that match complete names; the first match wins. The results
    are the backbone's own names; the classifier's are ``head.fc.weight`` and ``head.fc.bias``. ``ignore`` matches
    entries that are not part of a network, such as optimizer state. ``options`` are backbone options that the family
    needs. ``pieces`` is such a pair for tensors that the file stores in pieces, which are joined on the first axis: the
    last group of the pattern is the number of the piece, and the replacement is the name of the joined tensor, to which
    ``rules`` then apply. ``transpose`` are (regular expression, axes) pairs for complete names of tensors with a
    different order of axes in the file: axis ``i`` here is axis ``axes[i]`` of the file, as in ``numpy.transpose``.
    Convolutions of Keras need ``(3, 2, 0, 1)``, its Dense kernels ``(1, 0)``. ``writes`` are rules in the opposite
    direction, from own names to the file's, and ``format`` is the kind of file to write. A layout renames, joins and
    transposes complete tensors. It cannot split a tensor or compute with its values: save such a file with the
    backbone's own names first, for example with ``safetensors.numpy.save_file``.
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
    """Facts about a run before it starts; ``classes`` and ``steps`` are None until the dataset has been read.

    ``constant`` are the metrics, with their values, that cannot change with this number of classes. If the recipe
    leaves the number of epochs open, ``recipe`` has the largest possible number.
    """

    recipe: Recipe
    classes: int | None = None
    steps: int | None = None
    constant: Mapping[str, float] = field(default_factory=dict)

    @property
    def evaluations(self) -> int:
        """Return the number of evaluations: once the head is fitted, at the recipe's interval, and at the end."""
        start = getattr(self.recipe.head, "start", "random")
        fitted = start == "fitted" or (start == "auto" and self.recipe.backbone.weights != "none")
        return max(1, fitted + math.ceil(self.recipe.train.length / self.recipe.evaluate.every))


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a run that a recipe selects with ``use: <name>``; ``options`` is the model of the other keys.

    ``hook`` is the hook that offers components of this kind. ``section`` is the key of the recipe that selects them,
    and ``many`` says whether it is a list.
    """

    kind: ClassVar[str] = "component"
    hook: ClassVar[str] = ""
    section: ClassVar[str] = ""
    many: ClassVar[bool] = False

    name: str
    options: type[Options] = NoOptions
    build: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone(Component):
    """A network without its classifier, as named stages in order.

    ``build(options)`` returns a mapping from each of ``stages`` to a ``Cell``. The first cell takes (N, 3, H, W)
    float32, each further cell takes the output of the previous one, and the mean over the positions of the last output
    has width ``features``.
    ``shapes(options)`` returns the names and shapes of the stages' parameters, such as ``layer1.0.conv2.weight``,
    without building the network. ``matmul_form(stages)`` returns, for training on CPUs, the same stages over the same
    parameters with matrix products in place of convolutions (matmul form): they take and return maps (C, H, W, N).
    With AVX-512 all stages train in that form; with AVX2 those of ``matmul_form_avx2``, unless `finetune doctor
    --measure` found others faster. ``activations(options, side)`` returns how many numbers the cells of each stage
    return for one image, from which a run estimates whether the memory is enough for that form. ``aliases`` are other
    names of the same network, which a publisher's card may use.
    """

    kind: ClassVar[str] = "backbone"
    hook: ClassVar[str] = "finetune_backbones"
    section: ClassVar[str] = "backbone"

    build: Callable[[Any], Mapping[str, Cell]]
    stages: tuple[str, ...]
    features: int
    weights: Mapping[str, Weights] = field(default_factory=dict)
    layouts: tuple[Layout, ...] = ()
    shapes: Callable[[Any], Mapping[str, tuple[int, ...]]] | None = None
    matmul_form: Callable[[Mapping[str, Cell]], Mapping[str, Cell]] | None = None
    aliases: tuple[str, ...] = ()
    matmul_form_avx2: tuple[str, ...] = ()
    activations: Callable[[Any, int], Mapping[str, int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(Component):
    """Images with labels: ``build(options, split)`` returns the ``Samples`` of a split, or None.

    ``reads(path)`` returns the options with which the dataset reads a file or folder that exists, such as
    ``{"root": str(path)}``, and None for any other path. With it, commands such as `finetune eval` take a path in place
    of a recipe. The dataset that was registered last is asked first.
    """

    kind: ClassVar[str] = "dataset"
    hook: ClassVar[str] = "finetune_datasets"
    section: ClassVar[str] = "dataset"

    build: Callable[[Any, Split], Samples | None]
    reads: Callable[[Path], Mapping[str, Any] | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation(Component):
    """A random change of training images: ``build(options, image)`` returns ``(pixels, rng) -> pixels``.

    Pixels are HWC uint8 RGB of any size; all randomness comes from ``rng``, which the engine seeds for each sample.
    ``native(options, image)`` returns the same change as operations of ``mindspore.dataset.vision``, from the bytes of
    a file to HWC uint8 of the image's size, for devices that MindSpore's own pipeline feeds; None if that is not
    possible. ``check(options)`` yields findings on options that have valid types; it must not import heavy libraries.
    ``for_head(options)`` returns options for a head that is fitted to a frozen network, if the given ones leave the
    choice open.
    """

    kind: ClassVar[str] = "augmentation"
    hook: ClassVar[str] = "finetune_augmentations"
    section: ClassVar[str] = "augment"
    many: ClassVar[bool] = True

    build: Callable[[Any, ImageSpec], Transform]
    native: Callable[[Any, ImageSpec], Sequence[Any] | None] | None = None
    check: Callable[[Any], Iterable[Finding]] | None = None
    for_head: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezer(Component):
    """A freezing policy: ``build(options)`` returns a pure function ``(epoch, stages) -> stages that train``.

    Epochs count from 1; ``stages`` are in order of the network and end with ``head``. ``check(options, stages,
    epochs)`` yields findings on the options for this network and this number of epochs. Both receive names of stages in
    place of positions such as ``last 2``; ``positions=False`` passes the options as written.
    """

    kind: ClassVar[str] = "freezer"
    hook: ClassVar[str] = "finetune_freezers"
    section: ClassVar[str] = "freeze"

    build: Callable[[Any], Callable[[int, tuple[str, ...]], frozenset[str]]]
    check: Callable[[Any, tuple[str, ...], int], Iterable[Finding]] | None = None
    positions: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback(Component):
    """An observer of a run: ``build(options)`` returns an object whose ``@hookimpl`` methods handle events.

    ``check(options, facts)`` yields options that are wrong or have no effect in this run. It is called before the
    dataset is read, and again afterwards with more ``facts``.
    """

    kind: ClassVar[str] = "callback"
    hook: ClassVar[str] = "finetune_callbacks"
    section: ClassVar[str] = "callbacks"
    many: ClassVar[bool] = True

    build: Callable[[Any], object]
    check: Callable[[Any, RunFacts], Iterable[Finding]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedImages:
    """The images that an audit checks: all splits, in order.

    ``features`` (N, D) float32 are those of the frozen network, ``labels`` (N,) indices of ``classes``. ``read(index)``
    returns the pixels of an image, HWC uint8 RGB.
    """

    paths: Sequence[str]
    splits: Sequence[str]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    features: NDArray[np.float32]
    read: Callable[[int], Pixels]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFinding:
    """What a check found about an image: its index, and a text such as 'shows a watermark'.

    ``exclude`` proposes to leave the image out, ``relabel`` proposes another class.
    """

    image: int
    text: str
    exclude: bool = False
    relabel: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Component):
    """A check of an audit: ``build(options)`` returns a function from ``AuditedImages`` to ``ImageFinding``s."""

    kind: ClassVar[str] = "audit"
    hook: ClassVar[str] = "finetune_audits"
    section: ClassVar[str] = "audit"
    many: ClassVar[bool] = True

    build: Callable[[Any], Callable[[AuditedImages], Iterable[ImageFinding]]]


# Deprecated fields of backbones and their new names; the old ones are accepted until the next release.
RENAMED = {"products": "matmul_form", "products_avx2": "matmul_form_avx2"}


def accept_old_names(kind: type[Backbone]) -> None:
    """Accept the old names of fields of a backbone, with a ``DeprecationWarning``."""
    create = kind.__init__

    @wraps(create)
    def create_renamed(self: Backbone, **values: Any) -> None:
        for old in values.keys() & RENAMED.keys():
            warn_of_old_name(old)
            values[RENAMED[old]] = values.pop(old)
        create(self, **values)

    def get_renamed(self: Backbone, name: str) -> Any:
        if name not in RENAMED:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        warn_of_old_name(name)
        return getattr(self, RENAMED[name])

    kind.__init__ = create_renamed  # type: ignore[method-assign]
    kind.__getattr__ = get_renamed  # type: ignore[attr-defined]


def warn_of_old_name(old: str) -> None:
    text = f"Backbone.{old} is deprecated and will be removed in the next release; use {RENAMED[old]}"
    warnings.warn(text, DeprecationWarning, stacklevel=3)


accept_old_names(Backbone)

KINDS: tuple[type[Component], ...] = (Backbone, Dataset, Augmentation, Freezer, Callback, Audit)
