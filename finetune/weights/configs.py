"""Preprocessing that other projects state next to their weights: timm, Hugging Face, texts in safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from math import floor, isfinite
from typing import TYPE_CHECKING, Any

from finetune.errors import WeightsError
from finetune.weights import hubcard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 1 << 20
NESTED = ("pretrained_cfg", "default_cfg", "config", "preprocessor_config", "preprocessing", "image")
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers

Image = dict[str, Any]


def from_texts(metadata: Mapping[str, str]) -> Image:
    """Return the preprocessing in the texts of a safetensors file, each of which may be JSON."""
    return from_config({key: parse_json(text) for key, text in metadata.items()})


def parse_json(text: str) -> object:
    """Return what a text says as JSON, or the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def beside(path: Path) -> Iterator[tuple[str, Image]]:
    """Yield the name and the preprocessing of each file next to a weights file that states one."""
    names = ("preprocessor_config.json", f"{path.stem}.json", "config.json", "model.json")
    for name in dict.fromkeys(names):
        with suppress(OSError, ValueError, RecursionError):
            place = path.with_name(name)
            if place.is_file() and place.stat().st_size <= MAX_BYTES:
                data = json.loads(place.read_text(encoding="utf-8-sig"))
                if found := from_config(data if isinstance(data, dict) else {}):
                    yield name, found
    card = path.with_suffix(".md")
    with suppress(OSError, WeightsError):
        if card.is_file():
            yield card.name, from_card(hubcard.read(card))


def from_card(card: hubcard.Card) -> Image:
    """Return what a card of MindSpore Hub says of the images; cards state no mean and std."""
    record = card.weights
    return {"size": record.size, "resize": record.resize, "keep_aspect": record.keep_aspect}


def from_config(data: Mapping[str, Any]) -> Image:
    """Return size, resize, keep_aspect, mean and std where a configuration states them in a form that is known."""
    said = dict(data)
    for key in NESTED:
        if isinstance(inner := data.get(key), Mapping):
            said |= inner
    found = {**sides(said), **colours(said)}
    interpolation = said.get("interpolation", RESAMPLE.get(as_int(said.get("resample"))))
    if found and isinstance(interpolation, str):
        found["interpolation"] = interpolation
    return found


def sides(said: Mapping[str, Any]) -> Image:
    """Return size, resize and keep_aspect; a crop without a share is all of the resized image."""
    crop, resize = side(said.get("crop_size")) or side(said.get("input_size")), side(said.get("resize"))
    scaled = side(said.get("size")) or side(said.get("image_size"))
    if resize:  # what is left of it is the size, as in a recipe
        crop, scaled = crop or scaled, resize
    size = crop or scaled
    if not size:
        return {}
    share = said.get("crop_pct")
    known = isinstance(share, int | float) and 0.1 <= share <= 1
    resize = floor(size / float(share or 1)) if known else max(scaled, size)
    return {"size": size, "resize": min(resize, 4096), "keep_aspect": keeps_aspect(said)}


def keeps_aspect(said: Mapping[str, Any]) -> bool:
    """Tell whether images keep their aspect: not where they are resized to a height and a width."""
    stated = said.get("keep_aspect")
    if isinstance(stated, bool):
        return stated
    exact = isinstance(size := said.get("size"), Mapping) and "height" in size
    return said.get("crop_mode") != "squash" and not exact


def side(value: object) -> int:
    """Return the side of a square in pixels, 0 for all that is not one."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge") or [value.get("height"), value.get("width")]
    if isinstance(value, list | tuple):
        if len(value) not in (2, 3) or as_int(value[-1]) != as_int(value[-2]):
            return 0
        value = value[-1]
    number = as_int(value)
    return number if 16 <= number <= 4096 else 0


def colours(said: Mapping[str, Any]) -> Image:
    """Return mean and std in 0..1; those of images in 0..255 are divided by 255."""
    mean = triple(said.get("mean", said.get("image_mean")))
    std = triple(said.get("std", said.get("image_std")))
    if mean is None or std is None or min(std) <= 0 or min(mean) < 0:
        return {}
    if max(*mean, *std) > 1:
        mean, std = ((values[0] / 255, values[1] / 255, values[2] / 255) for values in (mean, std))
    return {"mean": mean, "std": std} if max(*mean, *std) <= 1 else {}


def triple(value: object) -> tuple[float, float, float] | None:
    """Return three finite numbers, or None."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(each, int | float) and isfinite(each) for each in value):
        return None
    red, green, blue = map(float, value)
    return red, green, blue


def as_int(value: object) -> int:
    """Return a whole number, -1 for all that is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
