"""Colour profiles: converts the colours of an image to sRGB by the ICC profile that is embedded in its file.

The intent is relative colorimetric with black point compensation: colours inside sRGB are unchanged, white stays white
and black stays black. A profile that changes nothing visible, such as one of the many variants of sRGB, is recognised
by its effect on a set of probe colours, and the pixels of its images are left unchanged.
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
KNOWN = 256  # profiles whose transforms are cached
LARGEST = 1 << 24  # maximum bytes of a profile; one in a JPEG cannot be larger
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}  # colour space of a profile: matching image mode
DEVICES = ("scnr", "mntr", "prtr", "spac")  # classes of profiles that describe the colours of an image

DAMAGED = "a damaged colour profile"
UNFITTING = "a colour profile that does not match the image's colour mode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How a profile changes colours of ``mode``: by ``transform``, or not at all if that is None.

    ``name`` is the profile's description of itself, and ``problem`` says why it cannot be used.
    """

    mode: str
    transform: Any = None
    name: str = ""
    problem: str = ""


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to sRGB, in RGB or RGBA; an image whose profile changes nothing is returned unchanged."""
    found = find_conversion(image)
    if found is None or found.transform is None:
        return image
    return _convert(image, found)


def find_conversion(image: Image.Image) -> Conversion | None:
    """Return the conversion for the profile of an opened image, None if it has no profile."""
    mode = _reduce_mode(image.mode)
    if mode == "LAB":
        return _build_lab_conversion()
    if "icc_profile" not in image.info:
        return None
    profile = image.info["icc_profile"]
    if not profile or not isinstance(profile, bytes):  # Pillow could not join its pieces
        return Conversion(mode=mode, problem=DAMAGED)
    key = (hashlib.blake2b(profile, digest_size=16).digest(), mode)
    found = _known.get(key)
    if found is None:
        found = _read_profile(profile, mode)
        if len(_known) >= KNOWN:
            _known.clear()
        _known[key] = found  # two threads may compute the same conversion, which is harmless
    return found


def is_converted(image: Image.Image) -> bool:
    """Return whether ``to_srgb`` changes the colours of an image, which does not have to be loaded."""
    found = find_conversion(image)
    return found is not None and found.transform is not None


_known: dict[tuple[bytes, str], Conversion] = {}


def _reduce_mode(mode: str) -> str:
    """Reduce an image mode to that of its colours, without transparency, palettes and bits above the eighth."""
    if mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16"):
        return "L"
    return mode if mode in ("CMYK", "LAB") else "RGB"


def _read_profile(profile: bytes, mode: str) -> Conversion:
    """Read a profile that is not cached, and return its conversion."""
    try:
        from PIL import ImageCms
    except ImportError:
        return Conversion(mode=mode, problem="a colour profile, which this build of Pillow does not support")
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
    """Build littlecms' transform from a profile to sRGB, which is thread-safe."""
    from PIL import ImageCms

    # By default littlecms approximates complex profiles on a grid, which is too coarse near the edges of sRGB.
    exact = ImageCms.Flags.NOOPTIMIZE if mode == "LAB" else ImageCms.Flags.HIGHRESPRECALC
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | exact
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)


@cache
def _build_lab_conversion() -> Conversion:
    """Build the conversion of images in CIE Lab (D50)."""
    try:
        from PIL import ImageCms

        transform = _build_transform(ImageCms.createProfile("LAB"), "LAB")
    except ImportError:
        return Conversion(mode="LAB")
    return Conversion(mode="LAB", name="CIE Lab", transform=transform)


def _is_srgb_like(profile: Any, mode: str) -> bool:
    """Return whether a grey image has an sRGB profile, which many programs leave there and which changes nothing."""
    if mode != "L" or profile.profile.xcolor_space.strip() != "RGB":
        return False
    try:
        return _measure_change(_build_transform(profile, "RGB"), "RGB") <= SRGB
    except Exception:  # no transform can be made of it
        return False


def _measure_change(transform: Any, mode: str) -> int:
    """Return the largest change of a probe colour by a transform, of 255."""
    probe = _make_probe(mode)
    before = np.asarray(probe.convert("RGB"), np.int16)
    after = np.asarray(transform.apply(probe), np.int16)
    return int(np.abs(after - before).max())


@cache
def _make_probe(mode: str) -> Image.Image:
    """Make an image of probe colours of a mode: all greys, and for RGB a grid of colours."""
    greys = np.arange(256, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(greys[None])
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    grid: NDArray[np.uint8] = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    return Image.fromarray(np.concatenate([np.repeat(greys[None, :, None], 3, axis=2), grid], axis=1))


def _convert(image: Image.Image, found: Conversion) -> Image.Image:
    """Convert an image to sRGB, keeping its transparency."""
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
