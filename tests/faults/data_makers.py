"""Makers of bad photos, tables, folders and models, for the table of bad inputs."""

from __future__ import annotations

import atexit
import io
import json
import shutil
import struct
import tempfile
import unicodedata
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.case import Make

    Act = Callable[[Path], object]

CLASSES = ("blue", "red")
FOLDER = "use: folder, root: photos"
TABLE = "use: csv, file: t.csv"
SMALL: dict[str, Any] = {
    "weights": "none",
    "augment": [],
    "image": {"size": 16, "resize": 16},
    "train": {"epochs": 1},
    "inference": {"engine": "mindspore"},
}
NANO = "backbone: {use: resnext_nano, weights: none}\nimage: {size: 16, resize: 16}\n"
HTML = b"<!DOCTYPE html><html><body>404</body></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
PARTIAL = b'{"version": 1, "head": {"use": "linear"}}'
TRIAN = "path,label,part\nphotos/red/0.png,red,trian\nphotos/blue/0.png,blue,train\n"
ZIP = b"PK\3\4" + bytes(40)
NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def encoded(form: str, side: int = 8, seed: int = 0) -> bytes:
    """Return an image of noise in a file of this form."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, form)
    return file.getvalue()


def cut(form: str) -> bytes:
    """Return the beginning of an image."""
    return encoded(form, 64)[:1500]


def overwritten(form: str) -> bytes:
    """Return an image with zeros in its middle."""
    whole = encoded(form, 64)
    return whole[: len(whole) // 2] + bytes(64) + whole[len(whole) // 2 + 64 :]


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a part of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(side: int) -> bytes:
    """Return a PNG file that says how large it is and holds nothing."""
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(side: int) -> bytes:
    """Return a JPEG file that says that it is larger than it is."""
    whole = encoded("JPEG")
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", side, side) + whole[place + 4 :]


def put(path: Path, content: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sound(root: Path, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> None:
    """Write photos that can be used."""
    for place, name in enumerate(classes):
        for number in range(3):
            put(root / name / f"{number}.png", encoded("PNG", seed=100 * seed + 10 * place + number))


def nothing(folder: Path) -> None:
    """Leave all as it is."""


def data(dataset: str, act: Act = nothing) -> Make:
    """Return what checks a recipe with this dataset, beside sound photos, after something was done in its folder."""

    def make(folder: Path) -> list[str]:
        sound(folder / "photos")
        act(folder)
        (folder / "r.yaml").write_text(f"{NANO}dataset: {{{dataset}}}\n")
        return ["check", "r.yaml"]

    return make


def photos(act: Act) -> Make:
    """Return what checks sound photos to which something was done."""
    return data(FOLDER, lambda folder: act(folder / "photos"))


def image(name: str, content: bytes) -> Make:
    """Return what checks sound photos and one that is not."""
    return photos(lambda root: put(root / "red" / name, content))


def odd(act: Act) -> Make:
    """Return what checks sound photos and something else of a photo's name."""
    return photos(lambda root: act(root / "red" / "x.jpg"))


def link(target: str) -> Make:
    """Return what checks sound photos and a link."""
    return odd(lambda path: path.symlink_to(target))


def splits(**classes: tuple[str, ...]) -> Make:
    """Return what checks splits with these classes."""

    def act(root: Path) -> None:
        shutil.rmtree(root)
        for seed, (split, names) in enumerate(classes.items()):
            sound(root / split, names, seed)

    return photos(act)


def only(*names: str) -> Make:
    """Return what checks a folder that holds nothing but these files."""

    def act(root: Path) -> None:
        shutil.rmtree(root)
        root.mkdir()
        for number, name in enumerate(names):
            put(root / name, encoded("PNG", seed=number))

    return photos(act)


def empty(root: Path) -> None:
    """Empty the photos of a class."""
    for path in (root / "red").iterdir():
        path.write_bytes(b"")


def table(content: str | bytes, more: str = "") -> Make:
    """Return what checks exactly this table."""
    text = content if isinstance(content, bytes) else content.encode()
    return data(TABLE + more, lambda folder: put(folder / "t.csv", text))


def rows(*lines: str, head: str = "path,label", more: str = "") -> Make:
    """Return what checks a table with the rows of sound photos and these."""
    good = [f"photos/{name}/{number}.png,{name}" for name in CLASSES for number in range(3)]
    return table("\n".join([head, *good, *lines]), more)


@cache
def trained() -> Path:
    """Return a model folder that is made once."""
    from finetune import Finetuner

    top = Path(tempfile.mkdtemp(prefix="finetune-faults-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    sound(top / "photos")
    tuner = Finetuner("resnext_nano", device="cpu", progress=False, output=str(top / "runs"), **SMALL)
    tuner.fit(top / "photos")
    return tuner.save(top / "model")


def use(*words: str, act: Act = nothing) -> Make:
    """Return what uses a sound model, ``m``, after something was done in its folder."""

    def make(folder: Path) -> tuple[str, ...]:
        shutil.copytree(trained(), folder / "m")
        sound(folder / "photos")
        act(folder)
        return words

    return make


def measured(act: Act) -> Make:
    """Return what measures a sound model on photos to which something was done."""
    return use("eval", "m", "photos", act=lambda folder: act(folder / "photos"))


def listed(text: str) -> Make:
    """Return what measures a sound model on the photos of a table."""
    return use("eval", "m", "t.csv", act=lambda folder: put(folder / "t.csv", text.encode()))


def about(content: bytes) -> Make:
    """Return what uses a model of this description."""
    return use("predict", "m", "photos", act=lambda folder: put(folder / "m" / "model.json", content))


def classes(*names: str) -> Make:
    """Return what uses a model that is said to know these classes."""

    def act(folder: Path) -> None:
        file = folder / "m" / "model.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "classes": names}))

    return use("eval", "m", "photos", act=act)


def weights(change: Callable[[bytes], bytes]) -> Make:
    """Return what exports a model whose weights were changed."""

    def act(folder: Path) -> None:
        file = folder / "m" / "weights.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return use("export", "m", act=act)


def renamed(name: str) -> Act:
    """Return what gives a class another name."""
    return lambda root: (root / "red").rename(root / name)


def run(folder: Path) -> list[str]:
    """Run a recipe on sound photos, below what is a file."""
    data(FOLDER)(folder)
    return ["run", "r.yaml", "output=r.yaml"]


def unfinished(folder: Path) -> None:
    """Make the folder of a run that is not finished."""
    (folder / "run" / "checkpoints").mkdir(parents=True)
