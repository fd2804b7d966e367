"""Dataset ``mindrecord``: images in MindRecord files that ``finetune pack`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune import Dataset, Options, Samples, Split, existing_folder, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable


class MindRecord(Options):
    """Images that `finetune pack` packed into MindRecord files."""

    root: Path
    """Folder that `finetune pack` wrote."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``mindrecord``."""
    yield Dataset(name="mindrecord", options=MindRecord, build=build, reads=read_path)


def read_path(path: Path) -> dict[str, str] | None:
    """Read a folder that holds a complete pack."""
    from finetune import is_pack

    return {"root": str(path)} if is_pack(path) else None


def build(options: MindRecord, split: Split) -> Samples | None:
    """Return the images of a split in the order in which they were packed."""
    from finetune import read_pack

    return read_pack(existing_folder(options.root), split)
