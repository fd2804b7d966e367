"""Augmentation ``albumentations``: a preset, or transforms of albumentations by name."""

from __future__ import annotations

import inspect
import os
import random
import threading
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import WithJsonSchema, model_validator

from finetune import Augmentation, Finding, Options, RecipeError, did_you_mean, hookimpl
from finetune_plugins.albumentations_names import OP_SCHEMA, TRANSFORMS
from finetune_plugins.importing import block_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

    from finetune import ImageSpec

    Pixels = NDArray[np.uint8]

Op = Annotated[str | dict[str, dict[str, Any] | None], WithJsonSchema(OP_SCHEMA)]

REFLECT = 4  # cv2.BORDER_REFLECT_101
TRIAL = 64  # side in pixels of the image that each transform is tried on


class Albumentations(Options):
    """Either a preset or a list of albumentations' own transforms."""

    preset: Literal["none", "light", "standard", "strong"] | None = None
    """`none` resizes and crops as in evaluation, `light` crops and flips at random, `standard` also changes brightness
    and contrast, and `strong` also rotates, changes colours and hides patches. Without a preset and ops, it is `light`
    if the head is fitted and nothing else trains, and otherwise `standard`."""
    ops: tuple[Op, ...] | None = None
    """Transforms in order, as `{RandomResizedCrop: {size: [224, 224]}}` or just `HorizontalFlip`. They get upright RGB
    images; a large JPEG is decoded at a fraction of its size, with each side at least twice `image.resize`."""

    @model_validator(mode="after")
    def one_of_two(self) -> Albumentations:
        """Reject a preset together with ops, and an op that does not have exactly one transform."""
        if self.preset is not None and self.ops is not None:
            raise ValueError(f"preset '{self.preset}' conflicts with ops; remove one of them")
        for place, op in enumerate(self.ops or ()):
            if isinstance(op, dict) and len(op) != 1:
                raise ValueError(f"ops[{place}] has {len(op)} keys; give one, such as {{HorizontalFlip: {{p: 0.5}}}}")
        return self


@hookimpl
def finetune_augmentations() -> Iterable[Augmentation]:
    """Return the augmentation ``albumentations``."""
    yield Augmentation(
        name="albumentations",
        options=Albumentations,
        build=build,
        native=build_native,
        check=find_unknown,
        for_head=choose_for_head,
    )


def choose_for_head(options: Albumentations) -> Albumentations:
    """Return the preset that suits a fitted head best, if the recipe sets none."""
    if options.preset is not None or options.ops is not None:
        return options
    return options.model_copy(update={"preset": "light"})


def find_unknown(options: Albumentations) -> Iterator[Finding]:
    """Yield an error for each op, at any depth, that is not a transform; does not import albumentations."""
    for index, op in enumerate(options.ops or ()):
        yield from find_unknown_in(op, f"ops[{index}]")


def find_unknown_in(op: object, subject: str) -> Iterator[Finding]:
    """Yield an error for an op with an unknown name, and for the ops in its list."""
    mistakes: list[str] = []
    name, arguments = split_op(op, "", mistakes)
    if name and name not in TRANSFORMS:
        mistakes.append(f": {describe_unknown(name, TRANSFORMS)}")
    for text in mistakes:
        yield Finding(severity="error", subject=subject, text=text.removeprefix(": "))
    inner = arguments.get("transforms")
    for index, each in enumerate(inner if isinstance(inner, list | tuple) else ()):
        yield from find_unknown_in(each, f"{subject}.{name}.transforms[{index}]")


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown transform."""
    hint = did_you_mean(name, known)
    return f"no transform '{name}' in albumentations{hint if 'did you mean' in hint else ''}"


def build(options: Albumentations, image: ImageSpec) -> Augment:
    """Return the transform of a preset or of ops; raises ``RecipeError`` with all mistakes in the ops."""
    library = load_library()
    ops = PRESETS[options.preset or "standard"](image) if options.ops is None else options.ops
    mistakes: list[str] = []
    for place, op in enumerate(ops):
        made = make_transform(library, op, f"ops[{place}]", mistakes)
        if made is not None:
            try_out(made, f"ops[{place}]: {type(made).__name__}", mistakes)
    if mistakes:
        raise RecipeError(mistakes)
    whole = options.preset != "none" or not image.keep_aspect
    return Augment(
        lambda: library.Compose([make_transform(library, op, "", []) for op in ops], strict=True), whole=whole
    )


class TransformError(Exception):
    """A transform failed on an image; the message starts with its name."""


class Augment:
    """Applies a composition of transforms, with all randomness from the given generator.

    Each thread has a composition of its own, because a composition keeps state of its current image.
    """

    name = "albumentations"

    def __init__(self, compose: Callable[[], Any], *, whole: bool = True) -> None:
        self._compose, self._whole = compose, whole
        self._own = threading.local()

    @property
    def certain(self) -> Augment:
        """Return the same augmentation with every transform applied unless its probability is 0, to show all faults."""
        return Augment(lambda: apply_always(self._compose()), whole=self._whole)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Return randomly changed HWC uint8 RGB pixels; the same ``rng`` gives the same pixels in any thread."""
        if not hasattr(self._own, "compose"):
            self._own.compose = self._compose()
        # set_random_seed would give every transform the same stream: two flips with p=0.5 would always coincide.
        self._own.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        image = pixels if self._whole else crop_middle(pixels)
        try:
            result: Pixels = self._own.compose(image=image)["image"]
        except Exception as error:
            height, width = image.shape[:2]
            text = f"{find_culprit(error)}on {width}x{height} pixels: {error}"
            if "crop size" in str(error).lower():
                text += "; enlarge small images first, for example with SmallestMaxSize"
            raise TransformError(text) from error
        return result


