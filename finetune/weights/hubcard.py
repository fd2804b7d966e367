"""Cards of MindSpore Hub: Markdown files that state the network and the address of weights.

``cardassets`` parses the fields between the two ``---`` lines and chooses the checkpoint.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.components import Weights
from finetune.errors import WeightsError
from finetune.weights.cardassets import SHA256, drop_unprintable, find_checkpoint, parse_fields, refuse, simplify_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["SHA256", "Card", "hub_card", "parse_card", "read_card"]

MAX_BYTES = 1 << 20  # the longest card of the Hub has 12 kB
SIDES = range(8, 4097)  # pixels that an input side can have
RESIZE = 256  # MindSpore's evaluation stretches images to this side before the crop, for inputs of 224 and 227
CROP = 0.875  # MindCV's evaluation keeps the aspect ratio and crops to this share of the resized side
APACHE = re.compile(r"apache(?: license)?(?:,? version)?[ -]?v?2(?:\.0)?", re.IGNORECASE)
FENCE = re.compile(r"---+\s*")
CITATION = re.compile(r"^#+ *citation *$\n(.*?)(?=^#|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL)
TOP1 = re.compile(r"top-?1[ _-]?(?:acc(?:uracy)?)?[ :=]*(\d{1,3}(?:\.\d+)?) *%?", re.IGNORECASE)
PLAIN_ACCURACY = re.compile(r"(?:acc(?:uracy)?)?[ :=]*(\d{1,3}(?:\.\d+)?) *%?", re.IGNORECASE)
# Measures of tasks other than classification, and words for such tasks in ``module-type``.
MEASURE = re.compile(r"(?<![a-z])(?:m?ap(?![a-z])|m?iou|hmean|wer|cer|bleu|fid|psnr|dice)", re.IGNORECASE)
OTHER_TASK = re.compile(r"detect|segment|pose|track|ocr|gener|gan|super|denois|depth|video|reid", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card: the names ``model`` and ``backbone`` of its network, and its weights.

    ``backbone`` is a family, such as ``resnext``, on cards of MindCV's networks. ``task`` quotes the field of a card
    that is not for image classification. ``note`` informs the user of the choice among several assets.
    """

    model: str
    backbone: str
    weights: Weights
    dataset: str = ""
    task: str = ""
    note: str = ""

    def check(self, backbone: str, where: str, aliases: Collection[str] = ()) -> None:
        """Raise ``WeightsError`` unless the card is for a backbone of this name or one of its ``aliases``."""
        if self.task:
            raise WeightsError(
                f"'{where}' is a card of '{self.model}', which is not for image classification ({self.task}); "
                f"use a classification card of '{backbone}'"
            )
        if not self.fits(backbone, aliases):
            name = self.model or self.backbone
            family = f" (backbone-name '{self.backbone}')" if self.backbone not in ("", name) else ""
            raise WeightsError(
                f"'{where}' is a card of '{name}'{family}, but the recipe's backbone is '{backbone}'; use a card of "
                "this network, or the backbone of the card"
            )

    def fits(self, backbone: str, aliases: Collection[str] = ()) -> bool:
        """Return whether the card's names are those of a backbone, ignoring case and punctuation.

        A model of the same family, such as ``resnext101`` for ``resnext50``, must have the exact name. For models with
        unrelated names, such as that of their data, the ``backbone-name`` decides.
        """
        names = {simplify_name(name) for name in (backbone, *aliases)}
        model = simplify_name(self.model)
        if model in names or model.removesuffix(simplify_name(self.dataset)) in names:
            return True
        family = re.match(r"[a-z]*", simplify_name(backbone))
        same_family = bool(family and family[0] and family[0] in model)
        return simplify_name(self.backbone) in names and not same_family


def hub_card(path: str | Path) -> Weights:
    """Return the weights that a card of MindSpore Hub describes.

    Mean and std are those of ImageNet. Images are stretched (``keep_aspect`` is False) to 256 pixels before the crop,
    or to 8/7 of a larger input, as in MindSpore's own evaluation; cards of MindCV's networks keep the aspect ratio and
    crop to 0.875 of the shorter side. Raises ``WeightsError`` for a file that is not a card, and for a card without an
    https link and at least 8 digits of a sha256.
    """
    return read_card(Path(path)).weights


