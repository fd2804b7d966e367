"""Assets of a Hub card: finds the checkpoint, its address and its SHA-256."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from finetune.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


LONGEST = 2048  # maximum characters of a value; no address is longer
ENTRY = re.compile(r"\s*-(?:\s+(.*))?")
FLOW = re.compile(r"\s*(?:-|assets?\s*:)\s*[\[{]", re.IGNORECASE)
FLOW_ENTRY = re.compile(r"\{([^{}]*)\}")
NAME = re.compile(r"[A-Za-z][\w .-]{0,40}")
OF_AN_ASSET = ("file-format", "asset-link", "asset-sha256")

Asset = list[tuple[str, str]]


@dataclass(slots=True)
class Fields:
    """The fields of a card by name, the first of each name, and the fields of each asset."""

    named: dict[str, str] = field(default_factory=dict)
    assets: list[Asset] = field(default_factory=list)


def parse_fields(lines: Sequence[str]) -> Fields:
    """Parse the fields of a card; a line that begins an entry, or is indented within one, belongs to an asset."""
    found = Fields()
    within = False
    for line in unfold_flow(lines):
        if entry := ENTRY.fullmatch(line):
            found.assets.append([])
            within, line = True, f" {entry[1] or ''}"
        name, colon, value = line.partition(":")
        if not colon:
            continue
        name = strip_value(name).lower().replace("_", "-")
        if not NAME.fullmatch(name):
            continue
        within = within and (line[0].isspace() or name in OF_AN_ASSET)
        if within:
            found.assets[-1].append((name, strip_value(value)))
        else:
            found.named.setdefault(name, strip_value(value))
    return found


def unfold_flow(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a card with flow entries as block entries; unclosed brackets are left unchanged."""
    number = 0
    while number < len(lines):
        line = lines[number]
        if not ("{" in line or "[" in line) or not FLOW.match(line):
            yield line
            number += 1
            continue
        end = find_closing_line(lines, number)
        if end is None:
            yield from lines[number:]
            return
        for entry in FLOW_ENTRY.finditer(" ".join(lines[number : end + 1])):
            yield "-"
            yield from (f"  {pair.strip()}" for pair in re.split(r",(?=[\s\"']*[A-Za-z][\w -]*[\"']?\s*:)", entry[1]))
        number = end + 1


def find_closing_line(lines: Sequence[str], start: int) -> int | None:
    """Return the number of the line that closes the brackets of line ``start``, None if there is none."""
    depth = 0
    for number in range(start, len(lines)):
        depth += sum(lines[number].count(bracket) for bracket in "[{")
        depth -= sum(lines[number].count(bracket) for bracket in "]}")
        if depth <= 0:
            return number
    return None


def strip_value(value: str) -> str:
    """Remove the comment, quotes, the angle brackets of a link, and control characters from a value."""
    value = re.sub(r"(?:^|\s)#.*", "", drop_unprintable(value.strip()[:LONGEST])).strip()
    for first, last in ("''", '""', "<>"):
        if len(value) > 1 and value[0] == first and value[-1] == last:
            value = value[1:-1].strip()
    return value


def drop_unprintable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


