"""``check_augmentation``: checks the contract of augmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import Augmentation, ImageSpec
from finetune.data.loader import UINT8, Stream, describe_unfit, make_generator
from finetune.testing.contract import COMMON, PROCESS, Inspection, StopCheck, call_build, inspect_component
from finetune.testing.photos import draw_picture
from finetune.testing.threads import describe_differences, find_differences

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from finetune.components import Pixels, Transform

RULES = {
    **COMMON,
    "build": "`build(options, image)` returns a function `(pixels, rng) -> pixels`",
    "image": "it takes and returns HWC uint8 RGB of any size",
    "seed": "all randomness comes from `rng`: the same generator gives the same pixels, even after another `build`",
    "order": "one image does not affect the next",
    "threads": "pixels are the same if several threads work at the same time",
    **PROCESS,
}
SIZES = ((48, 64), (64, 48), (33, 57), (12, 200), (200, 12), (5, 5), (1, 1))  # height and width in pixels
EPOCHS = 3

Job = tuple[int, int]  # an image and an epoch


def check_augmentation(
    augmentation: Augmentation | str,
    options: Mapping[str, Any] | None = None,
    *,
    image: ImageSpec | None = None,
    skip: Collection[str] = (),
) -> None:
    """Raise ``ContractError`` with every rule of augmentations that one breaks.

    ``augmentation`` is a component, or the name of an installed one; ``options`` are its options as in a recipe.
    ``image`` is the input of the network, by default 64 pixels. ``skip`` lists rules to skip.
    """
    __tracebackhide__ = True
    inspection = inspect_component(Augmentation, augmentation, options, RULES, skip)
    with inspection.going_on():
        check_transform(inspection, image or ImageSpec(size=64, resize=72))
    inspection.report()


REMEDY = "take all random numbers from rng"


def check_transform(inspection: Inspection[Augmentation], spec: ImageSpec) -> None:
    """Change images of several sizes: repeatedly, in another order, in threads, and after another build."""
    jobs = [(number, epoch) for number in range(len(SIZES)) for epoch in range(1, EPOCHS + 1)]
    transform = build_transform(inspection, spec)
    alone = [transform_image(inspection, transform, job) for job in jobs]
    if not inspection.wants("image"):
        raise StopCheck
    with inspection.rule("seed", "the second call with the same generator", "fix it", vital=True):
        for job in jobs:
            apply_transform(transform, job)  # effects of the previous image belong to the next rule
            if not are_equal(apply_transform(transform, job), apply_transform(transform, job)):
                inspection.breaks("seed", f"{describe_job(job)} changed differently with the same generator; {REMEDY}")
                break
    with inspection.rule("order", "another order of images", "keep no state between calls"):
        for job, before in list(zip(jobs, alone, strict=True))[::-1]:
            if not are_equal(apply_transform(transform, job), before):
                text = f"{describe_job(job)} changed differently after other images; keep no state between calls"
                inspection.breaks("order", text)
    with inspection.rule("threads", "work in threads", "keep no state between calls"):
        if wrong := find_differences(
            lambda job: apply_transform(transform, job).tobytes(), jobs, [a.tobytes() for a in alone]
        ):
            job, seen = jobs[wrong[0][0]], describe_differences(wrong)
            text = f"{describe_job(job)}, changed by several threads at once, {seen}"
            inspection.breaks("threads", f"{text}; keep no state between calls, or use a threading.local")
    fresh = build_transform(inspection, spec)
    with inspection.rule("seed", "another build", "return the same again"):
        if not all(are_equal(apply_transform(fresh, job), before) for job, before in zip(jobs, alone, strict=True)):
            inspection.breaks("seed", f"another build made different images with the same generators; {REMEDY}")


def build_transform(inspection: Inspection[Augmentation], spec: ImageSpec) -> Transform:
    """Return the result of ``build``, if it can be called."""
    transform: Transform = call_build(inspection, spec)
    if not callable(transform):
        inspection.breaks("build", f"build returned {transform!r:.80}; return a function of pixels and a generator")
        raise StopCheck
    return transform


def transform_image(inspection: Inspection[Augmentation], transform: Transform, job: Job) -> Pixels:
    """Transform an image, and check the result."""
    found = np.zeros((1, 1, 3), np.uint8)
    with inspection.rule("image", describe_job(job), "take images of any size"):
        given: object = apply_transform(transform, job)
        if wrong := describe_unfit(given):
            inspection.breaks("image", f"{describe_job(job)} became {wrong}; {UINT8}")
        else:
            found = np.array(given)
    return found


def apply_transform(transform: Transform, job: Job) -> Pixels:
    """Transform an image with the generator of its epoch."""
    number, epoch = job
    pixels = draw_picture(*SIZES[number], seed=number)
    return transform(pixels, make_generator(Stream.AUGMENT, 0, epoch, number))


def are_equal(first: Pixels, second: Pixels) -> bool:
    """Return whether two images have the same shape, type and pixels."""
    return np.array_equal(first, second)


def describe_job(job: Job) -> str:
    """Describe an image by its size."""
    height, width = SIZES[job[0]]
    return f"an image of {height}x{width} pixels"
