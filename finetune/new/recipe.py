"""New recipes: examines photos, and writes a recipe whose comments explain each choice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.components import Encoded
from finetune.data import sources
from finetune.data.audit import IMBALANCED
from finetune.data.imagefile import BadImage, format_path, open_image
from finetune.data.labelled import build_split
from finetune.errors import DataError
from finetune.recipe.nodes import parse_scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from finetune.catalogue import Catalogue
    from finetune.components import Backbone, Image, Samples, Split


LOOKED_AT = 400  # photos to decode, spread over the dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFacts:
    """Facts about a dataset.

    ``section`` is the dataset section of a recipe, ``counts`` the number of training photos of each class, ``splits``
    the number of photos of each split. ``sides`` are the 10th, 50th and 90th percentile of the shorter side of
    ``sampled`` photos in pixels. ``unreadable`` lists photos that could not be decoded, ``findings`` those of the
    dataset itself.
    """

    section: dict[str, str]
    counts: dict[str, int]
    splits: dict[str, int]
    sides: tuple[int, int, int]
    sampled: int
    unreadable: tuple[str, ...]
    findings: tuple[str, ...] = ()

    @property
    def photos(self) -> int:
        """The number of photos for training, before some are held back for validation."""
        return sum(self.counts.values())

    @property
    def imbalance(self) -> float:
        """The ratio between the sizes of the largest and the smallest class."""
        return max(self.counts.values()) / max(1, min(self.counts.values()))


def look_at_photos(photos: Path, catalogue: Catalogue) -> PhotoFacts:
    """Examine a folder of photos, a CSV file or a pack; raises ``DataError`` if it cannot be used."""
    section = sources.build_section(photos.absolute().resolve(), catalogue)
    dataset = sources.choose_dataset(photos, {}, catalogue)
    found: dict[Split, Samples] = {}
    with dataset.attribute("build"):
        for split in ("train", "valid", "test"):
            if (samples := build_split(dataset, split)) is not None:
                found[split] = samples
    if "train" not in found or not len(found["train"].images):
        raise DataError(f"{photos} has no training photos; put the photos of each class in a folder with its name")
    train = found["train"]
    counts = np.bincount(np.asarray(train.labels, np.int64), minlength=len(train.classes))
    if len(train.classes) < 2:
        only = train.classes[0]
        raise DataError(f"{photos} has only one class, '{only}'; create a folder for each class")
    sides, unreadable, sampled = measure_sides(train.images)
    return PhotoFacts(
        section={key: str(value) for key, value in section.items()},
        counts=dict(zip(train.classes, map(int, counts), strict=True)),
        splits={split: len(samples.images) for split, samples in found.items()},
        sides=sides,
        sampled=sampled,
        unreadable=unreadable,
        findings=tuple(format_path(f"{each.subject}: {each.text}") for s in found.values() for each in s.findings),
    )


def measure_sides(images: Sequence[Image]) -> tuple[tuple[int, int, int], tuple[str, ...], int]:
    """Return percentiles of the shorter side, the faults of unreadable photos, and the number of readable ones."""
    places = np.unique(np.linspace(0, len(images) - 1, min(len(images), LOOKED_AT)).astype(int)).tolist()
    shorter, unreadable = [], []
    for place in places:
        image = images[place]
        if isinstance(image, Path | Encoded):
            try:
                with open_image(image) as header:
                    header.load()
                    shorter.append(min(header.size))
            except BadImage as error:
                unreadable.append(str(error))
        else:
            shorter.append(min(image.shape[:2]))
    low, middle, high = np.percentile(shorter, [10, 50, 90]).astype(int).tolist() if shorter else (0, 0, 0)
    return (low, middle, high), tuple(unreadable), len(shorter)


FINDINGS = 5  # findings in the header
FEW = 30  # photos per class; with more, the last stage trains too
SMALL_SET = 200  # photos; with fewer, a larger share is held back
SMALL = 160  # pixels of the shorter side; smaller photos would only be enlarged to 224
SIZES = (64, 96, 128, 160)
WORDS = ("yes", "no", "on", "off", "y", "n", "true", "false", "null")  # not text in YAML 1.1


def render_recipe(seen: PhotoFacts, folder: Path, backbone: Backbone) -> str:
    """Return a recipe with comments that runs from a folder without changes.

    It sets only keys that differ from the defaults or depend on the photos; a run chooses the rest and reports it.
    """
    pretrained = bool(backbone.weights)
    head_only = pretrained and seen.photos / len(seen.counts) < FEW
    sections = [render_network(backbone), *render_dataset(seen, folder, head_only=head_only), *render_image(seen)]
    sections += render_training(seen, pretrained=pretrained, head_only=head_only)
    return "\n".join([render_header(seen), *sections, *render_balance(seen, pretrained=pretrained), ""])


def render_header(seen: PhotoFacts) -> str:
    """Return the facts as comments at the top of the recipe."""
    others = "".join(f", {count:,} {name}" for name, count in seen.splits.items() if name != "train")
    low, middle, high = seen.sides
    of = f"{seen.sampled:,} sampled"
    lines = [
        f"# Classify photos into {len(seen.counts):,} classes.",
        "#",
        f"# Photos    {seen.splits['train']:,} train{others}",
        f"# Classes   {describe_counts(seen.counts)}",
        f"# Sizes     shorter side {middle} pixels (median), {low} to {high} (10th to 90th percentile); {of}",
    ]
    if seen.unreadable:
        several = f"{len(seen.unreadable)} of {seen.sampled + len(seen.unreadable):,} photos"
        lines.append(f"# Damaged   {several}, which are skipped (on_bad_image); `finetune check` lists all")
    lines += [f"# Note      {shorten_name(each, 100)}" for each in seen.findings[:FINDINGS]]
    return "\n".join(lines)


def describe_counts(counts: Mapping[str, int]) -> str:
    """Describe the sizes of the classes: one number, or those of the smallest and the largest class."""
    rarest, most = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    if counts[rarest] == counts[most]:
        return f"{counts[most]:,} photo{'s' * (counts[most] != 1)} each"
    photos = f"{counts[rarest]:,} photo{'s' * (counts[rarest] != 1)} ({shorten_name(rarest)})"
    return f"from {photos} to {counts[most]:,} ({shorten_name(most)})"


def shorten_name(name: str, length: int = 40) -> str:
    """Return a name for a comment on one line, without characters that YAML does not allow."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(name.split()))[:length]