def read_card(path: Path) -> Card:
    """Read a card; raises ``WeightsError`` for a file that is not a valid card."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise WeightsError(f"'{path}' is not a file; name the .md file of a card")
        if about.st_size > MAX_BYTES:
            raise WeightsError(f"'{path}' is too large for a card ({about.st_size:,} bytes); name the card itself")
        text = path.read_bytes()[:MAX_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WeightsError(f"'{path}' is not a card, since it is not text; copy it again as UTF-8") from None
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read ({error.strerror}); name the .md file of a card") from error
    return parse_card(text, str(path))


def parse_card(text: str, where: str) -> Card:
    """Parse the text of a card; ``where`` names it in errors."""
    if "\0" in text:
        raise WeightsError(f"'{where}' is not a card, since it is not text; copy it again as UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE.fullmatch(line)][:2]
    if len(fences) < 2:
        raise WeightsError(
            f"'{where}' is not a card of MindSpore Hub: it has no fields between two lines of ---; name such a card, "
            "or the weights file itself"
        )
    fields = parse_fields(lines[fences[0] + 1 : fences[1]])
    stated = fields.named
    model = stated.get("model-name", "")
    chosen = find_checkpoint(fields.assets or [[*stated.items()]], model or stated.get("backbone-name", ""), where)
    size, resize, keep_aspect = read_sides(stated, chosen.url, where)
    weights = Weights(
        url=chosen.url,
        sha256=chosen.sha256,
        layout="",
        size=size,
        resize=resize,
        keep_aspect=keep_aspect,
        licence=parse_licence(stated.get("license", "")),
        source=describe_source(stated),
        citation=find_citation("\n".join(lines[fences[1] + 1 :])),
        accuracy=parse_accuracy(stated.get("accuracy") or stated.get("evaluation", "")),
    )
    return Card(
        model=model,
        backbone=stated.get("backbone-name", ""),
        weights=weights,
        dataset=stated.get("train-dataset", ""),
        task=find_other_task(stated),
        note=chosen.note,
    )


def read_sides(stated: Mapping[str, str], url: str, where: str) -> tuple[int, int, bool]:
    """Return size, resize and keep_aspect, as in the evaluation of the project that made the weights."""
    size = read_side(stated.get("input-shape", ""), where)
    if "/mindcv" in stated.get("repo-link", "").lower() or "/mindcv/" in url.lower():
        return size, int(size / CROP), True
    return size, RESIZE if size <= RESIZE else round(size * 8 / 7), False


def read_side(shape: str, where: str) -> int:
    """Return the side in pixels of the square RGB images that ``input-shape`` states; 224 if it is empty."""
    if not shape:
        return 224
    numbers = [int(number) for number in re.findall(r"\d{1,6}", shape)]
    for channels in (0, -1):
        square = numbers[1:] if channels == 0 else numbers[:-1]
        if len(numbers) == 3 and numbers[channels] == 3 and square[0] == square[1] and square[0] in SIDES:
            return square[0]
    refuse(where, f"has input-shape '{shape:.100}', which is not the shape of square RGB images such as [3, 224, 224]")


def find_other_task(stated: Mapping[str, str]) -> str:
    """Return the field that shows that a card is not for image classification; empty if it may be."""
    module, evaluation = stated.get("module-type", ""), stated.get("evaluation", "")
    if OTHER_TASK.search(module) or (module and not re.match(r"cv|image|vision|class", module, re.IGNORECASE)):
        return f"module-type: {module:.60}"
    return f"evaluation: {evaluation:.60}" if MEASURE.search(evaluation) else ""


def describe_source(stated: Mapping[str, str]) -> str:
    """Describe who made the weights, and the data they were trained on."""
    model = " ".join(part for part in (stated.get("model-name", ""), stated.get("model-version", "")) if part)
    data = stated.get("train-dataset", "")
    return " ".join(f"MindSpore Hub {model}".split()) + (f", trained on {data}" if data else "")


def parse_accuracy(text: str) -> float | None:
    """Parse a top-1 accuracy in 0..1 from ``0.78``, ``78`` or ``top1acc78.51 | top5acc94.18``; None for other texts."""
    found = TOP1.search(text) or PLAIN_ACCURACY.match(text.strip())
    value = float(found[1]) if found else -1.0
    value = value / 100 if value > 1 else value
    return round(value, 6) if 0 <= value <= 1 else None


def parse_licence(text: str) -> str:
    """Return the name of a licence; that of Apache in its SPDX form."""
    return "Apache-2.0" if APACHE.fullmatch(text) else text[:100] or "unknown"


def find_citation(body: str) -> str:
    """Return the text below ``## Citation`` on one line; empty if there is none."""
    found = CITATION.search(body)
    return drop_unprintable(" ".join(found[1].split())[:500]) if found else ""
