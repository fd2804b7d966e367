"""Where pretrained weights come from: from the word in a recipe to a file that is here and verified."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from finetune.components import Backbone, Weights
from finetune.errors import UsageError, WeightsError
from finetune.files.home import cache_folder, expand_home, offline
from finetune.files.promise import public, sha256
from finetune.suggest import did_you_mean
from finetune.weights import hubcard, opening
from finetune.weights.converted import opened
from finetune.weights.fetching import fetched, local, nothing, target
from finetune.weights.formats import owncheckpoint

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.weights.converted import Opened
    from finetune.weights.fetching import Fetch, Verified

CARD = ".md"
# In a run folder, in a model folder, in a folder of Hugging Face.
SAVED = ("model/weights.safetensors", "weights.safetensors", "model.safetensors")
DESCRIBING = (
    "model.json",
    "recipe.yaml",
    "weights.json",
    "result.json",
    "README.md",
)  # next to weights that this project wrote
ENDINGS = (CARD, ".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".h5", ".npz", ".onnx", ".zip")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A weights file that is here, the word it was asked for with, and its record where it is known.

    The record has the whole sha256 of the file, also where its publisher states less; ``verified`` says what that was
    compared with, None for a file of the user's own. ``card`` is the card that describes a file that the backbone does
    not know. ``note`` is what the user should be told.
    """

    path: Path
    name: str
    record: Weights | None = None
    verified: Verified | None = None
    card: hubcard.Card | None = None
    note: str = ""
    _opened: dict[str, Opened] = field(default_factory=dict, init=False, repr=False, compare=False)

    def opened(self, backbone: Backbone) -> Opened:
        """Return what is in the file for a backbone; it is read once."""
        if backbone.name not in self._opened:
            try:
                self._opened[backbone.name] = opened(self.path, backbone, self._check)
            except WeightsError:
                self._check(opening.digest(self.path))  # a damaged file is above all not the one that was promised
                raise
        return self._opened[backbone.name]

    def _check(self, digest: str) -> None:
        """Raise ``WeightsError`` for a file that is not the one of the record."""
        if self.record is not None and not digest.startswith(self.record.sha256.lower()):
            promised = f"not {self.record.sha256} as promised; remove it to fetch it anew"
            raise WeightsError(f"'{self.path}' has sha256 {digest}, {promised}")

    @property
    def metadata(self) -> dict[str, str]:
        """The texts in the file."""
        known = next(iter(self._opened.values()), None)
        return known.index.metadata if known else opening.metadata(self.path)


def resolve(name: str, backbone: Backbone, fetch: Fetch = nothing) -> Source | None:
    """Return the file that ``name`` stands for, or None for ``none``.

    ``name`` is ``none``, ``auto`` (the backbone's first offer), a name that the backbone offers, ``URL#sha256=HEX``,
    a file, or the folder of a run, its checkpoints or a model; where URL or file end with ``.md`` they are a card of
    MindSpore Hub, which stands for its weights.
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
    path = in_folder(expand_home(name))
    check_name(path)
    if os.path.lexists(path):
        if path.suffix.lower() == CARD:
            return _described(name, path, backbone, fetch)
        return _own(name, path, backbone)
    if len(path.parts) > 1 or path.suffix.lower() in ENDINGS:
        raise WeightsError(f"no weights file at '{path}'; name a .safetensors or .ckpt file, or a Hub card")
    offers = ("auto", "none", *backbone.weights)
    raise UsageError(f"'{backbone.name}' offers no weights named '{name}'{did_you_mean(name, offers)}")


def must_download(name: str, backbone: Backbone) -> bool:
    """Return whether the file that ``name`` stands for is fetched over the network; without one, it fails at once."""
    record = backbone.weights.get(next(iter(backbone.weights), "") if name == "auto" else name)
    if record is None and "://" in name:
        url, _, digest = name.partition("#sha256=")
        record = Weights(url=url, sha256=digest.lower(), layout="")
    elif record is None and name.lower().endswith(CARD):
        with suppress(WeightsError, OSError):
            record = hubcard.read(expand_home(name)).weights
    if record is None or offline():
        return False
    try:
        return local(record.url) is None and not target(record, cache_folder() / "weights").is_file()
    except ValueError:  # the address is none
        return False


def in_folder(path: Path) -> Path:
    """Return the weights in the folder of a run, its checkpoints or a model, any other path as it is."""
    if not os.path.isdir(path):
        return path
    found = next((place for inner in SAVED if os.path.isfile(place := path / inner)), None)
    return found or owncheckpoint.find_in(path / "checkpoints") or owncheckpoint.find_in(path) or path


def check_name(path: Path) -> None:
    """Raise ``WeightsError`` for a file that only describes weights of ours, and for a run without any."""
    if path.name in DESCRIBING and in_folder(path.parent) != path.parent:
        raise WeightsError(f"'{path}' holds no weights; name its folder, '{path.parent}'")
    if os.path.isdir(path) and (path.name == "checkpoints" or os.path.isfile(path / "recipe.yaml")):
        raise WeightsError(f"'{path}' is of a run that has saved no checkpoint; name another run or a weights file")


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
    digest = digest.lower()
    record = known(digest, backbone) or Weights(url=url, sha256=digest, layout="")
    found = _offered(name, replace(record, url=url, sha256=digest), backbone, fetch)
    return _described(name, found.path, backbone, fetch) if name.lower().endswith(CARD) else found


def _described(name: str, path: Path, backbone: Backbone, fetch: Fetch) -> Source:
    """Return the file that a card describes; what the backbone knows of this file comes before what the card says."""
    card = hubcard.read(path)
    card.check(backbone.name, name, backbone.aliases)
    offer = known(card.weights.sha256, backbone)
    said = card.weights
    digest = said.sha256 if offer is None else max(said.sha256, offer.sha256.lower(), key=len)
    record = replace(said if offer is None else offer, url=said.url, sha256=digest)
    found = _offered(name, record, backbone, fetch)
    notes = [note for note in (card.note, found.note) if note]
    return replace(found, card=card if offer is None else None, note="; ".join(notes))


def _own(name: str, path: Path, backbone: Backbone) -> Source:
    """Return a file of the user's, who may have fetched by hand what the backbone offers."""
    with suppress(OSError):
        if backbone.weights and os.path.isfile(path):
            digest = sha256(path)
            if offer := known(digest, backbone):
                verified: Verified = "sha256" if len(offer.sha256) == len(digest) else "prefix"
                return Source(path=path, name=name, record=replace(offer, sha256=digest), verified=verified)
    return Source(path=path, name=name, note=owncheckpoint.note(path))


def known(digest: str, backbone: Backbone) -> Weights | None:
    """Return the offer of a backbone whose file has this SHA-256, of which either may have the first digits only."""
    offers = (offer for offer in backbone.weights.values() if offer.sha256)
    return next((each for each in offers if digest.startswith(each.sha256.lower()) or is_start(digest, each)), None)


def is_start(digest: str, offer: Weights) -> bool:
    """Tell whether ``digest`` is how the SHA-256 of an offer begins."""
    return offer.sha256.lower().startswith(digest)
