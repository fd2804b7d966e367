"""What is in a weights file of any kind, with the pieces of grouped convolutions joined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.errors import WeightsError
from finetune.weights import pieces, tensorfile, torchfile
from finetune.weights.sources import sha256

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.weights.tensorfile import Format, Index


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex; raises ``WeightsError`` for what is no file with content."""
    tensorfile.first_bytes(path)
    return sha256(path)


def kind(path: Path) -> Format:
    """Return the format of a file by its content; raises ``WeightsError`` for all but three formats."""
    return "pytorch" if torchfile.is_torch(path) else tensorfile.kind(path)


def index(path: Path) -> Index:
    """Return what is in a file, by the file's names.

    Raises ``WeightsError`` for all but sound files of safetensors, MindSpore and PyTorch.
    """
    found = torchfile.index(path) if kind(path) == "pytorch" else tensorfile.index(path)
    try:
        return pieces.joined(found)
    except WeightsError as error:
        raise WeightsError(f"'{path}': {error}") from None


def metadata(path: Path) -> dict[str, str]:
    """Return the texts in a file; PyTorch's have none."""
    return {} if kind(path) == "pytorch" else tensorfile.index(path).metadata
