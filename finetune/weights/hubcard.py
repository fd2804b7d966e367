"""Cards of MindSpore Hub: Markdown files whose fields, between two ``---`` lines, say where weights are.

The fields look like YAML and are read line by line as text: names and values, and below ``asset:`` one entry for each
``-``. Of several assets the MindSpore checkpoint counts.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from finetune.components import Weights
from finetune.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 1 << 20  # the longest card of the Hub has 12 kB
LONGEST = 2048  # characters of a value; no address is longer
SIDES = range(8, 4097)  # pixels that an input side can have
RESIZE = 256  # MindSpore's evaluation stretches images to this side before the crop, for the inputs of 224 and 227
APACHE = re.compile(r"apache(?: license)?(?:,? version)?[ -]?2(?:\.0)?", re.IGNORECASE)

FENCE = re.compile(r"---+\s*")
ENTRY = re.compile(r"\s*-(?:\s+(.*))?")
NAME = re.compile(r"[A-Za-z][\w .-]{0,40}")
OF_AN_ASSET = ("file-format", "asset-link", "asset-sha256")
CITATION = re.compile(r"^#+ *citation *$\n(.*?)(?=^#|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL)
TOP1 = re.compile(r"(?:top-?1[ _-]?)?(?:acc(?:uracy)?)?[ :=]*(\d{1,3}(?:\.\d+)?) *%?", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card says: the network it is for, by the names ``model`` and ``backbone``, and its weights."""

    model: str
    backbone: str
    weights: Weights

    def check(self, backbone: str, where: str) -> None:
        """Raise ``WeightsError`` unless the card is for a backbone of this name."""
        if plain(backbone) not in (plain(self.backbone), plain(self.model)):
            said = self.backbone or self.model
            raise WeightsError(
                f"'{where}' is a card of '{said}', and the recipe's backbone is '{backbone}'; take a card of this "
                "network, or use the backbone that the card is for"
            )


@dataclass(slots=True)
class Fields:
    """The fields of a card by name, the first of each, and those of each asset."""

    said: dict[str, str] = field(default_factory=dict)
    assets: list[list[tuple[str, str]]] = field(default_factory=list)


def hub_card(path: str | Path) -> Weights:
    """Return the weights that a card of MindSpore Hub describes.

    Mean and std are ImageNet's, and images are stretched (``keep_aspect`` is False) to 256 pixels before the crop, or
    to 8/7 of an input larger than that, as MindSpore's own evaluation does. Raises ``WeightsError`` for a file that is
    no card, and for one without an https link and a sha256.
    """
    return read(Path(path)).weights


