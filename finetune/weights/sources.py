"""Where pretrained weights come from: from the word in a recipe to a file that is here and verified."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finetune.components import Backbone, Weights
from finetune.errors import DownloadError, UsageError, WeightsError
from finetune.files import download
from finetune.files.home import cache_folder
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    Fetch = Callable[[Weights, Path], Path | None]

ENDINGS = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".h5", ".npz", ".onnx", ".zip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A weights file that is here, the word it was asked for with, and its record where it is known."""

    path: Path
    name: str
    record: Weights | None = None


def nothing(record: Weights, cache: Path) -> None:
    """Fetch nothing: leave it to the verified download."""


def resolve(name: str, backbone: Backbone, fetch: Fetch = nothing) -> Source | None:
    """Return the file that ``name`` stands for, or None for ``none``.

    ``name`` is ``none``, ``auto`` (the backbone's first offer), a name that the backbone offers, ``URL#sha256=HEX``
    or a file. ``fetch`` is asked before the download. Raises ``UsageError`` for a name that stands for nothing and
    ``WeightsError`` for a file that is not here and cannot be had.
    """
    if name == "none":
        return None
    if name == "auto" and not backbone.weights:
        raise UsageError(f"'{backbone.name}' offers no weights; write weights: none for a random start, or name a file")
    if name == "auto":
        name = next(iter(backbone.weights))
    if name in backbone.weights:
        return _fetched(name, backbone.weights[name], backbone, fetch)
    if "://" in name:
        return _fetched(public(name), _record(name), backbone, fetch)
    path = Path(name).expanduser()
    if os.path.lexists(path):
        return Source(path=path, name=name, record=_known(path, backbone))
    if len(path.parts) > 1 or path.suffix.lower() in ENDINGS:
        raise WeightsError(f"no weights file at '{path}'; name a .safetensors or .ckpt file")
    offers = ("auto", "none", *backbone.weights)
    raise UsageError(f"'{backbone.name}' offers no weights named '{name}'{did_you_mean(name, offers)}")


def target(record: Weights, cache: Path) -> Path:
    """Return where a record's file is kept: two files of one name do not meet."""
    return cache / f"{record.sha256[:12]}-{Path(urlsplit(record.url).path).name or 'weights'}"


def _fetched(name: str, record: Weights, backbone: Backbone, fetch: Fetch) -> Source:
    cache = cache_folder() / "weights"
    try:
        path = fetch(record, cache) or download.fetch(record.url, f"sha256:{record.sha256}", target(record, cache))
    except DownloadError as error:
        address = public(record.url)
        reason = str(error).partition(";")[0].replace(f"'{address}'", "the file")
        raise DownloadError(
            f"no weights '{name}' for '{backbone.name}': {reason}\n"
            f"  address: {address}\n"
            f"  sha256:  {record.sha256}\n"
            f"  file:    {target(record, cache)} (put there by hand, it needs no network)\n"
            "or go on without it: backbone.weights=FILE takes weights of yours, backbone.weights=none starts from "
            "random, and `finetune run quickstart` needs no weights"
        ) from error
    return Source(path=path, name=name, record=record)


def _record(text: str) -> Weights:
    url, _, digest = text.partition("#sha256=")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise UsageError(f"'{public(url)}' needs the sha256 of its file; write URL#sha256= and 64 hex digits")
    return Weights(url=url, sha256=digest.lower(), layout="")


def public(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _known(path: Path, backbone: Backbone) -> Weights | None:
    """Return the record of a file that the backbone offers and the user fetched by hand."""
    with suppress(OSError):
        if backbone.weights and path.is_file():
            digest = sha256(path)
            return next((record for record in backbone.weights.values() if record.sha256 == digest), None)
    return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
