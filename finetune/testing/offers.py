"""Weights and layouts that a backbone declares: their hashes, addresses, images, class names and rules."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finetune.errors import PluginError
from finetune.normalisation import image_fault
from finetune.weights import fetching, labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.components import Backbone, Layout, Weights
    from finetune.testing.contract import Inspection

SIDES = range(16, 4097)  # pixels
RULES = {
    "records": (
        "each of `weights` has an https or file address, a hash of 8 to 64 digits or none, mean and std in 0..1, and a "
        "sane size"
    ),
    "labels": "`labels` of weights, where there are some, name each of their `classes`",
    "layouts": "rules of `layouts` are regular expressions, and each of `transpose` reorders all axes",
}


def inspect_offers(inspection: Inspection[Backbone]) -> None:
    """Look at each of the weights and layouts of a backbone."""
    backbone = inspection.component
    for name, record in backbone.weights.items():
        with inspection.rule("records", f"weights '{name}'", "use the types that finetune.Weights declares"):
            for text in wrong_record(record):
                inspection.breaks("records", f"weights '{name}': {text}")
        with inspection.rule("labels", f"labels of weights '{name}'", "name a text file with one class a line"):
            if text := wrong_labels(record):
                inspection.breaks("labels", f"weights '{name}': {text}")
    for layout in backbone.layouts:
        with inspection.rule("layouts", f"layout '{layout.name}'", "use the types that finetune.Layout declares"):
            for text in wrong_layout(layout):
                inspection.breaks("layouts", f"layout '{layout.name}': {text}")


def wrong_record(record: Weights) -> Iterator[str]:
    """Yield what is wrong with what a record says of a file and of its images."""
    yield from wrong_address(record)
    yield from wrong_hash(record)
    if fault := image_fault({"mean": record.mean, "std": record.std}):
        yield f"wrong {fault}"
    if record.size not in SIDES or record.resize not in SIDES or record.resize < record.size:
        sides = f"size is {record.size!r} and resize {record.resize!r}"
        yield f"{sides}; use {SIDES[0]} to {SIDES[-1]} pixels, and a resize that is not smaller than size"
    if record.accuracy is not None and not 0 <= record.accuracy <= 1:
        yield f"accuracy is {record.accuracy}; write top-1 as a number in 0..1"


def wrong_address(record: Weights) -> Iterator[str]:
    """Yield what is wrong with the address of weights."""
    parts = urlsplit(record.url)
    if parts.scheme == "file" and fetching.local(record.url) is None:
        yield f"url is '{record.url}', and there is no such file; add it to the package, or correct the address"
    elif parts.scheme not in ("https", "file") or (parts.scheme == "https" and not parts.hostname):
        yield f"url is '{record.url}', which is neither https nor file; use an address of one of them"


def wrong_hash(record: Weights) -> Iterator[str]:
    """Yield what is wrong with the hash of weights, which may be in the file's name too."""
    digest = record.sha256
    if not digest:
        return
    if not re.fullmatch(r"[0-9a-f]{8,64}", digest):
        yield f"sha256 is '{digest:.80}'; write 64 lower-case hex digits, at least the first 8, or an empty text"
        return
    parts = re.split(r"[-_.]", PurePosixPath(urlsplit(record.url).path).name)
    named = [part for part in parts if re.fullmatch(r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{8,64}", part)]
    if named and not any(digest.startswith(part) or part.startswith(digest) for part in named):
        yield f"sha256 begins with {digest[:8]}, and the file's name has {named[-1]}; correct one of them"


def wrong_labels(record: Weights) -> str:
    """Return what is wrong with the class names of weights; names that are there twice get a number when read."""
    if record.labels is None:
        return ""
    try:
        labels.listed(record.labels, record.classes)
    except PluginError as error:
        return str(error)
    return ""


def wrong_layout(layout: Layout) -> Iterator[str]:
    """Yield what is wrong with the rules of a layout."""
    patterns = [pattern for pattern, _ in (*layout.rules, *layout.writes, *layout.transpose)]
    patterns += [*layout.ignore, *(layout.pieces[:1] if layout.pieces else ())]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"'{pattern}' is not a regular expression ({error}); correct it"
    for pattern, axes in layout.transpose:
        if sorted(axes) != list(range(len(axes))):
            yield f"transpose has axes {axes} for '{pattern}'; write each axis once, such as (3, 2, 0, 1)"
