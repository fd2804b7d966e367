"""Preprocessing of pretrained weights: finds out which images they expect.

Weights that a backbone offers have a record, and files of this project state the preprocessing themselves, so it is
certain. For any other file there are candidates: what the file or a configuration next to it states, and what the
backbone's weights of the same layout expect. If these disagree, the user gets a warning with a recipe line for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from math import floor, isfinite
from typing import TYPE_CHECKING, Any

from finetune.components import ImageSpec, Weights
from finetune.errors import WeightsError
from finetune.weights import hubcard, layouts, loading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from finetune.components import Backbone
    from finetune.weights.fetching import Source


MAX_BYTES = 1 << 20
NESTED = ("pretrained_cfg", "default_cfg", "config", "preprocessor_config", "preprocessing", "image")
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers

ConfigImage = dict[str, Any]


def from_texts(metadata: Mapping[str, str]) -> ConfigImage:
    """Return the preprocessing in the metadata of a safetensors file, whose values may be JSON."""
    return from_config({key: parse_json(text) for key, text in metadata.items()})


def parse_json(text: str) -> object:
    """Parse a text as JSON; return the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_neighbours(path: Path) -> Iterator[tuple[str, ConfigImage]]:
    """Yield the name and preprocessing of each configuration file next to a weights file."""
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
            yield card.name, from_card(hubcard.read_card(card))


def from_card(card: hubcard.Card) -> ConfigImage:
    """Return the preprocessing of a card of MindSpore Hub, which does not state mean and std."""
    record = card.weights
    return {"size": record.size, "resize": record.resize, "keep_aspect": record.keep_aspect}


def from_config(data: Mapping[str, Any]) -> ConfigImage:
    """Return size, resize, keep_aspect, mean and std, if a configuration states them in a known form."""
    stated = dict(data)
    for key in NESTED:
        if isinstance(inner := data.get(key), Mapping):
            stated |= inner
    found = {**read_sides(stated), **parse_colours(stated)}
    interpolation = stated.get("interpolation", RESAMPLE.get(as_int(stated.get("resample"))))
    if found and isinstance(interpolation, str):
        found["interpolation"] = interpolation
    return found


def read_sides(stated: Mapping[str, Any]) -> ConfigImage:
    """Return size, resize and keep_aspect; without a crop share, the crop is the entire resized image."""
    crop = parse_side(stated.get("crop_size")) or parse_side(stated.get("input_size"))
    resize = parse_side(stated.get("resize"))
    scaled = parse_side(stated.get("size")) or parse_side(stated.get("image_size"))
    if resize:  # the image is cropped to size after this, as in a recipe
        crop, scaled = crop or scaled, resize
    size = crop or scaled
    if not size:
        return {}
    share = stated.get("crop_pct")
    known = isinstance(share, int | float) and 0.1 <= share <= 1
    resize = floor(size / float(share or 1)) if known else max(scaled, size)
    return {"size": size, "resize": min(resize, 4096), "keep_aspect": keeps_aspect(stated)}


def keeps_aspect(stated: Mapping[str, Any]) -> bool:
    """Return whether images keep their aspect ratio: not if they are resized to a height and a width."""
    value = stated.get("keep_aspect")
    if isinstance(value, bool):
        return value
    exact = isinstance(size := stated.get("size"), Mapping) and "height" in size
    return stated.get("crop_mode") != "squash" and not exact


def parse_side(value: object) -> int:
    """Return the side of a square in pixels, 0 for anything else."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge") or [value.get("height"), value.get("width")]
    if isinstance(value, list | tuple):
        if len(value) not in (2, 3) or as_int(value[-1]) != as_int(value[-2]):
            return 0
        value = value[-1]
    number = as_int(value)
    return number if 16 <= number <= 4096 else 0


def parse_colours(stated: Mapping[str, Any]) -> ConfigImage:
    """Return mean and std in 0..1; values for images in 0..255 are divided by 255."""
    mean = parse_triple(stated.get("mean", stated.get("image_mean")))
    std = parse_triple(stated.get("std", stated.get("image_std")))
    if mean is None or std is None or min(std) <= 0 or min(mean) < 0:
        return {}
    if max(*mean, *std) > 1:
        mean, std = ((values[0] / 255, values[1] / 255, values[2] / 255) for values in (mean, std))
    return {"mean": mean, "std": std} if max(*mean, *std) <= 1 else {}


def parse_triple(value: object) -> tuple[float, float, float] | None:
    """Return three finite numbers, None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(each, int | float) and isfinite(each) for each in value):
        return None
    red, green, blue = map(float, value)
    return red, green, blue


