"""A backbone of one stage that is never built, its parameters, and records of weights for it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from finetune.components import Backbone, Layout, Options, Weights

if TYPE_CHECKING:
    from pathlib import Path

THEIRS = Layout(
    name="theirs", rules=((r"f\.(.*)", r"stem.\1"), (r"last\.(.*)", r"head.fc.\1")), options={"pool": "same"}
)
HEAD = frozenset({"head.fc.weight", "head.fc.bias"})


class ToyOptions(Options):
    """How the stage pools."""

    pool: Literal["auto", "same", "symmetric"] = "auto"


def toy(**offers: Weights) -> Backbone:
    """Return the backbone with weights that it offers."""
    return Backbone(
        name="toy",
        options=ToyOptions,
        build=lambda options: {},
        stages=("stem",),
        features=4,
        weights=offers,
        layouts=(THEIRS,),
    )


def hashed(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(path: Path, url: str = "https://user:secret@example.invalid/toy.safetensors?key=1", **said: Any) -> Weights:
    """Return the record of a file, which may not be there, at an address with secrets."""
    digest = hashed(path) if path.is_file() else "0" * 64
    return Weights(**{"url": url, "sha256": digest, "layout": "theirs", **said})
