"""Colour profiles: converts the colours of an image to sRGB by the ICC profile that is embedded in its file.

The intent is relative colorimetric with black point compensation: colours inside sRGB come out as they are, white
stays white and black stays black. A profile that changes nothing visible, such as one of the many variants of sRGB,
is recognised by what it does to a set of probe colours, so that the pixels of its images are not touched.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

SRGB = 2  # of 255: the largest change of a probe colour by a profile that counts as sRGB; variants differ by 1
KNOWN = 256  # profiles whose transforms are kept
LARGEST = 1 << 24  # bytes of a profile; one in a JPEG cannot be larger
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}  # of a profile: the mode that it fits
DEVICES = ("scnr", "mntr", "prtr", "spac")  # classes of profiles that describe the colours of an image

DAMAGED = "a colour profile that is damaged"
UNFITTING = "a colour profile that does not fit the image's colour mode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How a profile changes colours of ``mode``: by ``transform``, or not at all.

    ``name`` is what the profile calls itself, and ``problem`` says why it cannot be used.
    """

    mode: str
    transform: Any = None
    name: str = ""
    problem: str = ""


def to_srgb(image: Image.Image) -> Image.Image:
    """Return a loaded image with its colours in sRGB, in RGB or RGBA; one whose profile changes nothing as it is."""
    found = find_conversion(image)
    if found is None or found.transform is None:
        return image
    return _convert(image, found)


def find_conversion(image: Image.Image) -> Conversion | None:
    """Return what the profile of an opened image means for its colours, or None where the image has none."""
    mode = _reduce_mode(image.mode)
    if mode == "LAB":
        return _build_lab_conversion()
    if "icc_profile" not in image.info:
        return None
    profile = image.info["icc_profile"]
    if not profile or not isinstance(profile, bytes):  # Pillow could not put its pieces together
        return Conversion(mode=mode, problem=DAMAGED)
    key = (hashlib.blake2b(profile, digest_size=16).digest(), mode)
    found = _known.get(key)
    if found is None:
        found = _read_profile(profile, mode)
        if len(_known) >= KNOWN:
            _known.clear()
        _known[key] = found  # two threads may make the same one, which does no harm
    return found


def is_converted(image: Image.Image) -> bool:
    """Tell whether ``to_srgb`` changes the colours of an image, which need not be loaded."""
    found = find_conversion(image)
    return found is not None and found.transform is not None


_known: dict[tuple[bytes, str], Conversion] = {}


def _reduce_mode(mode: str) -> str:
    """Return the mode of the colours in an image, without transparency, palettes and bits above the eighth."""
    if mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16"):
        return "L"
    return mode if mode in ("CMYK", "LAB") else "RGB"


def _read_profile(profile: bytes, mode: str) -> Conversion:
    """Return the conversion of a profile that was not seen before."""
    try:
        from PIL import ImageCms
    except ImportError:
        return Conversion(mode=mode, problem="a colour profile, which this build of Pillow does not read")
    try:
        if len(profile) > LARGEST:
            raise ValueError("too large")
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        about = opened.profile
        name = str(about.profile_description or "").strip()
        fits = SPACES.get(about.xcolor_space.strip()) == mode and about.device_class.strip() in DEVICES
        transform = _build_transform(opened, mode) if fits else None
    except Exception:  # littlecms and Pillow raise almost anything on damaged profiles
        return Conversion(mode=mode, problem=DAMAGED)
    if not fits:
        return Conversion(mode=mode, name=name, problem="" if _is_srgb_like(opened, mode) else UNFITTING)
    if mode in ("RGB", "L") and _measure_change(transform, mode) <= SRGB:
        return Conversion(mode=mode, name=name)
    return Conversion(mode=mode, name=name, transform=transform)


def _build_transform(profile: Any, mode: str) -> Any:
    """Return littlecms' transform from a profile to sRGB; several threads may use it at once."""
    from PIL import ImageCms

    # By default littlecms puts colours that take more than matrices on a grid, too coarse near the edges of sRGB.
    exact = ImageCms.Flags.NOOPTIMIZE if mode == "LAB" else ImageCms.Flags.HIGHRESPRECALC
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | exact
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)


@cache
def _build_lab_conversion() -> Conversion:
    """Return the conversion of images in CIE Lab (D50)."""
    try:
        from PIL import ImageCms

        transform = _build_transform(ImageCms.createProfile("LAB"), "LAB")
    except ImportError:
        return Conversion(mode="LAB")
    return Conversion(mode="LAB", name="CIE Lab", transform=transform)


def _is_srgb_like(profile: Any, mode: str) -> bool:
    """Tell whether a profile for RGB on a grey image is sRGB: many programs leave it there, and it changes nothing."""
    if mode != "L" or profile.profile.xcolor_space.strip() != "RGB":
        return False
    try:
        return _measure_change(_build_transform(profile, "RGB"), "RGB") <= SRGB
    except Exception:  # no transform can be made of it
        return False


def _measure_change(transform: Any, mode: str) -> int:
    """Return by how much, of 255, a transform changes a probe colour at most."""
    probe = _make_probe(mode)
    before = np.asarray(probe.convert("RGB"), np.int16)
    after = np.asarray(transform.apply(probe), np.int16)
    return int(np.abs(after - before).max())


@cache
def _make_probe(mode: str) -> Image.Image:
    """Return an image of colours throughout a mode: all greys, and a grid of RGB."""
    greys = np.arange(256, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(greys[None])
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    grid: NDArray[np.uint8] = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    return Image.fromarray(np.concatenate([np.repeat(greys[None, :, None], 3, axis=2), grid], axis=1))


def _convert(image: Image.Image, found: Conversion) -> Image.Image:
    """Return an image in sRGB, with the transparency that it had."""
    if not image.has_transparency_data:
        return _apply(image if image.mode == found.mode else image.convert(found.mode), found)
    clear = image.convert("RGBA")
    result = _apply(clear.convert(found.mode), found)
    result.putalpha(clear.getchannel("A"))
    return result


def _apply(image: Image.Image, found: Conversion) -> Image.Image:
    result: Image.Image = found.transform.apply(image)
    result.info = {}
    return result
