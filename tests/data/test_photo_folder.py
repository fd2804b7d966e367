"""A folder of photos as people really have them: everything wrong with it in one report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.cli.calling import call_in_process
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
backbone: {use: resnext_nano, weights: none}
dataset: {use: folder, root: photos}
image: {size: 32, resize: 36}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    train = folder(tmp_path / "photos" / "train", each=6)
    valid = folder(tmp_path / "photos" / "valid", each=2, seed=1)
    shutil.rmtree(valid / "blue")
    (train / "red" / "notes.jpg").write_text("a text file")
    (train / "empty").mkdir()
    (train / ".ipynb_checkpoints").mkdir()
    colours = np.random.default_rng(2).integers(0, 255, (40, 60, 3), np.uint8)
    picture = Image.fromarray(colours)
    picture.convert("CMYK").save(train / "red" / "cmyk.jpg")
    Image.fromarray(np.linspace(0, 65535, 2400, dtype=np.uint16).reshape(40, 60)).save(train / "red" / "deep.png")
    rotation = Image.Exif()
    rotation[0x0112] = 6
    picture.save(train / "green" / "rotated.jpg", exif=rotation)
    picture.quantize(16).save(train / "green" / "palette.png")
    picture.save(train / "green" / "whole.jpg")
    (train / "green" / "truncated.jpg").write_bytes((train / "green" / "whole.jpg").read_bytes()[:-400])
    shutil.copy(train / "green" / "whole.jpg", valid / "green" / "copy.jpg")
    (tmp_path / "own.yaml").write_text(RECIPE)
    return tmp_path


def check(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return call_in_process("check", "own.yaml", *words, cwd=place)


def test_all_that_is_wrong_is_said_at_once_with_code_3(place: Path) -> None:
    done = check(place)
    assert done.returncode == 3
    for subject in ("notes.jpg", "truncated.jpg", "empty", "on_bad_image=skip"):
        assert subject in done.stderr, subject
    for fine in ("cmyk.jpg", "deep.png", "rotated.jpg", "palette.png"):
        assert fine not in done.stderr, fine
    assert "Traceback" not in done.stderr


def test_skipping_lists_what_was_left_out(place: Path) -> None:
    done = check(place, "dataset.on_bad_image=skip", "dataset.allow_empty=true", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])["data"]
    said = "\n".join(f"{found['severity']} {found['subject']} {found['text']}" for found in report["findings"])
    for subject in ("notes.jpg", "truncated.jpg", "empty", ".ipynb_checkpoints", "copy.jpg", "blue"):
        assert subject in said, subject
    assert report["images"]["train"] == 3 * 6 + 5
    assert report["classes"] == ["blue", "green", "red"]


def test_nothing_but_our_own_lines_is_on_the_screen(place: Path) -> None:
    words = ["dataset.on_bad_image=skip", "dataset.allow_empty=true", "train.epochs=1", "callbacks=[]"]
    command = [sys.executable, "-m", "finetune", "run", "own.yaml", *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for noise in ("WARNING", "[ERROR]", "mindspore", "Exception ignored", "Traceback", "\x1b"):
        assert noise not in done.stderr + done.stdout, noise
    assert {path.name for path in place.iterdir()} == {"photos", "own.yaml", "runs"}
