"""What a weights file is: its format, the backbone and the layout that it fits, and where it is known from."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from finetune.errors import WeightsError
from finetune.weights import fitting, layouts, loading, opening, pieces, preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from finetune.components import Backbone, Weights
    from finetune.weights.formats.tensorfile import Index
    from finetune.weights.layouts import Translation
    from finetune.weights.preprocessing import Preprocessing

STATISTICS = (".moving_mean", ".moving_variance")  # of BatchNorm: loaded, but not learned
LOGITS = "head.fc.weight"
SHOWN = 5  # of the largest tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A file; the backbone and layout that it fits, if any; its record and name if it is a known one.

    ``misfit`` says what differs from the backbone that it was held against.
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
        """The error for a file that is not what it was held against."""
        return self.misfit and WeightsError(f"'{self.path}': {self.misfit}")

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The images that these weights expect, None for a file that fits no backbone."""
        if self.backbone is None or self.found is None:
            return None
        if "image" in self.index.metadata:
            return preprocessing.of_own(self.path.name, loading.image_in(self.path, self.index.metadata["image"]))
        if self.known is not None:
            return preprocessing.of_record(*self.known)
        return preprocessing.of_file(self.path, self.index.metadata, self.found.layout, self.backbone)

    @property
    def options(self) -> Mapping[str, Any]:
        """The backbone options that belong to these weights."""
        if self.known is not None and self.known[1].options:
            return self.known[1].options
        return {} if self.backbone is None else fitting.options(self.index, self.backbone)


def examine(path: Path, offered: Iterable[Backbone], backbone: Backbone | None = None) -> Examined:
    """Read what is in a file and compare it with ``backbone``, or find the first of those offered that it fits.

    Raises ``WeightsError`` for a file that cannot be read.
    """
    (raw, digest), backbones = opening.whole(path), tuple(offered)
    known = known_as(digest, backbones if backbone is None else (backbone,))
    if backbone is not None:
        index = raw
        try:
            index = pieces.joined(raw, backbone)
            found = fitting.fit(index, backbone)
        except WeightsError as error:
            return Examined(path=path, sha256=digest, index=index, known=known, misfit=error)
        return Examined(path=path, sha256=digest, index=index, backbone=backbone, found=found, known=known)
    # Those that must be built to know their shapes take seconds.
    for each in sorted(backbones, key=lambda each: each.shapes is None):
        with suppress(WeightsError):
            index = pieces.joined(raw, each)
            if layouts.match(index.records, each):
                found = fitting.fit(index, each)
                return Examined(path=path, sha256=digest, index=index, backbone=each, found=found, known=known)
    return Examined(path=path, sha256=digest, index=raw, known=known)


def known_as(digest: str, backbones: Iterable[Backbone]) -> tuple[str, Weights] | None:
    """Return name and record of the source whose file has this hash."""
    for backbone in backbones:
        for name, record in backbone.weights.items():
            if record.sha256 and digest.startswith(record.sha256.lower()):
                return name, record
    return None


def report(about: Examined) -> dict[str, Any]:
    """Return all that is known of a file, as JSON."""
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
