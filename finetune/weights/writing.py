"""Weights in another form: own names as safetensors or checkpoint, or a layout of the backbone, exact to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import ImageSpec
from finetune.errors import UsageError, WeightsError
from finetune.files.atomic import atomic_path
from finetune.suggest import did_you_mean
from finetune.weights import axes, labels, layouts, opening
from finetune.weights.fitting import FLOATS
from finetune.weights.formats import mindspore_ckpt, tensorfile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from finetune.components import Backbone, Layout
    from finetune.weights.examining import Examined
    from finetune.weights.formats.tensorfile import Record

OWN = ("safetensors", "ckpt")
KEPT = ("image", "classes")
IMAGE = tuple(name for name in ImageSpec.__slots__ if name not in ("background", "color"))


def forms(backbone: Backbone) -> tuple[str, ...]:
    """Return what a backbone's weights can be written as."""
    return (*OWN, *(layout.name for layout in backbone.layouts if layout.writes))


def convert(about: Examined, to: str, target: Path, *, half: bool = False, head: bool = True) -> dict[str, Any]:
    """Write the tensors of a file in another form, whole or not at all, and return what became of them.

    ``half`` rounds them to float16, and without ``head`` the classifier stays out. Raises ``WeightsError`` for a file
    that fits no backbone and for names that the form does not have, ``UsageError`` for a form that there is not,
    ``ResourceError`` if the disk refuses.
    """
    backbone, found = about.backbone, about.found
    if backbone is None or found is None:
        raise WeightsError(f"'{about.path}' fits no backbone; `finetune weights inspect --backbone` says what differs")
    layout = chosen(backbone, to)
    kept = [own for own in about.names if head or not own.startswith(layouts.HEAD)]
    names = {own: own for own in kept} if layout is None else layouts.written(kept, layout)
    own_records = {own: about.index.records[about.names[own]] for own in names}
    records = {names[own]: axes.to_file(names[own], record, layout) for own, record in own_records.items()}
    if half:
        records = {name: halved(about.path, name, record) for name, record in records.items()}
    said = texts(about, backbone, head=head)
    if (layout.format if layout else to) == "ckpt":
        write_checkpoint(target, records, {} if layout else said)
    else:
        tensorfile.write_records(target, records, said)
    return {
        "path": str(target),
        "bytes": target.stat().st_size,
        "sha256": opening.digest(target),
        "backbone": backbone.name,
        "from": found.layout,
        "to": to,
        "tensors": len(records),
        "ignored": sorted((*found.ignored, *about.index.others)),
        "note": note(about, layout),
    }


def chosen(backbone: Backbone, to: str) -> Layout | None:
    """Return the layout of a form, None for own names."""
    if to not in forms(backbone):
        raise UsageError(f"weights of '{backbone.name}' are not written as '{to}'{did_you_mean(to, forms(backbone))}")
    return None if to in OWN else next(layout for layout in backbone.layouts if layout.name == to)


def halved(path: Path, name: str, record: Record) -> Record:
    """Return a tensor as float16; raises ``WeightsError``, when it is read, for numbers that are too large for it."""

    def content() -> bytes:
        array = tensorfile.array(path, name, record)
        with np.errstate(over="ignore"):
            small = array.astype("<f2")
        if np.isinf(small).any():
            raise WeightsError(f"'{path}' holds numbers beyond 65504 in {name!r}; convert it without --float16")
        return small.tobytes()

    return replace(record, dtype="float16", content=content) if record.dtype in FLOATS else record


def texts(about: Examined, backbone: Backbone, *, head: bool) -> dict[str, str]:
    """Return what our own files say beside the tensors: the backbone with its options, images and classes if known."""
    said = {key: about.index.metadata[key] for key in KEPT if key in about.index.metadata}
    if about.known is not None:
        record = about.known[1]
        names = labels.of_record(record)
        said.setdefault("image", json.dumps({key: getattr(record, key) for key in IMAGE}))
        said |= {"classes": json.dumps(names)} if names else {}
    if not head:
        said.pop("classes", None)
    return {**said, "backbone": json.dumps({"use": backbone.name, "options": dict(about.options)})}


def note(about: Examined, layout: Layout | None) -> str:
    """Return what the user must know of a layout whose networks compute something else than these weights are for."""
    if layout is None:
        return ""
    notes = []
    if other := [f"{key}={value}" for key, value in about.options.items() if value != layout.options.get(key)]:
        said = ", ".join(other)
        notes.append(f"these weights are for {said}, unlike networks that usually read the layout '{layout.name}'")
    if layout.format == "ckpt" and "classes" in about.index.metadata:
        notes.append(f"the layout '{layout.name}' has no place for the class names, which stay behind")
    return "; ".join(notes)


def write_checkpoint(path: Path, records: Mapping[str, Record], texts: Mapping[str, str]) -> None:
    """Write a MindSpore checkpoint, one tensor at a time in memory; raises ``WeightsError`` for what it cannot hold."""
    with atomic_path(path) as part, part.open("wb") as file:
        for name, record in records.items():
            file.writelines(mindspore_ckpt.value(name, record.dtype, record.shape, record.content()))
        for name, said in texts.items():
            file.writelines(mindspore_ckpt.text(name, said))
        if file.tell() > mindspore_ckpt.MAX_BYTES:
            raise WeightsError(f"'{path}' would be larger than a MindSpore checkpoint can be; write safetensors")
