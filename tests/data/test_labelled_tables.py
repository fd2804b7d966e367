"""Tables to evaluate on, whose columns have other names than those of the table that was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.data import sources
from finetune.errors import DataError
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

TRAINED_ON = {
    "dataset": {"use": "csv", "file": "t.csv", "path_column": "filename", "label_column": "kind"},
    "classes": ["blue", "red"],
}


def table(place: Path, header: str) -> Path:
    """Return a table of photos with these columns."""
    photos = sorted((place / "photos").rglob("*.jpg")) or sorted(folder(place / "photos", each=2).rglob("*.jpg"))
    file = place / f"{header.partition(',')[0]}.csv"
    file.write_text("\n".join([header, *(f"{photo},{photo.parent.name}" for photo in photos)]))
    return file


@pytest.mark.parametrize("header", ["filename,kind", "path,label"])
def test_a_table_has_the_columns_of_training_or_the_usual_ones(tmp_path: Path, header: str) -> None:
    found = sources.find_labelled(table(tmp_path, header), TRAINED_ON, Catalogue(plugins.load_plugins()))
    assert len(found.samples) == 6


def test_other_columns_are_refused_with_those_of_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'filename'"):
        sources.find_labelled(table(tmp_path, "file,species"), TRAINED_ON, Catalogue(plugins.load_plugins()))
