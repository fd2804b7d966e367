"""Weights sources: resolves the name of weights to a local, verified file."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from finetune.components import Backbone, Weights
from finetune.errors import DownloadError, PluginError, UsageError, WeightsError
from finetune.files import download, trust
from finetune.files.atomic import cache_folder, expand_home, is_offline
from finetune.files.remote_file import AddressFailed, RemoteFile, sha256, strip_secrets
from finetune.suggest import did_you_mean
from finetune.weights import hubcard, loading
from finetune.weights.converted import open_weights
from finetune.weights.formats import owncheckpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.plugins import Plugins

    Fetch = Callable[[Weights, Path], Path | None]
    from finetune.weights.converted import OpenedWeights


Verified = Literal["sha256", "prefix", "first use"]

DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedWeights:
    """A file, its complete sha256, what that was compared with, and a note to show to the user once."""

    path: Path
    sha256: str
    verified: Verified
    note: str = ""


def fetch_nothing(record: Weights, cache: Path) -> None:
    """Return None, so that the file is downloaded."""


def fetch_weights(name: str, record: Weights, backbone: str, ask: Fetch = fetch_nothing) -> FetchedWeights:
    """Return the file of a record: what ``ask`` returns, or else the file of a ``file:`` address, or else a download.

    If the publisher states no complete sha256, that of the first file is stored next to its place in the cache, and
    every later file must have it. Raises ``DownloadError`` for a file that cannot be downloaded, and ``WeightsError``
    for a file with a different hash.
    """
    record = replace(record, sha256=record.sha256.lower())
    place = locate_file(record, cache_folder() / "weights")
    stated = f"sha256:{record.sha256}" if record.sha256 else ""
    wanted = trust.recall_hash(RemoteFile(record.url, stated, place)).digest.partition(":")[2]
    whole = len(record.sha256) == DIGITS
    path = ask(record, place.parent) or find_local_file(record.url)
    if path is None and wanted != record.sha256 and place.is_file():
        path = place
    if path is None:
        path = download_weights(name, record, backbone, stated, place)
    found = wanted if whole and path == place else hash_file(path)
    if not found.startswith(wanted):
        raise WeightsError(describe_mismatch(record, path, found, wanted, place))
    if whole:
        return FetchedWeights(path=path, sha256=found, verified="sha256")
    note = "" if wanted == found else remember_hash(name, record, place, found)
    return FetchedWeights(path=path, sha256=found, verified="prefix" if record.sha256 else "first use", note=note)


def locate_file(record: Weights, cache: Path) -> Path:
    """Return the path of a record's file in the cache, which differs for files of the same name."""
    key = record.sha256[:12] or hashlib.sha256(record.url.encode()).hexdigest()[:12]
    return cache / f"{key}-{Path(urlsplit(record.url).path).name or 'weights'}"


def find_local_file(url: str) -> Path | None:
    """Return the existing file that a ``file:`` address on this machine names, otherwise None."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    return path if parts.scheme == "file" and parts.netloc in ("", "localhost") and path.is_file() else None


def download_weights(name: str, record: Weights, backbone: str, stated: str, place: Path) -> Path:
    """Download and verify a record's file; errors list every alternative."""
    limits = replace(download.LIMITS, size=record.bytes or download.LIMITS.size)
    try:
        return download.fetch(record.url, stated, place, limits=limits)
    except DownloadError as error:
        address = strip_secrets(record.url)
        reason = getattr(error, "reason", str(error)).replace(f"'{address}'", "the file")
        reason = f"the file {reason}" if isinstance(error, AddressFailed) else reason
        raise DownloadError(
            f"no weights '{name}' for '{backbone}': {reason}\n"
            f"  address: {address}\n"
            f"  sha256:  {record.sha256 or 'not stated by the publisher'}\n"
            f"  file:    {place} (no download if you put the file here)\n"
            "or continue without it: backbone.weights=FILE uses your own weights, backbone.weights=none starts from "
            "random weights, and `finetune run quickstart` needs no weights"
        ) from error


def hash_file(path: Path) -> str:
    """Return the sha256 of a file; raises ``WeightsError`` if it cannot be read."""
    try:
        return sha256(path)
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read ({error.strerror}); change its permissions") from error


