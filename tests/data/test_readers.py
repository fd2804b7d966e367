"""Datasets that read paths: which dataset is chosen for a file or folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Dataset, Options, PluginError, Samples, UsageError, hookimpl
from finetune.catalogue import Catalogue
from finetune.data import sources
from finetune.plugins import Origin, load_plugins
from tests.drawn import folder

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN = Origin(name="album", distribution="finetune-album", version="2.1")


class Album(Options):
    """Photos in an album."""

    file: Path
    """The album."""


def catalogue(reads: Callable[[Path], Any] | None) -> Catalogue:
    """Return the installed components and a third-party dataset ``album``."""

    def build(options: Album, split: str) -> Samples | None:
        """Return the folder of photos next to the album."""
        if split != "train":
            return None
        photos = sorted(options.file.with_suffix("").rglob("*.jpg"))
        classes = tuple(sorted({photo.parent.name for photo in photos}))
        labels = [classes.index(photo.parent.name) for photo in photos]
        return Samples(images=photos, labels=labels, classes=classes)

    @hookimpl
    def finetune_datasets() -> list[Dataset]:
        return [Dataset(name="album", options=Album, build=build, reads=reads)]

    plugins = load_plugins()
    plugins.register(SimpleNamespace(finetune_datasets=finetune_datasets), ORIGIN)
    return Catalogue(plugins)


def read_album(path: Path) -> dict[str, str] | None:
    """Read files that end in ``.album``."""
    return {"file": str(path)} if path.suffix == ".album" else None


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return an album of drawn photos."""
    folder(tmp_path / "mine", each=2)
    file = tmp_path / "mine.album"
    file.touch()
    return file


def test_a_third_party_dataset_reads_its_paths(album: Path) -> None:
    offers = catalogue(read_album)
    assert sources.build_section(album, offers) == {"use": "album", "file": str(album)}
    assert sources.build_section(album.parent / "mine", offers)["use"] == "folder"
    found = sources.find_labelled(album, {"classes": ["blue", "green", "red"]}, offers)
    assert (found.dataset.component.name, found.dataset.origin, len(found.samples)) == ("album", ORIGIN, 6)


def test_it_keeps_the_options_of_the_training_data(album: Path) -> None:
    offers = catalogue(read_album)
    like = {"use": "csv", "file": "train.csv", "label_column": "species"}
    table = album.with_name("test.csv")
    table.write_text("path,species\n")
    assert sources.build_section(table, offers, like) == {**like, "file": str(table)}
    assert sources.build_section(album, offers, like) == {"use": "album", "file": str(album)}


def test_a_dataset_that_names_no_paths_gets_those_of_its_own_form(album: Path) -> None:
    like = {"use": "album", "file": "train.album"}
    assert sources.build_section(album, catalogue(None), like) == {**like, "file": str(album)}
    with pytest.raises(UsageError, match=r"mine\.album is neither a folder nor a \.csv file"):
        sources.build_section(album, catalogue(None))


def test_a_folder_belongs_to_the_dataset_that_was_registered_last(album: Path) -> None:
    offers = catalogue(lambda path: {"file": str(path)} if path.is_dir() else None)
    assert sources.build_section(album.parent, offers)["use"] == "album"


def test_what_it_raises_names_the_plugin(album: Path) -> None:
    def fail(path: Path) -> None:
        raise KeyError("pages")

    message = r"plugin 'album' \(finetune-album 2\.1\) failed in reads of dataset 'album': KeyError: 'pages'"
    with pytest.raises(PluginError, match=message):
        sources.build_section(album, catalogue(fail))


@pytest.mark.parametrize(
    ("answer", "text"),
    [({"folder": "x"}, "returned 'folder', which is not an option"), ("x", "returned 'x', not options")],
)
def test_what_it_returns_must_be_options(answer: object, text: str, album: Path) -> None:
    with pytest.raises(PluginError, match=text):
        sources.build_section(album, catalogue(lambda path: answer))
