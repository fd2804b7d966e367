"""A new recipe for some photos: what was seen of them, what is chosen for that, and why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.recipe.yamltext import scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.components import Backbone
    from finetune.new.photos import Seen

FINDINGS = 5  # of the dataset, in the header
UNEVEN = 3.0  # times the rarest class, from which classes are weighed
FEW, MANY = 30, 300  # photos of a class, below and from which less and more of the network trains
SMALL = 160  # pixels of the shorter side, below which 224 would only blow photos up
SIZES = (64, 96, 128, 160)
USUAL_BATCH = 32
WORDS = ("yes", "no", "on", "off", "y", "n", "true", "false", "null")  # which YAML 1.1 does not read as text
CALLBACKS = "callbacks: [{use: tensorboard}, {use: checkpoint, keep: 2}, {use: early_stopping, patience: 5}]"


def text(seen: Seen, folder: Path, backbone: Backbone) -> str:
    """Return a recipe with comments, which runs as it stands in a folder."""
    chosen = [network(backbone), dataset(seen, folder), *image(seen)]
    sections = [*chosen, *training(seen, pretrained=bool(backbone.weights)), *balance(seen), CALLBACKS]
    return "\n".join([header(seen), *sections, ""])


def header(seen: Seen) -> str:
    """Return what was seen."""
    others = "".join(f", {count:,} {name}" for name, count in seen.splits.items() if name != "train")
    low, middle, high = seen.sides
    lines = [
        f"# Tell {len(seen.counts):,} classes of photos apart.",
        "#",
        f"# Photos    {seen.splits['train']:,} train{others}",
        f"# Classes   {spread(seen.counts)}",
        f"# Sizes     shorter side {middle} pixels, {low} to {high} without the outer tenths; {seen.sampled:,} seen",
    ]
    if seen.unreadable:
        several = f"{len(seen.unreadable)} of {seen.sampled + len(seen.unreadable):,} photos"
        lines.append(f"# Damaged   {several}, which are left out (on_bad_image); `finetune check` names all")
    lines += [f"# Note      {shown(each, 100)}" for each in seen.findings[:FINDINGS]]
    return "\n".join(lines)


def spread(counts: Mapping[str, int]) -> str:
    """Return how many photos the classes have: one number, or those of the rarest and of the most frequent class."""
    rarest, most = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    if counts[rarest] == counts[most]:
        return f"{counts[most]:,} photo{'s' * (counts[most] != 1)} each"
    photos = f"{counts[rarest]:,} photo{'s' * (counts[rarest] != 1)} ({shown(rarest)})"
    return f"from {photos} to {counts[most]:,} ({shown(most)})"


def shown(name: str, length: int = 40) -> str:
    """Return a name in a comment of one line, without characters that YAML does not allow."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(name.split()))[:length]


def network(backbone: Backbone) -> str:
    """Return the backbone's section, with the first weights that it offers."""
    name = quoted(backbone.name)
    if backbone.weights:
        return f"# auto: the first weights that this backbone offers, '{next(iter(backbone.weights))}'.\n" + (
            f"backbone: {{use: {name}, weights: auto}}"
        )
    why = "# This backbone offers no weights, so it starts from random ones; a file of its weights can stand here."
    return f"{why}\nbackbone: {{use: {name}, weights: none}}"


def dataset(seen: Seen, folder: Path) -> str:
    """Return the dataset's section, paths in it as they are from the recipe's folder."""
    given = [f"{key}: {quoted(near(value, folder))}" for key, value in seen.section.items()]
    given += ["on_bad_image: skip"] if seen.unreadable else []
    given += ["allow_empty: true"] if any("holds no photo" in each for each in seen.findings) else []
    keys = ", ".join(given)
    if "valid" in seen.splits:
        return f"# Its own validation photos are used.\ndataset: {{{keys}}}"
    share = 0.3 if seen.photos < 200 else 0.2
    why = "# There are no validation photos: this share of each class is held back for that."
    return f"{why}\ndataset: {{{keys}, split: {share}}}"


def near(value: str, folder: Path) -> str:
    """Return a path as it is from a folder it lies in; others, and what is no path, as they are."""
    path = Path(value)
    inside = path.is_absolute() and path.is_relative_to(folder)
    return str(path.relative_to(folder)) if inside else value


def quoted(value: str) -> str:
    """Return text as YAML reads it within braces, that of version 1.1 too, which editors may follow."""
    plain = all(letter.isalnum() or letter in "/._-~" for letter in value) and isinstance(scalar(value), str)
    plain = plain and value.lower() not in WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def image(seen: Seen) -> list[str]:
    """Return the image size for photos that are smaller than what the weights were made with."""
    middle = seen.sides[1]
    if not 0 < middle < SMALL:
        return []
    size = next((each for each in SIZES if each >= middle), SIZES[-1])
    why = f"# The photos are small: {size} pixels train {(224 / size) ** 2:.0f} times as fast as 224, and lose nothing."
    return [why, f"image: {{size: {size}, resize: {round(size * 8 / 7)}}}"]


def training(seen: Seen, *, pretrained: bool) -> list[str]:
    """Return what trains, for how long and in which portions, by how many photos there are."""
    each = seen.photos / len(seen.counts)
    if not pretrained:
        why, epochs = "the whole network trains, since none of it has learnt anything yet", 20
        freeze, optimizer = "{use: none}", "{use: adamw, lr: 1e-3}"
    elif each < FEW:
        why, epochs = "the head alone trains, on features that are computed once", 20
        freeze, optimizer = "{use: head}", "{use: adamw, lr: 3e-3}"
    elif each < MANY:
        why, epochs = "the head trains first, then the last stage, more gently", 10
        freeze, optimizer = "{use: gradual, schedule: {1: head, 4: last}}", "{use: adamw, lr: 2e-3, layer_decay: 0.3}"
    else:
        why, epochs = "enough to train the whole network, lower stages more gently", 10
        freeze = "{use: gradual, schedule: {1: head, 3: last, 5: all}}"
        optimizer = "{use: adamw, lr: 2e-3, layer_decay: 0.3}"
    batch = min(USUAL_BATCH, 1 << max(1, int(math.log2(max(2, seen.photos / 8)))))
    return [
        f"# {each:.0f} photos a class: {why}.",
        "augment: [{use: albumentations, preset: standard}]",
        f"freeze: {freeze}",
        f"optimizer: {optimizer}",
        "schedule: {use: cosine, warmup_epochs: 1}",
        f"train: {{epochs: {epochs}, batch_size: {batch}}}",
    ]


def balance(seen: Seen) -> list[str]:
    """Return weights of the classes and a metric that does not forget the rare ones, where they differ much."""
    if seen.imbalance < UNEVEN:
        return []
    return [
        f"# Some classes have {seen.imbalance:.0f} times the photos of others: all weigh the same, and count the same.",
        "loss: {class_weights: auto}",
        "evaluate: {metric: macro_f1}",
    ]