def as_int(value: object) -> int:
    """Return an integer, -1 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


Image = dict[str, Any]

STATED = {each.name for each in fields(Weights)}
DEFAULTS: Image = {each.name: each.default for each in fields(ImageSpec) if each.name in STATED}
KEYS = tuple(DEFAULTS)
RESIZED = "bilinear"  # how images are resized here, whatever a configuration states


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Some keys of ``image:``, and the source that states them."""

    said_by: str
    image: Mapping[str, Any]

    def contradicts(self, other: Candidate, keys: Collection[str]) -> bool:
        """Return whether two candidates state different values for any of these keys."""
        both = [key for key in KEYS if key in self.image and key in other.image]
        mine, theirs = ({key: each.image[key] for key in both} for each in (self, other))
        return make_comparable(mine, keys) != make_comparable(theirs, keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The preprocessing to use, its source (``why``), and the candidates if it is not certain.

    ``stated`` is what the file and files next to it state, ``offers`` what the backbone's weights of the same layout
    expect; both are empty if the record of the weights states the preprocessing.
    """

    name: str
    image: Image = field(default_factory=dict)
    why: str = ""
    certain: bool = False
    stated: tuple[Candidate, ...] = ()
    offers: tuple[Candidate, ...] = ()

    def conflicts(self, keys: Collection[str] = KEYS) -> list[Candidate]:
        """Return the candidates that contradict the preprocessing that is used, in any of these keys."""
        found = [each for each in self.stated[1:] if each.contradicts(self.stated[0], keys)]
        fitting = [each for each in self.offers if not self.stated or not each.contradicts(self.stated[0], keys)]
        if not fitting:
            return [*found, *self.offers]
        return [*found, *(each for each in fitting[1:] if each.contradicts(fitting[0], keys))]

    def message(self, keys: Collection[str] = KEYS) -> str:
        """Return a message for the user; empty if the preprocessing is certain, or the recipe states all its keys."""
        if self.certain or not keys:
            return ""
        line = format_recipe_line(self.image, keys)
        if conflicts := self.conflicts(keys):
            others = "".join(
                f"\n  {each.said_by}: {format_recipe_line(complete_image(each.image, self.image), keys)}"
                for each in conflicts
            )
            return (
                f"warning: sources disagree on the images that the weights '{self.name}' expect; "
                f"add one of these lines to the recipe:\n  {self.why} (used): {line}{others}"
            )
        if not self.stated and not self.offers:
            return (
                f"warning: it is unknown which images the weights '{self.name}' expect; using {self.why}; "
                f"if that is wrong, correct this line and add it to the recipe:\n  {line}"
            )
        return f"weights '{self.name}': using the preprocessing of {self.why}: {line.removeprefix('image: ')}"

    def report(self) -> dict[str, Any]:
        """Return the report for ``weights.json``: what is used and why, and the candidates that contradict it."""
        others = [{"from": each.said_by, "image": complete_image(each.image, self.image)} for each in self.conflicts()]
        return {"image": dict(self.image), "why": self.why, "certain": self.certain, "alternatives": others}


def find_preprocessing(source: Source | None, backbone: Backbone) -> Preprocessing:
    """Find the preprocessing of weights for a backbone; ``source`` is None for a random start."""
    if source is None:
        return Preprocessing(name="none", image=complete_image({}), why="a random start", certain=True)
    known = source.record if source.record is not None and source.record.layout else None
    if "image" in source.metadata or known is not None:
        if known is not None and "image" not in source.metadata:
            return use_record(source.name, known)
        return use_own(source.name, loading.read_image_defaults(source))
    stated = list(collect_stated(source.path, source.metadata, neighbours=source.record is None))
    if source.card is not None:
        stated.append(Candidate(said_by="the card", image=from_card(source.card)))
    layout = layouts.find_layout(source.opened(backbone).index.records, backbone)
    return decide(source.name, stated, collect_offers(backbone, layout.name if layout else ""))


def decide_for_file(path: Path, metadata: Mapping[str, str], layout: str, backbone: Backbone) -> Preprocessing:
    """Return the preprocessing of a file without a record."""
    return decide(path.name, list(collect_stated(path, metadata, neighbours=True)), collect_offers(backbone, layout))


def use_own(name: str, image: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that a file of this project states."""
    return Preprocessing(name=name, image=complete_image(image), why="the file itself", certain=True)


def use_record(name: str, record: Weights) -> Preprocessing:
    """Return the preprocessing of weights that a backbone offers."""
    image = {key: getattr(record, key) for key in KEYS}
    return Preprocessing(name=name, image=image, why=f"the record of weights '{name}'", certain=True)


def decide(name: str, stated: list[Candidate], offers: list[Candidate]) -> Preprocessing:
    """Return what the file states, completed by an offer that agrees; without a statement, the first offer."""
    fitting = [each for each in offers if not stated or not each.contradicts(stated[0], KEYS)]
    first = (fitting or offers or [Candidate(said_by="ImageNet's mean and std", image=DEFAULTS)])[0]
    chosen = stated[0] if stated else first
    why = chosen.said_by
    interpolation = chosen.image.get("interpolation", RESIZED)
    if interpolation != RESIZED:
        why = f"{why} (which resizes images {interpolation}; here they are resized {RESIZED})"
    image = complete_image(chosen.image, first.image)
    return Preprocessing(name=name, image=image, why=why, stated=tuple(stated), offers=tuple(offers))


def collect_stated(path: Path, metadata: Mapping[str, str], *, neighbours: bool) -> list[Candidate]:
    """Return what a file's metadata and, with ``neighbours``, the files next to it state."""
    found = [Candidate(said_by="the file's metadata", image=image)] if (image := from_texts(metadata)) else []
    if neighbours:
        found += [Candidate(said_by=f"'{name}' next to the file", image=image) for name, image in read_neighbours(path)]
    return found


def collect_offers(backbone: Backbone, layout: str) -> list[Candidate]:
    """Return what a backbone's weights of a layout expect, with one candidate for all that agree."""
    groups: dict[tuple[Any, ...], tuple[Image, list[str]]] = {}
    for name, record in backbone.weights.items():
        if record.layout == layout:
            image = {key: getattr(record, key) for key in KEYS}
            groups.setdefault(make_comparable(image, KEYS), (image, []))[1].append(f"'{name}'")
    return [Candidate(said_by=f"weights {', '.join(names)}", image=image) for image, names in groups.values()]


def complete_image(image: Mapping[str, Any], other: Mapping[str, Any] = DEFAULTS) -> Image:
    """Return all keys, those missing in ``image`` from ``other``; resize is at least size."""
    found = {key: image.get(key, other[key]) for key in KEYS}
    return found | {"resize": max(found["resize"], found["size"])}


def make_comparable(image: Mapping[str, Any], keys: Collection[str]) -> tuple[Any, ...]:
    """Return the values of some keys for a comparison; resize relative to size if the recipe states the size."""
    found: list[Any] = []
    for key in (key for key in KEYS if key in image and key in keys):
        value = image[key]
        if key == "resize" and "size" not in keys and "size" in image:
            value = round(value / image["size"], 2)
        found.append((key, tuple(round(each, 4) for each in value) if isinstance(value, tuple | list) else value))
    return tuple(found)


def format_recipe_line(image: Mapping[str, Any], keys: Collection[str] = KEYS) -> str:
    """Format the recipe line that states some keys, without resize if the recipe states the size."""
    shown = [key for key in KEYS if key in keys]
    if "size" not in shown and len(shown) > 1:
        shown = [key for key in shown if key != "resize"]
    return f"image: {{{', '.join(f'{key}: {format_value(image[key])}' for key in shown)}}}"


def format_value(value: Any) -> str:
    """Format a value as in a recipe."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"[{', '.join(f'{each:.4g}' for each in value)}]" if isinstance(value, tuple | list) else str(value)