FORMATS = ("ckpt", "checkpoint", "safetensors")  # formats that weights can be loaded from
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")
SHA256 = re.compile(r"[0-9a-f]{8,64}")
# Parts of a file's name that do not say which network it is for.
DEVICE = re.compile(r"ascend|npu|gpu|cpu|a?910[a-z]?(?:v\d)?|310p?", re.IGNORECASE)
NAMELESS = re.compile(r"[0-9a-f]{8,64}|ckpt|safetensors", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Address of a checkpoint, 8 or more digits of its SHA-256, and a note for the user if there was a choice."""

    url: str
    sha256: str
    note: str = ""


def find_checkpoint(assets: Sequence[Asset], model: str, where: str) -> Checkpoint:
    """Find the checkpoint of a card; among checkpoints for different devices, the first, since they load alike.

    ``model`` is the network's name, which selects one of several networks. Raises ``WeightsError`` for a card without
    exactly one such checkpoint, an https or file address, and 8 to 64 digits of a SHA-256.
    """
    listed = [asset for asset in assets if read_format(asset) in FORMATS]
    if not listed:
        refuse(where, f"has no asset of file-format ckpt{describe_other_formats(assets)}")
    digests = group_digests(listed)
    if not digests:
        refuse(where, "has no asset-link for its checkpoint")
    link, note = choose_link([*digests], model, where)
    if parse_path(link).lower().endswith(ARCHIVES):
        refuse(where, f"links an archive as its checkpoint, '{link:.200}'; unpack it and pass the .ckpt file in it")
    return Checkpoint(url=link, sha256=choose_digest(digests[link], where), note=note)


def read_format(asset: Asset) -> str:
    return dict(asset).get("file-format", "").lower().strip(". ")


def describe_other_formats(assets: Iterable[Asset]) -> str:
    """Describe which formats a card has instead, as the end of a message."""
    kinds = sorted({value for asset in assets for name, value in asset if name == "file-format"})[:5]
    return f"; it has {', '.join(map(repr, kinds))}" if kinds else ""


def group_digests(assets: Iterable[Asset]) -> dict[str, set[str]]:
    """Return the stated digests of each address, in order; those of an asset belong to all its addresses."""
    found: dict[str, set[str]] = {}
    for asset in assets:
        digests = {value.lower().removeprefix("sha256:") for name, value in asset if name == "asset-sha256" and value}
        for link in (value for name, value in asset if name == "asset-link" and value):
            found.setdefault(link, set()).update(digests)
    return found


def choose_link(links: Sequence[str], model: str, where: str) -> tuple[str, str]:
    """Return the address to use, and a note if there was a choice; raises ``WeightsError`` if it is ambiguous."""
    for link in links:
        if not is_safe(link):
            refuse(where, f"has the asset-link '{link:.200}', which is neither https nor file")
    networks = {link: parse_file_name(link) for link in links}
    # Names with a suffix, such as resnext50_ema, mean the same network, but different weights.
    candidates = [link for link in links if networks[link][0].startswith(simplify_name(model))]
    if len({network for network, _ in networks.values()}) == 1:
        candidates = [*links]
    same = len({networks[link][0] for link in candidates}) == 1
    if not same or len({networks[link][1] for link in candidates}) < len(candidates):
        refuse(where, f"has {len(links)} checkpoints: {', '.join(map(repr, links[:3]))}")
    if len(candidates) == 1:
        return candidates[0], ""
    others = ", ".join(f"'{link}'" for link in candidates[1:4])
    return candidates[0], f"the card lists a checkpoint for each device; using '{candidates[0]}', not {others}"


def parse_file_name(link: str) -> tuple[str, str]:
    """Parse the network and the device from a checkpoint's file name; each may be empty."""
    parts = re.split(r"[-_.]", PurePosixPath(parse_path(link)).name)
    devices = [part for part in parts if DEVICE.fullmatch(part)]
    others = [part for part in parts if part not in devices and not NAMELESS.fullmatch(part)]
    return simplify_name("".join(others)), " ".join(devices).lower()


def choose_digest(digests: set[str], where: str) -> str:
    """Return the digits of a SHA-256; the longest if several agree."""
    if not digests:
        refuse(where, "has no asset-sha256 for its checkpoint, so a download cannot be verified")
    digest = max(digests, key=len)
    agree = all(digest.startswith(each) for each in digests)
    if not agree or not all(SHA256.fullmatch(each) for each in digests):
        wrong = next((each for each in sorted(digests) if not SHA256.fullmatch(each)), min(digests))
        refuse(
            where,
            f"has asset-sha256 '{wrong:.100}', which is not a single sha256 of 64 hex digits, or its first 8 or more",
        )
    return digest


def is_safe(link: str) -> bool:
    """Return whether a link is an https address with a host, or a file."""
    try:
        parts = urlsplit(link)
        hostname = parts.hostname
    except ValueError:
        return False
    if any(character.isspace() for character in link):
        return False
    return (parts.scheme == "https" and bool(hostname)) or (parts.scheme == "file" and bool(parts.path))


def parse_path(link: str) -> str:
    """Return the path of an address that ``is_safe`` accepts."""
    return urlsplit(link).path


def simplify_name(name: str) -> str:
    """Return a network's name without case and punctuation, so that ``ResNeXt-50`` equals ``resnext50``."""
    return re.sub(r"[\W_]", "", name).casefold()


def refuse(where: str, what: str) -> NoReturn:
    """Raise the error for a card that cannot be used."""
    raise WeightsError(f"the card '{where}' {what}; correct the card, or pass the weights as URL#sha256=HEX or a file")
