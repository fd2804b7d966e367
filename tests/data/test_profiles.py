"""Colour profiles: the right colours for every mode, untouched pixels where nothing is to be done, and bad profiles."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from finetune.components import Encoded, ImageSpec
from finetune.data import looks, profiles
from finetune.data.images import decode, examine
from finetune.data.pipeline import encode_plain
from tests.data import icc
from tests.photos import photo, saved

if TYPE_CHECKING:
    from pathlib import Path

P3, ADOBE = icc.rgb(icc.P3, 0), icc.rgb(icc.ADOBE, icc.ADOBE_GAMMA)
BUILT_IN = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
INKS = {
    (0, 0, 0, 0): (100.0, 0.0, 0.0),
    (1, 0, 0, 0): (60.0, -20.0, -30.0),
    (0, 1, 0, 0): (50.0, 60.0, 0.0),
    (0, 0, 1, 0): (90.0, 0.0, 60.0),
}
STEPS = np.arange(0, 256, 51, dtype=np.uint8)
GRID = np.stack(np.meshgrid(STEPS, STEPS, STEPS), -1).reshape(6, 36, 3)


@pytest.mark.parametrize(("profile", "primaries", "gamma"), [(P3, icc.P3, 0), (ADOBE, icc.ADOBE, icc.ADOBE_GAMMA)])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_rgb_is_what_its_primaries_say(
    tmp_path: Path, profile: bytes, primaries: tuple[tuple[float, float], ...], gamma: float, name: str
) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path, Image.fromarray(GRID), name, icc_profile=profile, **options)
    assert np.abs(decode(path) - icc.expected(GRID, primaries, gamma)).max() <= 1
    np.testing.assert_array_equal(decode(path, color="ignore"), GRID)


def test_pinned_colours_of_display_p3_and_adobe_rgb(tmp_path: Path) -> None:
    colours = np.array([[[128, 64, 32], [200, 150, 120], [60, 120, 60]]], np.uint8)
    for profile, values in (
        (P3, [[138, 59, 21], [209, 147, 115], [30, 122, 52]]),
        (ADOBE, [[146, 62, 23], [217, 151, 119], [0, 121, 53]]),
    ):
        pixels = decode(saved(tmp_path, Image.fromarray(colours), "a.png", icc_profile=profile)).astype(int)
        assert np.abs(pixels[0] - values).max() <= 1


def test_cmyk_has_the_colours_of_its_inks(tmp_path: Path) -> None:
    for inks, lab in INKS.items():
        image = Image.new("CMYK", (8, 8), tuple(255 * ink for ink in inks))
        path = saved(tmp_path, image, "inks.tif", icc_profile=icc.cmyk(INKS))
        assert np.abs(decode(path).reshape(-1, 3) - icc.of_lab(lab)).max() <= 2, inks
    naive = decode(saved(tmp_path, Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "plain.tif"))
    assert naive[0, 0].tolist() == [0, 255, 255]


def test_a_cmyk_jpeg_of_adobe_programs_is_converted_too(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 0, 0))
    path = saved(tmp_path, image, "inks.jpg", quality=100, icc_profile=icc.cmyk(INKS))
    assert np.abs(decode(path)[8, 8] - icc.of_lab(INKS[0, 1, 0, 0])).max() <= 4


@pytest.mark.parametrize("name", ["grey.png", "deep.png", "deep.tif"])
def test_greys_of_8_and_16_bits(tmp_path: Path, name: str) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    values = ramp if name == "grey.png" else ramp.astype(np.uint16) * 257
    path = saved(tmp_path, Image.fromarray(values), name, icc_profile=icc.grey(1.75))
    right = icc.srgb_encoded((ramp / 255) ** 1.75)
    pixels = decode(path).astype(int)
    assert np.abs(pixels - right[..., None]).max() <= 1
    assert np.abs(pixels[..., 0] - ramp).max() > 10


def test_lab_is_converted_whatever_the_recipe_says(tmp_path: Path) -> None:
    for lab in ((54.12, 80.0, 70.0), (60.0, -20.0, -30.0), (100.0, 0.0, 0.0)):
        stored = (round(lab[0] * 2.55), round(lab[1] + 128), round(lab[2] + 128))
        path = saved(tmp_path, Image.new("LAB", (4, 4), stored), "lab.tif")
        for color in ("convert", "ignore"):
            assert np.abs(decode(path, color=color)[0, 0] - icc.of_lab(lab)).max() <= 2  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_transparency_stays(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (90, 90, 90, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    profile = icc.grey(1.75) if mode == "LA" else ADOBE
    path = saved(tmp_path, image.convert(mode), "a.png", icc_profile=profile)
    pixels = decode(path, background=(1, 2, 3)).astype(int)
    grey = icc.srgb_encoded(np.array([(90 / 255) ** (1.75 if mode == "LA" else icc.ADOBE_GAMMA)] * 3))
    assert np.abs(pixels[0, 0] - grey).max() <= 1
    assert pixels[0, 1].tolist() == [1, 2, 3]


@pytest.mark.parametrize("profile", [BUILT_IN, icc.rgb(icc.SRGB, 0)])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_srgb_leaves_every_byte(tmp_path: Path, profile: bytes, name: str) -> None:
    image = Image.fromarray(photo())
    path = saved(tmp_path, image, name, icc_profile=profile)
    without = saved(tmp_path, image, f"without-{name}")
    np.testing.assert_array_equal(decode(path), decode(without))
    assert examine(path) == examine(without)


def test_a_profile_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "_known", {})
    calls: list[int] = []
    original = profiles._read_profile
    monkeypatch.setattr(profiles, "_read_profile", lambda *each: calls.append(1) or original(*each))
    paths = [saved(tmp_path, Image.new("RGB", (4, 4)), f"{n}.png", icc_profile=P3) for n in range(5)]
    for path in paths:
        decode(path)
    assert len(calls) == 1


def test_threads_share_a_transform(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(photo(200, 300)), "a.png", icc_profile=ADOBE)
    alone = decode(path)
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(decode, [path] * 40):
            np.testing.assert_array_equal(pixels, alone)


BAD = {
    "cut": (P3[:200], "RGB", profiles.DAMAGED),
    "noise": (b"\x07" * 500, "RGB", profiles.DAMAGED),
    "grey on colours": (icc.grey(1.8), "RGB", profiles.UNFITTING),
    "inks on colours": (icc.cmyk(INKS), "RGB", profiles.UNFITTING),
    "colours on greys": (P3, "L", profiles.UNFITTING),
    "colours on inks": (ADOBE, "CMYK", profiles.UNFITTING),
    "without curves": (icc.profile(b"RGB ", b"mntr", {}), "RGB", profiles.DAMAGED),
    "a link of devices": (icc.profile(b"RGB ", b"link", {}), "RGB", profiles.UNFITTING),
    "sRGB on greys": (BUILT_IN, "L", ""),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_changes_nothing(tmp_path: Path, what: str) -> None:
    profile, mode, problem = BAD[what]
    image = Image.fromarray(photo()).convert(mode)
    path = saved(tmp_path, image, "a.tif", icc_profile=profile)
    np.testing.assert_array_equal(decode(path), decode(saved(tmp_path, image, "without.tif")))
    assert examine(path) == looks.Look(60, 40, mode, problem=problem)


def test_pieces_of_a_jpeg_that_do_not_fit_together_are_damage(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(photo()), "a.jpg", icc_profile=os.urandom(1) + P3 * 10)
    content = path.read_bytes()
    mark = content.index(b"ICC_PROFILE\0\x01")
    path.write_bytes(content[: mark + 13] + b"\x02" + content[mark + 14 :])
    assert examine(path).problem == profiles.DAMAGED


def test_gamma_and_primaries_of_a_png_are_not_a_profile(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"gAMA", (100000).to_bytes(4, "big"))
    info.add(
        b"cHRM", b"".join(each.to_bytes(4, "big") for each in (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
    )
    image = Image.fromarray(photo())
    path = saved(tmp_path, image, "a.png", pnginfo=info)
    with Image.open(path) as opened:
        assert opened.info["gamma"] == 1.0
    np.testing.assert_array_equal(decode(path), np.array(image))


@pytest.mark.parametrize("color", ["convert", "ignore"])
def test_the_native_pipeline_gets_the_same_pixels(tmp_path: Path, color: str) -> None:
    path = saved(tmp_path, Image.fromarray(photo(96, 96)), "a.jpg", icc_profile=ADOBE, quality=100)
    spec = ImageSpec(size=32, resize=36, color=color)  # type: ignore[arg-type]
    for source in (path, Encoded(name="a", data=path.read_bytes())):
        file = tmp_path / "plain"
        file.write_bytes(encode_plain(source, spec))
        np.testing.assert_array_equal(decode(file, color="ignore"), decode(path, color=spec.color))
        assert (file.read_bytes() == path.read_bytes()) == (color == "ignore")
