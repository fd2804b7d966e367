"""Where pretrained weights come from: from the word in a recipe to a file that is here and verified."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.components import Backbone, Weights
from finetune.errors import UsageError, WeightsError
from finetune.suggest import did_you_mean
from finetune.weights import hubcard
from finetune.weights.fetching import fetched, nothing, public, sha256, target

if TYPE_CHECKING:
    from finetune.weights.fetching import Fetch, Verified

__all__ = ["Source", "public", "resolve", "sha256", "target"]

CARD = ".md"
ENDINGS = (CARD, ".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".h5", ".npz", ".onnx", ".zip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A weights file that is here, the word it was asked for with, and its record where it is known.

    The record has the whole sha256 of the file, also where its publisher states less; ``verified`` says what that was
    compared with, None for a file of the user's own. ``note`` is what the user should be told.
    """

    path: Path
    name: str
    record: Weights | None = None
    verified: Verified | None = None
    note: str = ""


def resolve(name: str, backbone: Backbone, fetch: Fetch = nothing) -> Source | None:
    """Return the file that ``name`` stands for, or None for ``none``.

    ``name`` is ``none``, ``auto`` (the backbone's first offer), a name that the backbone offers, ``URL#sha256=HEX``
    or a file; where URL or file end with ``.md`` they are a card of MindSpore Hub, which stands for its weights.
    ``fetch`` is asked before the download. Raises ``UsageError`` for a name that stands for nothing and
    ``WeightsError`` for a file that is not here and cannot be had.
    """
    if name == "none":
        return None
    if name == "auto" and not backbone.weights:
        raise UsageError(f"'{backbone.name}' offers no weights; write weights: none for a random start, or name a file")
    if name == "auto":
        name = next(iter(backbone.weights))
    if name in backbone.weights:
        return _offered(name, backbone.weights[name], backbone, fetch)
    if "://" in name:
        return _addressed(name, backbone, fetch)
    path = Path(name).expanduser()
    if os.path.lexists(path):
        if path.suffix.lower() == CARD:
            return _described(name, path, backbone, fetch)
        record = _known(path, backbone)
        return Source(path=path, name=name, record=record, verified="sha256" if record else None)
    if len(path.parts) > 1 or path.suffix.lower() in ENDINGS:
        raise WeightsError(f"no weights file at '{path}'; name a .safetensors or .ckpt file, or a Hub card")
    offers = ("auto", "none", *backbone.weights)
    raise UsageError(f"'{backbone.name}' offers no weights named '{name}'{did_you_mean(name, offers)}")


def _offered(name: str, record: Weights, backbone: Backbone, fetch: Fetch) -> Source:
    """Return the file of a record."""
    found = fetched(name, record, backbone.name, fetch)
    record = replace(record, sha256=found.sha256)
    return Source(path=found.path, name=name, record=record, verified=found.verified, note=found.note)


def _addressed(text: str, backbone: Backbone, fetch: Fetch) -> Source:
    """Return what ``URL#sha256=HEX`` stands for."""
    url, _, digest = text.partition("#sha256=")
    try:
        name = public(url)
    except ValueError:
        raise UsageError(f"'{url.partition('?')[0]}' is no address; write https://HOST/PATH#sha256=HEX") from None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise UsageError(f"'{name}' needs the sha256 of its file; write URL#sha256= and 64 hex digits")
    found = _offered(name, Weights(url=url, sha256=digest.lower(), layout=""), backbone, fetch)
    return _described(name, found.path, backbone, fetch) if name.lower().endswith(CARD) else found


def _described(name: str, path: Path, backbone: Backbone, fetch: Fetch) -> Source:
    """Return the file that a card describes; what the backbone knows of this file comes before what the card says."""
    card = hubcard.read(path)
    card.check(backbone.name, name)
    offers = (offer for offer in backbone.weights.values() if offer.sha256 == card.weights.sha256)
    known = next(offers, None)
    record = card.weights if known is None else replace(known, url=card.weights.url)
    return _offered(name, record, backbone, fetch)


def _known(path: Path, backbone: Backbone) -> Weights | None:
    """Return the record of a file that the backbone offers and the user fetched by hand."""
    with suppress(OSError):
        if backbone.weights and path.is_file():
            digest = sha256(path)
            offers = (offer for offer in backbone.weights.values() if offer.sha256 and digest.startswith(offer.sha256))
            return next((replace(offer, sha256=digest) for offer in offers), None)
    return None