def describe_mismatch(record: Weights, path: Path, found: str, wanted: str, place: Path) -> str:
    """Describe a file whose hash differs from the stated one, or from its first use."""
    if wanted != record.sha256:
        return trust.describe_change(path, found, wanted, trust.locate_mark(place))
    text = f"'{path}' has sha256 {found}, not {wanted}{'…' if len(wanted) < DIGITS else ''} as expected"
    mine = find_local_file(record.url) == path
    return f"{text}; {'correct the hash, or name a different file' if mine else 'remove it to download it again'}"


def remember_hash(name: str, record: Weights, place: Path, found: str) -> str:
    """Store the hash of a file's first use, and return a note for the user."""
    trust.keep_hash(place, found)
    stated = f"only {len(record.sha256)} digits of their sha256" if record.sha256 else "no sha256"
    return (
        f"weights '{name}': the publisher states {stated}; later files must have the hash of this one, {found} "
        f"(to accept a different file, remove '{trust.locate_mark(place)}' and the file next to it)"
    )


def make_plugin_fetch(plugins: Plugins) -> Fetch:
    """Return a function that asks plugins for weights; the first file that one returns is used."""

    def ask(record: Weights, cache: Path) -> Path | None:
        answer = plugins.call_first("finetune_fetch_weights", weights=record, cache=cache)
        if answer is None:
            return None
        origin, found = answer
        if not isinstance(found, str | Path) or not os.path.isfile(found):
            what = f"finetune_fetch_weights returned {found!r}, which is not a file"
            raise PluginError(f"{origin}: {what}; return the path of a file, or None to decline")
        return Path(found)

    return ask


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
    """A local weights file, the name that it was requested by, and its record if it is known.

    Attributes:
        record: Has the complete sha256 of the file, even if its publisher states less.
        verified: What the sha256 was compared with, None for the user's own file.
        card: The card that describes a file that the backbone does not know.
        note: A note to show to the user.
    """

    path: Path
    name: str
    record: Weights | None = None
    verified: Verified | None = None
    card: hubcard.Card | None = None
    note: str = ""
    _opened: dict[str, OpenedWeights] = field(default_factory=dict, init=False, repr=False, compare=False)

    def opened(self, backbone: Backbone) -> OpenedWeights:
        """Read the file for a backbone, once."""
        if backbone.name not in self._opened:
            try:
                self._opened[backbone.name] = open_weights(self.path, backbone, self._check)
            except WeightsError:
                self._check(loading.hash_file(self.path))  # for a damaged file, report the wrong hash
                raise
        return self._opened[backbone.name]

    def _check(self, digest: str) -> None:
        """Raise ``WeightsError`` for a file whose hash is not that of the record."""
        if self.record is not None and not digest.startswith(self.record.sha256.lower()):
            expected = f"not {self.record.sha256} as expected; remove it to download it again"
            raise WeightsError(f"'{self.path}' has sha256 {digest}, {expected}")

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        known = next(iter(self._opened.values()), None)
        return known.index.metadata if known else loading.read_metadata(self.path)


def resolve(name: str, backbone: Backbone, fetch: Fetch = fetch_nothing) -> Source | None:
    """Return the file that ``name`` means, or None for ``none``.

    ``name`` is ``none``, ``auto`` (the backbone's first offer), a name that the backbone offers, ``URL#sha256=HEX``,
    a file, or the folder of a run, its checkpoints or a model. A URL or file that ends with ``.md`` is a card of
    MindSpore Hub and means the weights that it describes. ``fetch`` is asked before a download. Raises ``UsageError``
    for an unknown name, and ``WeightsError`` for a file that does not exist or cannot be downloaded.
    """
    if name == "none":
        return None
    if name == "auto" and not backbone.weights:
        raise UsageError(f"'{backbone.name}' offers no weights; write weights: none for a random start, or name a file")
    if name == "auto":
        name = next(iter(backbone.weights))
    if name in backbone.weights:
        return _fetch_offered(name, backbone.weights[name], backbone, fetch)
    if "://" in name:
        return _fetch_address(name, backbone, fetch)
    path = find_in_folder(expand_home(name))
    check_name(path)
    if os.path.lexists(path):
        if path.suffix.lower() == CARD:
            return _fetch_described(name, path, backbone, fetch)
        return _use_own_file(name, path, backbone)
    if len(path.parts) > 1 or path.suffix.lower() in ENDINGS:
        raise WeightsError(f"no weights file at '{path}'; name a .safetensors or .ckpt file, or a Hub card")
    offers = ("auto", "none", *backbone.weights)
    raise UsageError(f"'{backbone.name}' offers no weights named '{name}'{did_you_mean(name, offers)}")


