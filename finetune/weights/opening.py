"""What is in a weights file of any kind, by the file's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.errors import WeightsError
from finetune.files.promise import sha256
from finetune.weights.formats import owncheckpoint, tensorfile, torchfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.weights.formats.tensorfile import Format, Index


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex; raises ``WeightsError`` for what is no file with content."""
    tensorfile.first_bytes(path)
    return sha256(path)


def kind(path: Path) -> Format:
    """Return the format of a file by its content; raises ``WeightsError`` for all but three formats."""
    return "pytorch" if torchfile.is_torch(path) else tensorfile.kind(path)


def anything(digest: str) -> None:
    """Take any hash."""


def whole(path: Path, check: Callable[[str], None] = anything) -> tuple[Index, str]:
    """Return what is in a file and its SHA-256, of the very bytes that are used.

    ``check`` may refuse the hash before anything is made of the bytes. Of a run's checkpoint only the network is
    returned. Raises ``WeightsError`` for all but sound files of safetensors, MindSpore and PyTorch.
    """
    if kind(path) != "pytorch":
        index, found_digest = tensorfile.whole(path, check)
        return owncheckpoint.as_weights(path, index), found_digest
    before = digest(path)
    check(before)
    found = torchfile.index(path)
    if digest(path) != before:
        raise WeightsError(f"'{path}' changed while it was read; try again")
    return found, before


def metadata(path: Path) -> dict[str, str]:
    """Return the texts in a file; PyTorch's have none, and those of a run's checkpoint are what its model would say."""
    return {} if kind(path) == "pytorch" else owncheckpoint.texts(path, tensorfile.index(path).metadata)
