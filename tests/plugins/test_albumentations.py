"""The augmentation `albumentations`: presets and ops, all randomness from the engine, clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

from finetune import ImageSpec, RecipeError
from finetune.data.images import decode, fit
from finetune_plugins.albumentations import (
    PRESETS,
    Albumentations,
    Augment,
    build,
    find_unknown,
    finetune_augmentations,
    list_transforms,
    load_library,
)
from finetune_plugins.albumentations_names import TRANSFORMS

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ImageSpec(size=96, resize=112)


def options(**given: Any) -> Albumentations:
    """Return options as they come out of a recipe."""
    return Albumentations.model_validate_json(json.dumps(given))


def ops(*listed: Any) -> Augment:
    """Return the augmentation of a list of ops."""
    return build(options(ops=listed), SPEC)


def photo(height: int = 140, width: int = 200) -> np.ndarray:
    """Return a smooth image with some noise."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    noise = np.random.default_rng(0).random((height, width, 3)) * 0.1
    return ((np.stack([x, y, x * y], axis=-1) * 0.9 + noise) * 255).astype(np.uint8)


def rng(index: int) -> np.random.Generator:
    """Return the generator of a sample, as the loader makes it."""
    return np.random.Generator(np.random.Philox(key=[3, index]))


def mistakes(*listed: Any) -> tuple[str, ...]:
    """Return what is wrong with ops."""
    with pytest.raises(RecipeError) as caught:
        ops(*listed)
    return caught.value.mistakes


def test_it_is_offered_by_its_name() -> None:
    (offered,) = finetune_augmentations()
    assert (offered.name, offered.options) == ("albumentations", Albumentations)
    assert offered.build(offered.options(), SPEC)(photo(), rng(0)).shape == (96, 96, 3)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("shape", [(140, 200), (300, 90), (20, 30), (1, 1), (96, 96), (1, 30_000)])
def test_presets_return_images_of_the_size_asked_for(preset: str, shape: tuple[int, int]) -> None:
    augment = build(options(preset=preset), SPEC)
    for index in range(5):
        changed = augment(photo(*shape), rng(index))
        assert changed.shape == (96, 96, 3)
        assert changed.dtype == np.uint8


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_same_generator_gives_the_same_bits_in_any_thread_and_order(preset: str) -> None:
    augment, pixels, count = build(options(preset=preset), SPEC), photo(), 24
    expected = [augment(pixels, rng(index)).tobytes() for index in range(count)]
    with ThreadPoolExecutor(4) as pool:
        found = dict(pool.map(lambda index: (index, augment(pixels, rng(index)).tobytes()), reversed(range(count))))
    assert [found[index] for index in range(count)] == expected
    assert build(options(preset=preset), SPEC)(pixels, rng(7)).tobytes() == expected[7]
    assert len(set(expected)) == (1 if preset == "none" else count)


def test_other_random_numbers_of_the_process_play_no_part() -> None:
    import random

    augment = build(options(preset="strong"), SPEC)
    first = augment(photo(), rng(1))
    random.seed(1)
    np.random.seed(1)
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    np.testing.assert_array_equal(augment(photo(), rng(1)), first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]


def test_transforms_are_independent_of_each_other() -> None:
    augment, pixels = ops("HorizontalFlip", "VerticalFlip"), np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    corners = Counter(tuple(np.argwhere(augment(pixels, rng(i))[..., 0])[0].tolist()) for i in range(400))
    assert len(corners) == 4
    assert min(corners.values()) > 60


def test_the_image_given_stays_as_it_is() -> None:
    pixels = photo()
    for preset in PRESETS:
        build(options(preset=preset), SPEC)(pixels, rng(0))
    np.testing.assert_array_equal(pixels, photo())


@pytest.mark.parametrize("keep_aspect", [True, False])
def test_preset_none_shows_what_evaluation_shows(flowers: Path, keep_aspect: bool) -> None:
    spec = ImageSpec(keep_aspect=keep_aspect)
    augment = build(options(preset="none"), spec)
    for path in sorted((flowers / "valid").glob("*/*.jpg"))[::150]:
        pixels = decode(path)
        assert abs(augment(pixels, rng(0)).astype(int) - fit(pixels, spec)).mean() < 2.0


def test_presets_keep_photos_recognisable(flowers: Path) -> None:
    pixels = decode(next((flowers / "valid").glob("*/*.jpg")))
    for preset in ("light", "standard", "strong"):
        augment = build(options(preset=preset), ImageSpec())
        brightness = [augment(pixels, rng(i)).mean() for i in range(20)]
        assert abs(np.mean(brightness) - pixels.mean()) < 30
        assert np.std(brightness) > 0.5


def test_ops_replace_the_preset() -> None:
    augment = ops({"CenterCrop": {"height": 50, "width": 60}}, {"HorizontalFlip": {"p": 1.0}}, {"ToGray": None})
    changed = augment(photo(), rng(0))
    assert changed.shape == (50, 60, 3)
    assert (changed[..., 0] == changed[..., 1]).all()
    assert ops()(photo(), rng(0)).shape == (140, 200, 3)


def test_ops_may_hold_ops() -> None:
    inner = [{"CenterCrop": {"height": 10, "width": 10}}, {"CenterCrop": {"height": 20, "width": 20}}]
    augment = ops({"OneOf": {"transforms": inner, "p": 1.0}})
    assert {augment(photo(), rng(i)).shape[0] for i in range(20)} == {10, 20}