def apply_always(transform: Any) -> Any:
    """Set the probability of a transform, and of the transforms in it, to 1 unless it is 0; return the transform."""
    if transform.p:
        transform.p = 1.0
    for inner in getattr(transform, "transforms", None) or ():
        apply_always(inner)
    return transform


def find_culprit(error: BaseException) -> str:
    """Return the name of the transform that raised an error, with a space, or an empty string."""
    base = load_library().BasicTransform
    trace, name = error.__traceback__, ""
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        name = f"{type(owner).__name__} " if isinstance(owner, base) else name
        trace = trace.tb_next
    return name


def load_library() -> ModuleType:
    """Import albumentations without its network check, and prevent OpenCV from starting threads in loader threads."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    with block_torch():
        import albumentations
    import cv2

    cv2.setNumThreads(0)
    return albumentations  # type: ignore[no-any-return]


def make_transform(library: ModuleType, op: object, where: str, mistakes: list[str]) -> Any:
    """Return the transform of an op, or None after adding to ``mistakes``; ops in its list are made first."""
    before = len(mistakes)
    name, arguments = split_op(op, where, mistakes)
    kind = find_transform(library, name, where, mistakes) if name else None
    if kind is not None:
        known = list(inspect.signature(kind).parameters)
        unknown = [argument for argument in arguments if argument not in known]
        mistakes += [f"{where}: {name} has no argument '{each}'{did_you_mean(each, known)}" for each in unknown]
    if isinstance(arguments.get("transforms"), list | tuple):
        inner = enumerate(arguments["transforms"])
        arguments["transforms"] = [make_transform(library, each, f"{where}.{name}[{i}]", mistakes) for i, each in inner]
    if kind is None or len(mistakes) > before:
        return None
    try:
        return kind(**arguments)
    except Exception as error:
        mistakes += [f"{where}: {name}: {problem}" for problem in list_problems(error)]
        return None


def split_op(op: object, where: str, mistakes: list[str]) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of an op; the name is empty if it is not an op. Does not check ops inside it."""
    if isinstance(op, str):
        return op, {}
    if isinstance(op, dict) and len(op) == 1:
        name, given = next(iter(op.items()))
        if isinstance(name, str) and isinstance(given, dict | None):
            return name, dict(given or {})
    mistakes.append(f"{where}: {op!r:.60} is not a transform; write it as {{HorizontalFlip: {{p: 0.5}}}}")
    return "", {}


def find_transform(library: ModuleType, name: str, where: str, mistakes: list[str]) -> Any:
    """Return the class of a transform, or None after adding to ``mistakes``."""
    kind = getattr(library, name, None)
    if _is_transform(library, kind):
        return kind
    mistakes.append(f"{where}: {describe_unknown(name, list_transforms(library))}")
    return None


def list_transforms(library: ModuleType) -> list[str]:
    """Return the names of all transforms."""
    return [name for name in dir(library) if _is_transform(library, getattr(library, name))]


def _is_transform(library: ModuleType, kind: object) -> bool:
    bases = (library.BasicTransform, library.BaseCompose)
    return isinstance(kind, type) and issubclass(kind, bases) and kind not in bases


def list_problems(error: Exception) -> list[str]:
    """Return the faults of a transform's arguments, one line each."""
    listed: Callable[[], Sequence[Mapping[str, Any]]] | None = getattr(error.__cause__, "errors", None)
    if listed is None:
        return [str(error) or type(error).__name__]
    return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}{_format_input(each)}" for each in listed()]