def render_network(backbone: Backbone) -> str:
    """Return the backbone's section, with the first weights that it offers."""
    name = quote_value(backbone.name)
    if backbone.weights:
        return f"# auto: the first weights that this backbone offers, '{next(iter(backbone.weights))}'.\n" + (
            f"backbone: {{use: {name}, weights: auto}}"
        )
    why = "# This backbone offers no weights, so it starts from random ones; you can also set a weights file."
    return f"{why}\nbackbone: {{use: {name}, weights: none}}"


def render_dataset(seen: PhotoFacts, folder: Path, *, head_only: bool) -> list[str]:
    """Return the dataset section and how accuracy is estimated; paths are relative to the recipe's folder."""
    given = [f"{key}: {quote_value(make_relative(value, folder))}" for key, value in seen.section.items()]
    given += ["on_bad_image: skip"] if seen.unreadable else []
    given += ["allow_empty: true"] if any("holds no photo" in each for each in seen.findings) else []
    if "valid" in seen.splits:
        why = "# The dataset's own validation photos are used."
    elif head_only:
        why = "# All photos are trained on; the accuracy is estimated out of folds."
    else:
        why = "# There are no validation photos, so this share of each class is held back."
        given.append(f"split: {0.3 if seen.photos < SMALL_SET else 0.2}")
    return [why, f"dataset: {{{', '.join(given)}}}"]


def make_relative(value: str, folder: Path) -> str:
    """Return a path relative to a folder that contains it; all other values unchanged."""
    path = Path(value)
    inside = path.is_absolute() and path.is_relative_to(folder)
    return str(path.relative_to(folder)) if inside else value


def quote_value(value: str) -> str:
    """Return text that YAML reads unchanged within braces, also version 1.1, which editors may use."""
    plain = all(letter.isalnum() or letter in "/._-~" for letter in value) and isinstance(parse_scalar(value), str)
    plain = plain and value.lower() not in WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def render_image(seen: PhotoFacts) -> list[str]:
    """Return the image section for photos that are smaller than the weights' training images."""
    middle = seen.sides[1]
    if not 0 < middle < SMALL:
        return []
    size = next((each for each in SIZES if each >= middle), SIZES[-1])
    why = f"# The photos are small: {size} pixels train {(224 / size) ** 2:.0f} times as fast as 224, without loss."
    return [why, f"image: {{size: {size}, resize: {round(size * 8 / 7)}}}"]


def render_training(seen: PhotoFacts, *, pretrained: bool, head_only: bool) -> list[str]:
    """Return the freeze section for the number of photos per class; the run chooses the other settings."""
    each = seen.photos / len(seen.counts)
    if not pretrained:
        why = "the complete network trains, because it starts from random weights"
        freeze = "{use: none}"
    elif head_only:
        why = "the head is fitted to the features of the frozen network"
        freeze = "{use: head}"
    else:
        why = "the head is fitted, then the last stage trains with it"
        freeze = "{use: stages, train: [last]}"
    return [f"# {each:.0f} photos per class: {why}.", f"freeze: {freeze}"]


def render_balance(seen: PhotoFacts, *, pretrained: bool) -> list[str]:
    """Return a comment on imbalanced classes, which a run takes into account by itself."""
    if seen.imbalance <= IMBALANCED:
        return []
    lines = [
        f"# Some classes have {seen.imbalance:.0f} times as many photos as others. The metric is macro-F1, in which",
        "# all classes count the same. To weight them equally in the loss, add `loss: {class_weights: auto}`.",
    ]
    if pretrained:
        lines.append("# Otherwise, the run uses square-root class weights, unless no weights are better out of fold.")
    return lines