def test_unknown_transforms_and_arguments_are_all_named() -> None:
    assert mistakes(
        {"HorizontalFlipp": {}},
        {"RandomResizedCrop": {"sise": [96, 96]}},
        {"RandomResizedCrop": {"size": [1, 2, 3], "scale": "x"}},
        "Xyzzy",
        "Compose3",
        "BasicTransform",
        {"OneOf": {"transforms": ["Blur", "Blurr", {"Blur": {}, "ToGray": {}}, {"Blur": [3]}, 7]}},
    ) == (
        "ops[0]: no transform 'HorizontalFlipp' in albumentations; did you mean 'HorizontalFlip'?",
        "ops[1]: RandomResizedCrop has no argument 'sise'; did you mean 'size'?",
        "ops[2]: RandomResizedCrop: scale: Input should be a valid tuple (got 'x')",
        "ops[2]: RandomResizedCrop: size: Tuple should have at most 2 items after validation, not 3 (got [1, 2, 3])",
        "ops[3]: no transform 'Xyzzy' in albumentations",
        "ops[4]: no transform 'Compose3' in albumentations; did you mean 'Compose'?",
        "ops[5]: no transform 'BasicTransform' in albumentations; did you mean 'ElasticTransform'?",
        "ops[6].OneOf[1]: no transform 'Blurr' in albumentations; did you mean 'Blur'?",
        "ops[6].OneOf[2]: {'Blur': {}, 'ToGray': {}} is not a transform; write it as {HorizontalFlip: {p: 0.5}}",
        "ops[6].OneOf[3]: {'Blur': [3]} is not a transform; write it as {HorizontalFlip: {p: 0.5}}",
        "ops[6].OneOf[4]: 7 is not a transform; write it as {HorizontalFlip: {p: 0.5}}",
    )


def test_unknown_transforms_show_before_the_library_is_there() -> None:
    listed = [{"HorizontalFlipp": {}}, "Blur", {"OneOf": {"transforms": ["Blur", {"Blurr": {"p": 1}}, 7]}}, "Xyzzy"]
    assert [(each.severity, each.subject, each.text) for each in find_unknown(options(ops=listed))] == [
        ("error", "ops[0]", "no transform 'HorizontalFlipp' in albumentations; did you mean 'HorizontalFlip'?"),
        ("error", "ops[2].OneOf.transforms[1]", "no transform 'Blurr' in albumentations; did you mean 'Blur'?"),
        ("error", "ops[2].OneOf.transforms[2]", "7 is not a transform; write it as {HorizontalFlip: {p: 0.5}}"),
        ("error", "ops[3]", "no transform 'Xyzzy' in albumentations"),
    ]
    assert list(find_unknown(options(preset="light"))) == []


def test_the_names_are_those_of_the_library() -> None:
    assert list(TRANSFORMS) == list_transforms(load_library())


def test_missing_and_wrong_values_are_named() -> None:
    assert mistakes({"RandomCrop": {"height": 5}}) == ("ops[0]: RandomCrop: width: Field required",)
    (message,) = mistakes({"HorizontalFlip": {"p": 2}})
    assert message == "ops[0]: HorizontalFlip: p: Input should be less than or equal to 1 (got 2)"


@pytest.mark.parametrize("name", ["Normalize", "ToFloat"])
def test_what_the_engine_does_itself_is_refused(name: str) -> None:
    (message,) = mistakes(name)
    assert (
        message == f"ops[0]: {name} returns float32 of shape 64x64x3; remove it, because the engine normalises images"
    )


@pytest.mark.parametrize("name", ["BBoxSafeRandomCrop", "MaskDropout", "FDA", "Mosaic", "CoarseDropout3D"])
def test_transforms_that_need_more_than_a_photo_are_refused(name: str) -> None:
    (message,) = mistakes(name)
    assert message.startswith(f"ops[0]: {name} needs ")
    assert message.endswith(", which labelled images do not have; remove it")


def test_preset_and_ops_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="preset 'light' conflicts with ops; remove one of them"):
        options(preset="light", ops=["HorizontalFlip"])
    with pytest.raises(ValidationError, match="ops\\[1\\] has 2 keys; give one, such as"):
        options(ops=["HorizontalFlip", {"Blur": {}, "ToGray": {}}])
    with pytest.raises(ValidationError, match="'none', 'light', 'standard' or 'strong'"):
        options(preset="lite")


@pytest.mark.parametrize("given", [{}, {"preset": "light"}, {"ops": ["HorizontalFlip", {"Blur": {"p": 0.1}}]}])
def test_options_survive_being_written_down(given: dict[str, Any]) -> None:
    chosen = options(**given)
    assert Albumentations.model_validate_json(chosen.model_dump_json()) == chosen


def test_import_is_cheap_and_use_is_silent_and_offline(repo: Path) -> None:
    code = """
import sys, socket
def guard(*arguments, **options): raise SystemExit("a network call")
socket.socket.connect = socket.getaddrinfo = guard
import finetune_plugins.albumentations as plugin
heavy = {"albumentations", "cv2", "scipy", "mindspore"} & set(sys.modules)
assert not heavy, heavy
from finetune import ImageSpec
import numpy as np
plugin.build(plugin.Albumentations(), ImageSpec())(np.zeros((300, 300, 3), np.uint8), np.random.default_rng(0))
import cv2
assert cv2.getNumThreads() <= 1
"""
    path = os.pathsep.join(str(repo / folder) for folder in ("", "model", "plugins"))
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("NO_ALBUMENTATIONS_UPDATE", None)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
