"""Photos, folders, tables and models that cannot be used."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import stat
import struct
import tempfile
import unicodedata
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tests.faults.case import Case, case

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


CASES: list[Case] = [
    case("I1", "empty photo", image("x.jpg", b""), 3, "red/x.jpg: is empty", "repair or remove these files"),
    case("I1", "text", image("x.jpg", b"sorry, no photo\n"), 3, "is not an image: it starts with the text 'sorry, no"),
    case("I1", "HTML page", image("x.jpg", HTML), 3, "red/x.jpg: is not an image: it is an HTML page"),
    case("I1", "SVG drawing", image("x.png", SVG), 3, "red/x.png: is an SVG drawing", "convert it to PNG"),
    case("I1", "Git LFS pointer", image("x.jpg", LFS), 3, "red/x.jpg: is not an image: it is a Git LF", "git lfs pull"),
    case("I1", "zip archive", image("x.jpg", ZIP), 3, "red/x.jpg: is not an image: it is a zip archive"),
    case("I1", "HEIC of zeros", image("x.jpg", b"\0\0\0\x18ftypheic" + bytes(40)), 3, "red/x.jpg: is ", "repair or re"),
    case("I1", "JPEG cut off", image("x.jpg", cut("JPEG")), 3, "red/x.jpg: is truncated", "repair or remove"),
    case("I1", "GIF cut off", image("x.gif", cut("GIF")), 3, "red/x.gif: is truncated"),
    case("I1", "WebP cut off", image("x.webp", cut("WEBP")), 3, "red/x.webp: is damaged"),
    case("I1", "PNG cut off, called .jpg", image("x.jpg", cut("PNG")), 3, "red/x.jpg: is truncated"),
    case("I1", "PNG overwritten", image("x.png", overwritten("PNG")), 3, "red/x.png: is damaged"),
    case("I1", "PNG without pixels", image("x.png", png(8)), 3, "red/x.png: is truncated"),
    case("I1", "PNG of 0 by 0", image("x.png", png(0)), 3, "red/x.png: is truncated or damaged: it starts as a PNG"),
    case("I1", "pipe", odd(os.mkfifo), 3, "red/x.jpg: is a named pipe, not a file", "repair or remove"),
    case("I1", "folder called x.jpg", odd(Path.mkdir), 3, "red/x.jpg: is a directory, not a file", "repair or remove"),
    case("I1", "socket", odd(lambda path: os.mknod(path, stat.S_IFSOCK)), 3, "red/x.jpg: is a socket, not a file"),
    case("I1", "device", link("/dev/zero"), 3, "red/x.jpg: is a device, not a file", "repair or remove"),
    case("I1", "broken link", link("gone.jpg"), 3, "red/x.jpg: is a link to a file that does not exist"),
    case("I1", "link to itself", link("x.jpg"), 3, "red/x.jpg: cannot be read: Too many levels of symbolic links"),
    case(
        "I1", "3 empty photos", photos(empty), 3, "3 images cannot be read", "red/2.png: is empty", "repair or remove"
    ),
    case("I3", "PNG bomb", image("x.png", png(20_000)), 3, "red/x.png: has more than 178 million pixels", "scale it"),
    case("I3", "JPEG bomb", image("x.jpg", jpeg(65_000)), 3, "red/x.jpg: has more than 178 million pixels"),
    case("I3", "PPM bomb", image("x.ppm", b"P6 100000 100000 255\n"), 3, "has more than 178 million pixels"),
    case("I5", "class without a photo", photos(lambda root: (root / "green").mkdir()), 3, "green: holds no photo"),
    case(
        "I5",
        "one class",
        splits(train=("red",)),
        3,
        "'red': is the only class; at least two are needed",
        "add training",
    ),
    case("I5", "photos in no class", only("0.png"), 3, "no class folder below", "put one folder of photos for each"),
    case("I5", "nothing at all", only(), 3, "no class folder below", "put one folder of photos for each class there"),
    case("I5", "other formats only", only("red/0.svg", "blue/0.dng"), 3, "photos/red: holds no photo", "add some"),
    case("I5", "no such folder", photos(shutil.rmtree), 3, "has no 'photos'; check dataset.root"),
    case("I5", "folder misspelt", data("use: folder, root: photo"), 3, "has no 'photo'; did you mean 'photos'?"),
    case("I5", "recipe for a folder", data("use: folder, root: r.yaml"), 3, "r.yaml' is a file, not a folder of p"),
    case("I6", "class too many", splits(train=CLASSES, valid=("red", "tan")), 3, "'tan': is not a class of the traini"),
    case("I6", "class misspelt", splits(train=CLASSES, valid=("blue", "redd")), 3, "'redd': is not", "mean 'red'?"),
    case("I6", "other case", splits(train=CLASSES, valid=("Red",)), 3, "'Red': is not", "in upper and lower case"),
    case("I6", "space at the end", splits(train=CLASSES, valid=("red ",)), 3, "'red ': is not", "differs in spaces"),
    case("I6", "NFC and NFD", splits(train=("a", NFC), valid=(NFD,)), 3, f"'{NFD}': is not a class", "(NFC and NFD)?"),
    case(
        "I5", "folder of 300 letters", data(f"use: folder, root: {'x' * 300}"), 3, "no folder '", "check dataset.root"
    ),
    case(
        "I5",
        "folder that is a link to itself",
        data("use: folder, root: l", lambda folder: (folder / "l").symlink_to("l")),
        3,
        "l' is a broken link; check dataset.root",
    ),
    case(
        "I5",
        "one photo of each class",
        only("red/0.png", "blue/0.png"),
        3,
        "valid: images: the split has no ima",
        "a class with a single photo has none left",
    ),
    case("I1", "photo that the disk cannot read", link("/proc/self/mem"), 3, "red/x.jpg: cannot be read: Input/output"),
    case("I6", "validation only", splits(valid=CLASSES), 3, "has 'valid' but no 'train'; put the folders of training"),
    case("I6", "valid and val", splits(train=CLASSES, val=CLASSES, valid=CLASSES), 3, "has 'val' and 'valid'", "keep"),
    case(
        "I9",
        "photo named by bytes",
        image("x\udcff.jpg", b""),
        3,
        "x\\udcff.jpg: has a name that is not UTF-8",
        "rename it",
    ),
    case(
        "I9",
        "class named by bytes",
        photos(lambda root: sound(root, ("x\udcff",))),
        3,
        "x\\udcff: has a name that is not UTF-8",
    ),
    case("I9", "escape code in a name", image("a\x1b[31m\n.jpg", b""), 3, "red/a\\x1b[31m\\n.jpg: is empty"),
    case("I7", "no such table", data(TABLE), 3, "has no 't.csv'; check dataset.file"),
    case("I7", "pipe for a table", data(TABLE, lambda folder: os.mkfifo(folder / "t.csv")), 3, "is a pipe, socket or"),
    case(
        "I7",
        "table that is a link to itself",
        data(TABLE, lambda folder: (folder / "t.csv").symlink_to("t.csv")),
        3,
        "t.csv' is a broken link",
    ),
    case(
        "I7",
        "table that the disk cannot read",
        data(TABLE, lambda folder: (folder / "t.csv").symlink_to("/proc/self/mem")),
        3,
        "t.csv' cannot be read: Input/output error",
    ),
    case("I7", "table of 300 letters", data(f"use: csv, file: {'x' * 300}"), 3, "no file '", "check dataset.file"),
    case("I7", "cells missing", rows("photos/red/0.png"), 3, "t.csv:8: has 1 cell below 2 columns; fill the row"),
    case("I7", "empty table", table(""), 3, "t.csv' is empty; its first line names the columns"),
    case("I7", "folder for a table", data("use: csv, file: photos"), 3, "photos' is a folder, not a table", "use=fold"),
    case("I7", "header only", table("path,label\n"), 3, "t.csv' has no rows for training; add some"),
    case(
        "I7", "byte order mark only", table(b"\xef\xbb\xbf"), 3, "t.csv' is empty", "its first line names the columns"
    ),
    case("I7", "no column", rows(head="path,class"), 3, "t.csv' has no column 'label'", "known: class, path; name it"),
    case("I7", "column misspelt", rows(head="path,labels"), 3, "has no column 'label'; did you mean 'labels'?"),
    case("I7", "column twice", rows(head="path,path"), 3, "t.csv' has 2 columns 'path'; rename all but one"),
    case("I7", "no column of splits", rows(more=", split_column: part"), 3, "has no column 'part'", "dataset.split_co"),
    case("I7", "split misspelt", table(TRIAN, ", split_column: part"), 3, "t.csv:2: 'trian' is not a split; did you"),
    case("I7", "no path", rows(",red"), 3, "t.csv:8: has no path in column 'path'"),
    case("I7", "no class", rows("photos/red/0.png,"), 3, "t.csv:8: has no class in column 'label'"),
    case("I7", "NaN for a class", rows("photos/red/0.png,NaN"), 3, "t.csv:8: has no class in column 'label', but 'Na"),
    case("I7", "no such photo", rows("photos/red/9.png,red"), 3, "t.csv:8: no file '", "9.png'; check the path and da"),
    case("I7", "no such absolute path", rows("/nowhere/9.png,red"), 3, "t.csv:8: no file '/nowhere/9.png'; check the"),
    case("I7", "path with a NUL", rows("photos/\0.png,red"), 3, "t.csv:8: no file '", "photos/\\x00.png'; check the"),
    case("I7", "backslashes", rows(r"photos\red\9.png,red"), 3, r"photos\red\9.png'; write / between folders"),
    case("I7", "folder for a photo", rows("photos/red,red"), 3, "photos/red: is a directory, not a file", "repair or"),
    case("I7", "two labels", rows("photos/red/0.png,blue"), 3, "t.csv:8: labels '", "line 5 as 'red'; keep one"),
    case("I7", "comma not quoted", rows("photos/a,b.png,red"), 3, "t.csv:8: has 3 cells below 2 columns; put cells t"),
    case("I7", "quote not closed", rows('"photos/red/0.png,red'), 3, "cannot be read from line 8 on", "fix the quotes"),
    case("I7", "Latin-1", table("path,label\na,caf\u00e9\n".encode("latin-1")), 3, "is not UTF-8 text, see line 2;"),
    case("I7", "spreadsheet", table(ZIP + b"\xff"), 3, "t.csv' is a spreadsheet", "save it as CSV in UTF-8"),
    case("I7", "no folder of photos", rows(more=", root: nowhere"), 3, "has no 'nowhere'; check dataset.root"),
    case("I7", "no flowers", data("use: flowers102, root: photos"), 3, "lacks 102flowers.tgz", "dataset.download=true"),
    case("I1", "bad photo to measure", measured(lambda root: put(root / "red/x.jpg", b"")), 3, "red/x.jpg: is empty"),
    case("I5", "nothing to label", use("predict", "m"), 2, "missing argument 'images'", "--help"),
    case("I5", "no such photo to label", use("predict", "m", "a.jpg", "b.jpg"), 2, "no such photo or folder: a.jpg, b"),
    case("I5", "folder without photos", use("predict", "m", "m"), 2, "no photos in m; photos end with .jpg"),
    case("I5", "nothing to measure on", use("eval", "m", "gone"), 3, "no data at gone; name a folder of class folders"),
    case("I5", "photo to measure on", use("eval", "m", "photos/red/0.png"), 2, "is neither a folder nor a .csv file"),
    case("I5", "class to measure on", use("eval", "m", "photos/red"), 3, "no class folder below", "put one folder"),
    case(
        "I6", "class that no model knows", measured(renamed("tan")), 3, "'tan': is not a class of the model", "remove"
    ),
    case("I6", "class of other case", measured(renamed("Red")), 3, "'Red': is not a class of the model; did you me"),
    case("I7", "class of a table unknown", listed("path,label\nphotos/red/0.png,rad\n"), 3, "'rad': is not a class of"),
    case("I7", "photo of a table missing", listed("path,label\ngone.png,red\n"), 3, "t.csv:2: no file '", "check the"),
    case("C3", "no such model", use("predict", "gone", "photos"), 2, "no model in gone; give a run folder or a folder"),
    case("C3", "photos for a model", use("export", "photos"), 2, "no model in photos; give a run folder or a folder"),
    case("C3", "run not finished", use("eval", "run", "photos", act=unfinished), 2, "is not finished; finish it with"),
    case("C3", "model.json empty", about(b""), 4, "m/model.json is damaged", "copy the model folder again"),
    case("C3", "model.json of HTML", about(HTML), 4, "m/model.json is damaged", "copy the model folder again"),
    case("C3", "model.json of bytes", about(b"\xff\xfe"), 4, "m/model.json is damaged", "copy the model folder again"),
    case("C3", "model.json of a list", about(b"[]"), 4, "m/model.json is damaged", "copy the model folder again"),
    case("C3", "model.json without image", about(PARTIAL), 4, "m/model.json is damaged", "copy the model folder again"),
    case(
        "C3", "model.json with a class more", classes("a", "b", "c"), 4, "does not match model.json; copy the complete"
    ),
    case("C3", "model.json with a class less", classes("a"), 4, "should be a list of different names"),
    case("C3", "weights empty", weights(lambda data: b""), 4, "m/weights.safetensors' is empty; download or copy it a"),
    case("C3", "weights cut off", weights(lambda data: data[:-1]), 4, "is a damaged safetensors file: its tensors"),
    case("C3", "weights flipped", weights(lambda data: data[:-5] + bytes(5)), 4, "is damaged: its content changed af"),
    case("C3", "weights of HTML", weights(lambda data: HTML), 4, "weights.safetensors' is a web page; download or cop"),
    case("C3", "weights not fetched", weights(lambda data: LFS), 4, "is a git-lfs pointer", "run `git lfs pull`"),
    case("C3", "weights pickled", weights(lambda data: b"\x80\4K\1."), 4, "is a pickle, which could run any code; sav"),
    case("C3", "weights zipped", weights(lambda data: ZIP), 4, "weights.safetensors' is a zip archive", "save its"),
    case("Y7", "runs into a file", run, 7, "r.yaml is a file; choose another with --output"),
    case("Y7", "export of another form", use("export", "m", "--output", "x.txt"), 2, "x.txt does not end with .onnx"),
]
