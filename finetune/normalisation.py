"""Validation of mean and standard deviation of RGB in 0..1, with hints on what to write instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

LEVEL = 1 / 255  # smallest difference between two pixel values; as a std it scales pixels to 0..255
LEAST_LEVEL = 3  # a smaller value was probably not meant for pixels in 0..255
DEEPEST = 65535  # largest value of a 16-bit pixel
CHANNELS = 3


def find_mean_fault(mean: Any) -> str | None:
    """Return the fault of the means of red, green and blue, and its remedy; None for values in 0..1."""
    if fault := _find_shape_fault(mean):
        return fault
    if min(mean) < 0:
        return f"a mean cannot be negative, got {format_numbers(mean)}; give the mean of pixels in 0..1"
    fault = _find_scale_fault(mean)
    return fault and f"{fault}; divide the std in the same way"


def find_std_fault(std: Any) -> str | None:
    """Return the fault of the deviations of red, green and blue, and its remedy; None for values in 1/255..1.

    1 leaves pixels unchanged, and 1/255 scales them to 0..255, which some networks expect.
    """
    if fault := _find_shape_fault(std):
        return fault
    if min(std) <= 0:
        remedy = "write [1.0, 1.0, 1.0] to change nothing"
        return f"a standard deviation must be more than 0, got {format_numbers(std)}; {remedy}"
    if min(std) >= LEVEL * 0.99:
        return _find_scale_fault(std)
    if max(std) <= LEVEL:  # was divided by 255 twice
        return f"{format_numbers(std)} is less than 1/255; multiply by 255: {format_numbers([v * 255 for v in std])}"
    return f"the values have different scales, got {format_numbers(std)}; give each in 0..1"


def find_image_fault(image: dict[str, Any]) -> str | None:
    """Return the fault of ``mean`` or ``std`` in preprocessing, with its key in front; None if both are valid."""
    for key, look in (("mean", find_mean_fault), ("std", find_std_fault)):
        if key in image and (fault := look(image[key])):
            return f"{key}: {fault}"
    return None


def _find_shape_fault(values: Any) -> str | None:
    """Return the fault of values that are not three finite numbers."""
    if _is_number(values):
        remedy = f"write {format_numbers([values] * CHANNELS)}"
        return f"expected a number for each of red, green and blue, got {values}; {remedy}"
    if not isinstance(values, Sequence) or isinstance(values, str) or not all(map(_is_number, values)):
        return f"expected three numbers, got {values!r:.60}; give one for each of red, green and blue"
    if len(values) != CHANNELS:
        return f"expected three numbers, got {len(values)}; give one for each of red, green and blue"
    if not all(map(math.isfinite, values)):
        return f"must be finite numbers, got {format_numbers(values)}; give one for each of red, green and blue"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _find_scale_fault(values: Sequence[float]) -> str | None:
    """Return the fault of positive values of which some are above 1."""
    highest = max(values)
    if highest <= 1:
        return None
    if highest < LEAST_LEVEL:
        return f"{format_numbers(values)} is not in 0..1; give the values for pixels in 0..1"
    scale = next((most for most in (255, DEEPEST) if highest <= most), None)
    if scale is None:
        return f"{format_numbers(values)} is not in 0..1; give the values for pixels in 0..1"
    if any(0 < value <= 1 for value in values):
        fixed = [value if value <= 1 else value / scale for value in values]
        remedy = f"in 0..1 they are probably {format_numbers(fixed)}"
        return f"the values have different scales, got {format_numbers(values)}; {remedy}"
    fixed = [value / scale for value in values]
    return f"{format_numbers(values)} is in 0..{scale}, not in 0..1; divide by {scale}: {format_numbers(fixed)}"


def format_numbers(values: Sequence[float]) -> str:
    """Return numbers as in a recipe, rounded to four digits."""
    return f"[{', '.join(_format_number(value) for value in values)}]"


def _format_number(value: float) -> str:
    text = f"{value:.4g}" if abs(value) < 1000 else f"{value:g}"
    return text if any(mark in text for mark in ".en") else f"{text}.0"