def _format_input(problem: Mapping[str, Any]) -> str:
    return "" if problem["type"] == "missing" else f" (got {problem['input']!r:.60})"


def try_out(transform: Any, what: str, mistakes: list[str]) -> None:
    """Add a mistake for a transform that needs more than an image, or does not return an image."""
    import numpy as np

    if needs := list(getattr(transform, "targets_as_params", ())):
        mistakes.append(f"{what} needs {', '.join(needs)}, which labelled images do not have; remove it")
        return
    try:
        result = transform(force_apply=True, image=np.zeros((TRIAL, TRIAL, 3), np.uint8))["image"]
    except KeyError as error:
        mistakes.append(f"{what} needs {error}, which labelled images do not have; remove it")
        return
    except Exception:  # perhaps only because the trial image is too small
        return
    if result.dtype != np.uint8 or result.ndim != 3 or result.shape[2] != 3:
        shape = "x".join(map(str, result.shape))
        mistakes.append(
            f"{what} returns {result.dtype} of shape {shape}; remove it, because the engine normalises images"
        )


def build_none(image: ImageSpec) -> list[Op]:
    """Return the resize and crop of evaluation."""
    resize: Op = {"SmallestMaxSize": {"max_size": image.resize, "area_for_downscale": "image"}}
    if not image.keep_aspect:
        resize = {"Resize": {"height": image.resize, "width": image.resize, "area_for_downscale": "image"}}
    return [resize, {"CenterCrop": {"height": image.size, "width": image.size}}]


def crop_middle(pixels: Pixels) -> Pixels:
    """Return the part of a long strip that a centre crop can show; enlarging 1x30000 pixels would take gigabytes."""
    height, width = pixels.shape[:2]
    side = 2 * min(height, width)
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return pixels[top : top + side, left : left + side]


def build_light(image: ImageSpec) -> list[Op]:
    """Return a random crop and a flip."""
    return [*make_crop(image, LEAST["light"]), "HorizontalFlip"]


def build_standard(image: ImageSpec) -> list[Op]:
    """Return smaller random crops, a flip, and a change of brightness and contrast."""
    light_change = {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.75}
    return [*make_crop(image, LEAST["standard"]), "HorizontalFlip", {"RandomBrightnessContrast": light_change}]


def build_strong(image: ImageSpec) -> list[Op]:
    """Return all changes that keep an image recognisable."""
    turn = {"rotate": [-20, 20], "shear": [-8, 8], "border_mode": REFLECT, "p": 0.5}
    colour = {"hue_shift_limit": 10, "sat_shift_limit": 30, "val_shift_limit": 0, "p": 0.5}
    holes = {"num_holes_range": [1, 4], "hole_height_range": [0.05, 0.2], "hole_width_range": [0.05, 0.2]}
    return [
        *make_crop(image, 0.2),
        "HorizontalFlip",
        {"Affine": turn},
        {"RandomBrightnessContrast": {"brightness_limit": 0.3, "contrast_limit": 0.3, "p": 0.8}},
        {"HueSaturationValue": colour},
        {"CoarseDropout": {**holes, "fill": "random_uniform", "p": 0.5}},
    ]


def make_crop(image: ImageSpec, least: float) -> list[Op]:
    """Return a random crop of at least this share of the area, which averages pixels when it shrinks."""
    side = [image.size, image.size]
    return [{"RandomResizedCrop": {"size": side, "scale": [least, 1.0], "area_for_downscale": "image"}}]


LEAST = {"light": 0.6, "standard": 0.35}  # share of the area that a random crop shows


def build_native(options: Albumentations, image: ImageSpec) -> list[Any] | None:
    """Return `light` and `standard` as operations of MindSpore, with the same ranges."""
    preset = options.preset or "standard"
    if options.ops is not None or preset not in LEAST:
        return None
    from mindspore.dataset import transforms, vision

    crop_and_flip = [
        vision.RandomCropDecodeResize(image.size, scale=(LEAST[preset], 1.0)),
        vision.RandomHorizontalFlip(),
    ]
    change = vision.RandomColorAdjust(brightness=(0.8, 1.2), contrast=(0.8, 1.2))
    return crop_and_flip if preset == "light" else [*crop_and_flip, transforms.RandomApply([change], prob=0.75)]


PRESETS: dict[str, Callable[[ImageSpec], list[Op]]] = {
    "none": build_none,
    "light": build_light,
    "standard": build_standard,
    "strong": build_strong,
}
