"""Images that are replaced in place, between runs and while one is under way: no features of the old ones are used."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from finetune.errors import DataError
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]

recipe = partial(tiny.recipe, runner={"mode": "pynative"})  # nothing to compile


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return photos that a test may change: all files of one size."""
    root = folder(tmp_path / "own", each=10, size=24)
    for path in root.rglob("*.jpg"):
        padded(path, path.read_bytes())
    return root


def padded(path: Path, data: bytes) -> None:
    path.write_bytes(data.ljust(4096, b"\0"))


def turned(path: Path, *, like_before: bool = False) -> None:
    """Put another picture into a file, of the same size; with ``like_before`` of the same time of change, too."""
    before = path.stat()
    spare = path.with_suffix(".bmp")
    Image.open(path).transpose(Image.Transpose.ROTATE_180).point(lambda v: 255 - v).save(spare, "jpeg")
    padded(path, spare.read_bytes())
    spare.unlink()
    if like_before:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("like_before", [False, True], ids=["later", "same time"])
def test_images_replaced_between_runs(
    like_before: bool, own: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = recipe(own, tmp_path)
    before = run(said)
    for path in (own / "red").iterdir():
        turned(path, like_before=like_before)
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "fresh"))
    fresh = run(said)
    assert fresh.weights != before.weights
    monkeypatch.setenv("FINETUNE_HOME", str(home))
    try:
        made = run(said)
    except DataError as error:
        assert "changed" in str(error)  # noqa: PT017 - either answer will do
        made = run(said)  # the message asks for that
    assert made.weights == fresh.weights
    assert made.lines == fresh.lines


@pytest.mark.parametrize("phase", ["start", "later"])
def test_an_image_replaced_while_running_ends_the_run(phase: str, own: Path, home: Path, tmp_path: Path) -> None:
    said = recipe(own, tmp_path)
    photos = list((own / "blue").iterdir())  # which of them train is the split's affair
    kept = {path: path.read_bytes() for path in photos}

    def replace() -> None:
        for path in photos:
            turned(path)

    first = {"say": lambda message: replace() if "computed once" in message else None}
    how: dict[str, Any] = first if phase == "start" else {"watchers": [At(replace, epoch=1)]}
    with pytest.raises(
        DataError, match=r"blue/\d\d\.jpg' changed since the run started; .*same pixels every time"
    ) as caught:
        run(said, **how)
    assert caught.value.exit_code == 3
    replaced = run(said)
    for path, data in kept.items():
        path.write_bytes(data)
    restored = run(said)
    shutil.rmtree(home)
    assert run(said).weights == restored.weights
    for path in photos:
        turned(path)
    shutil.rmtree(home)
    assert run(said).weights == replaced.weights != restored.weights