def read(path: Path) -> Card:
    """Read a card; raises ``WeightsError`` with what is wrong with it."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise WeightsError(f"'{path}' is no file; name the .md file of a card")
        if about.st_size > MAX_BYTES:
            raise WeightsError(f"'{path}' is too large for a card ({about.st_size:,} bytes); name the card itself")
        text = path.read_bytes()[:MAX_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WeightsError(f"'{path}' is not text, so no card; copy it anew as UTF-8") from None
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read ({error.strerror}); name the .md file of a card") from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Card:
    """Return what the text of a card says; ``where`` names it in errors."""
    if "\0" in text:
        raise WeightsError(f"'{where}' is not text, so no card; copy it anew as UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE.fullmatch(line)][:2]
    if len(fences) < 2:
        raise WeightsError(
            f"'{where}' is no card of MindSpore Hub: it has no fields between two lines of ---; give such a card, or "
            "the weights file itself"
        )
    fields = fields_of(lines[fences[0] + 1 : fences[1]])
    url, sha256 = checkpoint(fields.assets or [[*fields.said.items()]], where)
    said = fields.said
    size = side(said.get("input-shape", ""), where)
    model = " ".join(part for part in (said.get("model-name", ""), said.get("model-version", "")) if part)
    data = said.get("train-dataset", "")
    weights = Weights(
        url=url,
        sha256=sha256,
        layout="",
        size=size,
        resize=RESIZE if size <= RESIZE else round(size * 8 / 7),
        keep_aspect=False,
        licence=licence(said.get("license", "")),
        source=" ".join(f"MindSpore Hub {model}".split()) + (f", trained on {data}" if data else ""),
        citation=citation("\n".join(lines[fences[1] + 1 :])),
        accuracy=accuracy(said.get("accuracy") or said.get("evaluation", "")),
    )
    return Card(model=said.get("model-name", ""), backbone=said.get("backbone-name", ""), weights=weights)


def fields_of(lines: Iterable[str]) -> Fields:
    """Return the fields of a card; a line that begins an entry, or is indented within one, belongs to an asset."""
    found = Fields()
    within = False
    for line in lines:
        if entry := ENTRY.fullmatch(line):
            found.assets.append([])
            within, line = True, f" {entry[1] or ''}"
        name, colon, value = line.partition(":")
        name = name.strip().lower().replace("_", "-")
        if not colon or not NAME.fullmatch(name):
            continue
        within = within and (line[0].isspace() or name in OF_AN_ASSET)
        if within:
            found.assets[-1].append((name, bare(value)))
        else:
            found.said.setdefault(name, bare(value))
    return found


def bare(value: str) -> str:
    """Return a value without a comment, quotes, the angle brackets of a link, and what a terminal would obey."""
    value = re.sub(r"(?:^|\s)#.*", "", printable(value.strip()[:LONGEST])).strip()
    for first, last in ("''", '""', "<>"):
        if len(value) > 1 and value[0] == first and value[-1] == last:
            value = value[1:-1].strip()
    return value


def printable(text: str) -> str:
    """Return a text without control characters."""
    return "".join(character for character in text if character.isprintable())


def checkpoint(assets: list[list[tuple[str, str]]], where: str) -> tuple[str, str]:
    """Return address and sha256 of the one checkpoint among a card's assets."""
    chosen = [asset for asset in assets if dict(asset).get("file-format", "").lower() == "ckpt"]
    if not chosen:
        kinds = sorted({value for asset in assets for name, value in asset if name == "file-format"})[:5]
        others = f"; it has {', '.join(map(repr, kinds))}" if kinds else ""
        wrong(where, f"names no asset of file-format ckpt{others}")
    links = {value for asset in chosen for name, value in asset if name == "asset-link" and value}
    hashes = {value.lower() for asset in chosen for name, value in asset if name == "asset-sha256" and value}
    if len(links) > 1:
        wrong(where, f"names {len(links)} checkpoints: {', '.join(map(repr, sorted(links)[:3]))}")
    if not links:
        wrong(where, "has no asset-link for its checkpoint")
    if not hashes:
        wrong(where, "has no asset-sha256 for its checkpoint, so that a download could not be verified")
    link, digest = links.pop(), hashes.pop()
    if hashes or not SHA256.fullmatch(digest):
        wrong(where, f"has asset-sha256 '{digest:.100}', which is not one sha256 of 64 hex digits")
    if not is_safe(link):
        wrong(where, f"has the asset-link '{link:.200}', which is neither https nor file")
    return link, digest


def wrong(where: str, what: str) -> NoReturn:
    """Raise the error for a card that cannot be used."""
    raise WeightsError(f"the card '{where}' {what}; correct the card, or give the weights as URL#sha256=HEX or a file")


def is_safe(link: str) -> bool:
    """Tell whether a link is an https address with a host, or a file."""
    try:
        parts = urlsplit(link)
        hostname = parts.hostname
    except ValueError:
        return False
    if any(character.isspace() for character in link):
        return False
    return (parts.scheme == "https" and bool(hostname)) or (parts.scheme == "file" and bool(parts.path))


def side(shape: str, where: str) -> int:
    """Return the side in pixels of the square RGB images that ``input-shape`` says; 224 where it says nothing."""
    if not shape:
        return 224
    numbers = [int(number) for number in re.findall(r"\d{1,6}", shape)]
    for channels in (0, -1):
        square = numbers[1:] if channels == 0 else numbers[:-1]
        if len(numbers) == 3 and numbers[channels] == 3 and square[0] == square[1] and square[0] in SIDES:
            return square[0]
    wrong(where, f"has input-shape '{shape:.100}', which is not that of square RGB images such as [3, 224, 224]")


def accuracy(text: str) -> float | None:
    """Return the top-1 in 0..1 that ``0.78``, ``78`` or ``top1acc78.51 | top5acc94.18`` says, None for other texts."""
    found = TOP1.match(text.strip())
    value = float(found[1]) if found else -1.0
    value = value / 100 if value > 1 else value
    return round(value, 6) if 0 <= value <= 1 else None


def licence(text: str) -> str:
    """Return the name of a licence, Apache's as its register of names has it."""
    return "Apache-2.0" if APACHE.fullmatch(text) else text[:100] or "unknown"


def citation(body: str) -> str:
    """Return the text below ``## Citation`` as one line."""
    found = CITATION.search(body)
    return printable(" ".join(found[1].split())[:500]) if found else ""


def plain(name: str) -> str:
    """Return a network's name without case and punctuation: ``ResNeXt-50`` and ``resnext50`` are one."""
    return re.sub(r"[\W_]", "", name).casefold()