def must_download(name: str, backbone: Backbone) -> bool:
    """Return whether the file that ``name`` means has to be downloaded; False when offline."""
    record = backbone.weights.get(next(iter(backbone.weights), "") if name == "auto" else name)
    if record is None and "://" in name:
        url, _, digest = name.partition("#sha256=")
        record = Weights(url=url, sha256=digest.lower(), layout="")
    elif record is None and name.lower().endswith(CARD):
        with suppress(WeightsError, OSError):
            record = hubcard.read_card(expand_home(name)).weights
    if record is None or is_offline():
        return False
    try:
        return find_local_file(record.url) is None and not locate_file(record, cache_folder() / "weights").is_file()
    except ValueError:  # not an address
        return False


def find_in_folder(path: Path) -> Path:
    """Return the weights in the folder of a run, its checkpoints or a model, and any other path unchanged."""
    if not os.path.isdir(path):
        return path
    found = next((place for inner in SAVED if os.path.isfile(place := path / inner)), None)
    return found or owncheckpoint.find_checkpoint(path / "checkpoints") or owncheckpoint.find_checkpoint(path) or path


def check_name(path: Path) -> None:
    """Raise ``WeightsError`` for a file of a model folder that holds no weights, and for a run without weights."""
    if path.name in DESCRIBING and find_in_folder(path.parent) != path.parent:
        raise WeightsError(f"'{path}' holds no weights; name its folder, '{path.parent}'")
    if os.path.isdir(path) and (path.name == "checkpoints" or os.path.isfile(path / "recipe.yaml")):
        raise WeightsError(
            f"'{path}' belongs to a run that has not saved a checkpoint; name a different run or a weights file"
        )


def _fetch_offered(name: str, record: Weights, backbone: Backbone, fetch: Fetch) -> Source:
    found = fetch_weights(name, record, backbone.name, fetch)
    record = replace(record, sha256=found.sha256)
    return Source(path=found.path, name=name, record=record, verified=found.verified, note=found.note)


def _fetch_address(text: str, backbone: Backbone, fetch: Fetch) -> Source:
    """Return the file that ``URL#sha256=HEX`` means."""
    url, _, digest = text.partition("#sha256=")
    try:
        name = strip_secrets(url)
    except ValueError:
        raise UsageError(
            f"'{url.partition('?')[0]}' is not a valid address; write https://HOST/PATH#sha256=HEX"
        ) from None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise UsageError(f"'{name}' needs the sha256 of its file; write URL#sha256= and 64 hex digits")
    digest = digest.lower()
    record = find_known(digest, backbone) or Weights(url=url, sha256=digest, layout="")
    found = _fetch_offered(name, replace(record, url=url, sha256=digest), backbone, fetch)
    return _fetch_described(name, found.path, backbone, fetch) if name.lower().endswith(CARD) else found


def _fetch_described(name: str, path: Path, backbone: Backbone, fetch: Fetch) -> Source:
    """Return the file that a card describes; the backbone's own record of this file precedes the card."""
    card = hubcard.read_card(path)
    card.check(backbone.name, name, backbone.aliases)
    offer = find_known(card.weights.sha256, backbone)
    stated = card.weights
    digest = stated.sha256 if offer is None else max(stated.sha256, offer.sha256.lower(), key=len)
    record = replace(stated if offer is None else offer, url=stated.url, sha256=digest)
    found = _fetch_offered(name, record, backbone, fetch)
    notes = [note for note in (card.note, found.note) if note]
    return replace(found, card=card if offer is None else None, note="; ".join(notes))


def _use_own_file(name: str, path: Path, backbone: Backbone) -> Source:
    """Return the user's own file, which may be a manual download of weights that the backbone offers."""
    with suppress(OSError):
        if backbone.weights and os.path.isfile(path):
            digest = sha256(path)
            if offer := find_known(digest, backbone):
                verified: Verified = "sha256" if len(offer.sha256) == len(digest) else "prefix"
                return Source(path=path, name=name, record=replace(offer, sha256=digest), verified=verified)
    return Source(path=path, name=name, note=owncheckpoint.describe_checkpoint(path))


def find_known(digest: str, backbone: Backbone) -> Weights | None:
    """Return the backbone's record with this SHA-256, None if there is none; either may only have the first digits."""
    offers = (offer for offer in backbone.weights.values() if offer.sha256)
    return next((each for each in offers if digest.startswith(each.sha256.lower()) or is_start(digest, each)), None)


def is_start(digest: str, offer: Weights) -> bool:
    return offer.sha256.lower().startswith(digest)
