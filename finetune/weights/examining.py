"""Examination of a weights file: its format, the backbone and layout that it fits, its source, and conversion."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import ImageSpec
from finetune.errors import UsageError, WeightsError
from finetune.files.atomic import atomic_path
from finetune.suggest import did_you_mean
from finetune.weights import fitting, labels, layouts, loading, preprocessing
from finetune.weights.fitting import FLOATS
from finetune.weights.formats import mindspore_ckpt, tensorfile
from finetune.weights.layouts import join_pieces, to_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from finetune.components import Backbone, Layout, Weights
    from finetune.weights.formats.tensorfile import Index, Record
    from finetune.weights.layouts import Translation
    from finetune.weights.preprocessing import Preprocessing


OWN = ("safetensors", "ckpt")
KEPT = ("image", "classes")
IMAGE = tuple(name for name in ImageSpec.__slots__ if name not in ("background", "color"))


def list_forms(backbone: Backbone) -> tuple[str, ...]:
    """List the formats and layouts that a backbone's weights can be written in."""
    return (*OWN, *(layout.name for layout in backbone.layouts if layout.writes))


def convert(about: Examined, to: str, target: Path, *, half: bool = False, head: bool = True) -> dict[str, Any]:
    """Atomically write the tensors of a file in the form ``to``, and return a report.

    ``half`` rounds them to float16, and ``head=False`` leaves out the classifier. Raises ``WeightsError`` for a file
    that fits no backbone and for names that the form cannot express, ``UsageError`` for an unknown form, and
    ``ResourceError`` if the disk refuses.
    """
    backbone, found = about.backbone, about.found
    if backbone is None or found is None:
        remedy = "run `finetune weights inspect --backbone` to see the differences"
        raise WeightsError(f"'{about.path}' does not fit any backbone; {remedy}")
    layout = choose_layout(backbone, to)
    kept = [own for own in about.names if head or not own.startswith(layouts.HEAD)]
    names = {own: own for own in kept} if layout is None else layouts.name_for_file(kept, layout)
    own_records = {own: about.index.records[about.names[own]] for own in names}
    records = {names[own]: to_file(names[own], record, layout) for own, record in own_records.items()}
    if half:
        records = {name: halve_record(about.path, name, record) for name, record in records.items()}
    metadata = build_texts(about, backbone, head=head)
    if (layout.format if layout else to) == "ckpt":
        write_checkpoint(target, records, {} if layout else metadata)
    else:
        tensorfile.write_records(target, records, metadata)
    return {
        "path": str(target),
        "bytes": target.stat().st_size,
        "sha256": loading.hash_file(target),
        "backbone": backbone.name,
        "from": found.layout,
        "to": to,
        "tensors": len(records),
        "ignored": sorted((*found.ignored, *about.index.others)),
        "note": explain_layout(about, layout),
    }


def choose_layout(backbone: Backbone, to: str) -> Layout | None:
    """Return the layout of a form, None for the backbone's own names."""
    if to not in list_forms(backbone):
        near = did_you_mean(to, list_forms(backbone))
        raise UsageError(f"weights of '{backbone.name}' cannot be written as '{to}'{near}")
    return None if to in OWN else next(layout for layout in backbone.layouts if layout.name == to)


def halve_record(path: Path, name: str, record: Record) -> Record:
    """Return a tensor as float16; reading it raises ``WeightsError`` for numbers that are too large."""

    def content() -> bytes:
        array = tensorfile.read_array(path, name, record)
        with np.errstate(over="ignore"):
            small = array.astype("<f2")
        if np.isinf(small).any():
            raise WeightsError(f"'{path}' holds numbers beyond 65504 in {name!r}; convert it without --float16")
        return small.tobytes()

    return replace(record, dtype="float16", content=content) if record.dtype in FLOATS else record


def build_texts(about: Examined, backbone: Backbone, *, head: bool) -> dict[str, str]:
    """Build the metadata of a file: the backbone with its options, and the images and classes if known."""
    found = {key: about.index.metadata[key] for key in KEPT if key in about.index.metadata}
    if about.known is not None:
        record = about.known[1]
        names = labels.read_record_classes(record)
        found.setdefault("image", json.dumps({key: getattr(record, key) for key in IMAGE}))
        found |= {"classes": json.dumps(names)} if names else {}
    if not head:
        found.pop("classes", None)
    return {**found, "backbone": json.dumps({"use": backbone.name, "options": dict(about.options)})}


def explain_layout(about: Examined, layout: Layout | None) -> str:
    """Explain what a layout loses: options that its usual networks do not have, and the class names."""
    if layout is None:
        return ""
    notes = []
    if other := [f"{key}={value}" for key, value in about.options.items() if value != layout.options.get(key)]:
        options = ", ".join(other)
        notes.append(f"these weights are for {options}, unlike networks that usually read the layout '{layout.name}'")
    if layout.format == "ckpt" and "classes" in about.index.metadata:
        notes.append(f"the layout '{layout.name}' cannot store the class names, so they are left out")
    return "; ".join(notes)


