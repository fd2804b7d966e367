"""Augmentations that break one rule each: what ``check_augmentation`` says."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Augmentation, Dataset, ImageSpec, NoOptions
from finetune.testing import check_augmentation
from finetune.testing.augmentations import RULES
from tests.testing.bad_datasets import Loose
from tests.testing.broken import broken

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once


def mine(transform: Any) -> Augmentation:
    """Return an augmentation whose ``build`` returns this."""
    return Augmentation(name="mine", build=lambda options, image: transform)


def made(make: Callable[[], Any], options: Any = NoOptions) -> Augmentation:
    """Return an augmentation that makes its function anew at every build."""
    return Augmentation(name="mine", options=options, build=lambda options, image: make())


def plain(pixels: Any, rng: Any) -> Any:
    return pixels


def noise(pixels: Any, rng: np.random.Generator) -> Any:
    return np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)


def elsewhere() -> Any:
    """Return what draws from a generator of its own."""
    own = np.random.default_rng(1)
    return lambda pixels, rng: pixels ^ own.integers(0, 255, pixels.shape, np.uint8)


def blending() -> Any:
    """Return what adds the brightness of the image before."""
    own = threading.local()

    def blend(pixels: Any, rng: Any) -> Any:
        last, own.last = getattr(own, "last", 0), pixels.shape[0]
        return pixels ^ np.uint8(last)

    return blend


def sharing() -> Any:
    """Return what keeps its image where threads overwrite it."""
    state: dict[str, Any] = {}

    def turn(pixels: Any, rng: Any) -> Any:
        state["pixels"] = pixels
        time.sleep(0.001)
        return state["pixels"][::-1]

    return turn


BUILT = [0]


def counting() -> Any:
    """Return what depends on how many were built before."""
    BUILT[0] += 1
    value = np.uint8(BUILT[0])
    return lambda pixels, rng: pixels ^ value


def printing(pixels: Any, rng: Any) -> Any:
    print("flip")
    return pixels


def legacy(pixels: Any, rng: Any) -> Any:
    np.random.rand()
    return pixels


BROKEN: list[tuple[str, Any, str, str]] = [
    ("no augmentation", Dataset(name="mine", build=print), "component", "finetune_augmentations returned Dataset("),
    (
        "loose options",
        made(lambda: plain, Loose),
        "options",
        "an unknown key is accepted, so a misspelt key has no effect",
    ),
    (
        "no function",
        mine(None),
        "build",
        "build returned None; return a function of pixels and a generator",
    ),
    (
        "build without the image",
        Augmentation(name="mine", build=lambda options: plain),  # type: ignore[arg-type,misc]
        "build",
        "takes 1 positional argument but 2 were given; fix it",
    ),
    (
        "floats",
        mine(lambda pixels, rng: pixels / 255),
        "image",
        "an image of 48x64 pixels became an array of shape 48x64x3 and type float64; return (height, width, "
        "3) uint8; the engine normalises",
    ),
    (
        "grey",
        mine(lambda pixels, rng: pixels[..., 0]),
        "image",
        "an image of 48x64 pixels became an array of shape 48x64 and type uint8; return (height, width, 3) "
        "uint8; the engine normalises",
    ),
    (
        "a list",
        mine(lambda pixels, rng: pixels.tolist()),
        "image",
        "an image of 48x64 pixels became a list; return (height, width, 3) uint8; the engine normalises",
    ),
    (
        "nothing left",
        mine(lambda pixels, rng: pixels[10:-10, 10:-10]),
        "image",
        "an image of 12x200 pixels became an array of shape 0x180x3 and type uint8; return (height, width, "
        "3) uint8; the engine normalises",
    ),
    (
        "one size only",
        mine(lambda pixels, rng: pixels + np.zeros((48, 64, 3), np.uint8)),
        "image",
        "an image of 64x48 pixels raised ValueError: operands could not be broadcast together with shapes (64,48,3) "
        "(48,64,3); take images of any size",
    ),
    (
        "another generator",
        made(elsewhere),
        "seed",
        "an image of 48x64 pixels changed differently with the same generator; take all random numbers from rng",
    ),
    (
        "another build",
        made(counting),
        "seed",
        "another build made different images with the same generators; take all random numbers from rng",
    ),
    (
        "the image before",
        made(blending),
        "order",
        "changed differently after other images; keep no state between calls",
    ),
    (
        "threads overwrite",
        made(sharing),
        "threads",
        "changed by several threads at once, differed from the result of one thread; keep no state "
        "between calls, or use "
        "a threading.local",
    ),
    ("prints", mine(printing), "process", "prints 'flip\\n'; use run.say, findings or logging"),
    (
        "numpy's own generator",
        mine(legacy),
        "process",
        "draws from or seeds the generator of numpy.random; use your own, np.random.default_rng(seed)",
    ),
]


@pytest.mark.parametrize(("component", "rule", "text"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_a_broken_rule_says_what_to_do(component: Any, rule: str, text: str) -> None:
    found = broken(check_augmentation, component)
    beside = {"threads"} if rule == "order" else set()  # what an image depends on the one before in, threads see too
    assert [each[0] for each in found if each[0] not in beside] == [rule], found
    assert text in found[0][1]


def test_every_rule_is_broken_once() -> None:
    assert {rule for _, _, rule, _ in BROKEN} == RULES.keys()


def test_state_that_each_thread_has_for_itself_will_do() -> None:
    own = threading.local()

    def turn(pixels: Any, rng: Any) -> Any:
        own.pixels = noise(pixels, rng)
        time.sleep(0.0001)
        return own.pixels

    check_augmentation(mine(turn))


def test_it_may_work_in_place_and_return_a_part() -> None:
    def part(pixels: Any, rng: Any) -> Any:
        pixels[:] = 255 - pixels
        return pixels[: 1 + pixels.shape[0] // 2]

    check_augmentation(mine(part))


def test_it_may_ask_for_the_size_of_the_network() -> None:
    def build(options: Any, image: ImageSpec) -> Any:
        return lambda pixels, rng: np.resize(pixels, (image.size, image.size, 3))

    check_augmentation(Augmentation(name="mine", build=build), image=ImageSpec(size=24))


def test_one_that_does_nothing_is_in_order() -> None:
    check_augmentation(mine(plain))
    check_augmentation("albumentations", {"preset": "none"})