def write_checkpoint(path: Path, records: Mapping[str, Record], texts: Mapping[str, str]) -> None:
    """Write a MindSpore checkpoint, one tensor at a time; raises ``WeightsError`` for unsupported content."""
    with atomic_path(path) as part, part.open("wb") as file:
        for name, record in records.items():
            file.writelines(mindspore_ckpt.encode_value(name, record.dtype, record.shape, record.content()))
        for name, content in texts.items():
            file.writelines(mindspore_ckpt.encode_text(name, content))
        if file.tell() > mindspore_ckpt.MAX_BYTES:
            raise WeightsError(f"'{path}' would be too large for a MindSpore checkpoint; write safetensors")


STATISTICS = (".moving_mean", ".moving_variance")  # of BatchNorm: loaded, but not learned
LOGITS = "head.fc.weight"
SHOWN = 5  # of the largest tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A weights file, the backbone and layout that it fits, and the name and record of known weights.

    ``misfit`` describes the differences from the backbone that it was compared with.
    """

    path: Path
    sha256: str
    index: Index
    backbone: Backbone | None = None
    found: Translation[str] | None = None
    known: tuple[str, Weights] | None = None
    misfit: WeightsError | None = None

    @property
    def names(self) -> dict[str, str]:
        """The file's names by the backbone's own, in the network's order, the head last."""
        return {} if self.found is None else {**self.found.tensors, **self.found.unexpected}

    @property
    def failure(self) -> WeightsError | None:
        """The error for a file that does not fit the backbone that it was compared with."""
        return self.misfit and WeightsError(f"'{self.path}': {self.misfit}")

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The images that these weights expect, None for a file that does not fit any backbone."""
        if self.backbone is None or self.found is None:
            return None
        if "image" in self.index.metadata:
            return preprocessing.use_own(self.path.name, loading.parse_image(self.path, self.index.metadata["image"]))
        if self.known is not None:
            return preprocessing.use_record(*self.known)
        return preprocessing.decide_for_file(self.path, self.index.metadata, self.found.layout, self.backbone)

    @property
    def options(self) -> Mapping[str, Any]:
        """The backbone options that belong to these weights."""
        if self.known is not None and self.known[1].options:
            return self.known[1].options
        return {} if self.backbone is None else fitting.read_options(self.index, self.backbone)


def examine(path: Path, offered: Iterable[Backbone], backbone: Backbone | None = None) -> Examined:
    """Read a file and compare it with ``backbone``, or else find the first of the ``offered`` ones that it fits.

    Raises ``WeightsError`` for a file that cannot be read.
    """
    (raw, digest), backbones = loading.read_complete(path), tuple(offered)
    known = find_known(digest, backbones if backbone is None else (backbone,))
    if backbone is not None:
        index = raw
        try:
            index = join_pieces(raw, backbone)
            found = fitting.fit(index, backbone)
        except WeightsError as error:
            return Examined(path=path, sha256=digest, index=index, known=known, misfit=error)
        return Examined(path=path, sha256=digest, index=index, backbone=backbone, found=found, known=known)
    # Those that must be built to know their shapes take seconds.
    for each in sorted(backbones, key=lambda each: each.shapes is None):
        with suppress(WeightsError):
            index = join_pieces(raw, each)
            if layouts.find_layout(index.records, each):
                found = fitting.fit(index, each)
                return Examined(path=path, sha256=digest, index=index, backbone=each, found=found, known=known)
    return Examined(path=path, sha256=digest, index=raw, known=known)


def find_known(digest: str, backbones: Iterable[Backbone]) -> tuple[str, Weights] | None:
    """Return name and record of the known weights with this hash, None if there are none."""
    for backbone in backbones:
        for name, record in backbone.weights.items():
            if record.sha256 and digest.startswith(record.sha256.lower()):
                return name, record
    return None


def build_report(about: Examined) -> dict[str, Any]:
    """Return everything that is known about a file, ready for JSON."""
    records, found, merged = about.index.records, about.found, about.index.merged
    head = [] if found is None else sorted(found.unexpected)
    misfit = about.misfit if isinstance(about.misfit, layouts.Misfit) else None
    names: dict[str, Any] = {
        "loaded": list(about.names),
        "missing": list(misfit.missing) if misfit else [],
        "unexpected": list(misfit.unexpected) if misfit else [] if found else list(records),
        "merged": {own: merged[name] for own, name in about.names.items() if name in merged},
        "ignored": sorted((*(found.ignored if found else ()), *about.index.others)),
        "head": head,
    }
    largest = sorted(records, key=lambda name: -prod(records[name].shape))[:SHOWN]
    return {
        "path": str(about.path),
        "bytes": about.path.stat().st_size,
        "sha256": about.sha256,
        "format": about.index.format,
        "source": about.known and about.known[0],
        "backbone": about.backbone and about.backbone.name,
        "layout": (found and found.layout) or (misfit and misfit.layout),
        "options": dict(about.options),
        "preprocessing": about.preprocessing and about.preprocessing.report(),
        "classes": records[about.names[LOGITS]].shape[0] if LOGITS in about.names else None,
        "parameters": sum(prod(records[n].shape) for own, n in about.names.items() if not own.endswith(STATISTICS)),
        "counts": {key: len(value) for key, value in names.items()},
        **names,
        "largest": [{"name": name, "shape": records[name].shape, "dtype": records[name].dtype} for name in largest],
    }
