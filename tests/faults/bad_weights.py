"""Weights files and addresses that cannot be used, examined and named by a recipe."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

import finetune_model
from tests.faults.bad_data import HTML, LFS, put, sound
from tests.faults.case import Case, case
from tests.weights.files import entry
from tests.weights.test_hostile_ckpt import CRAFTED as CKPT
from tests.weights.test_hostile_safetensors import CRAFTED as SAFETENSORS
from tests.weights.test_hostile_safetensors import written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.case import Make

RECIPE = """\
backbone: {{use: resnext_nano, weights: '{weights}'}}
dataset: {{use: folder, root: photos}}
image: {{size: 16, resize: 16}}
"""
NANO = next(each for each in finetune_model.finetune_backbones() if each.name == "resnext_nano")
OTHER = hashlib.sha256(b"other").hexdigest()
WEIGHT = entry(b"stem.bn.gamma", (4,), bytes(16))


def looked(name: str, content: bytes) -> Make:
    """Return what examines a file."""

    def make(folder: Path) -> list[str]:
        put(folder / name, content)
        return ["weights", "inspect", name]

    return make


def used(weights: str, act: Callable[[Path], object] = lambda folder: None) -> Make:
    """Return what checks a recipe with these weights, after something was done in its folder."""

    def make(folder: Path) -> list[str]:
        sound(folder / "photos")
        act(folder)
        (folder / "r.yaml").write_text(RECIPE.format(weights=weights.replace("HERE", folder.as_uri())))
        return ["check", "r.yaml"]

    return make


def file(content: bytes) -> Make:
    """Return what checks a recipe whose weights are these bytes."""
    return used("./w.safetensors", lambda folder: put(folder / "w.safetensors", content))


def crafted(name: str) -> Make:
    """Return what examines a safetensors file whose header lies."""

    def make(folder: Path) -> list[str]:
        return ["weights", "inspect", str(written(folder, *SAFETENSORS[name]).name)]

    return make


def tensors(**changed: np.ndarray) -> bytes:
    """Return a file of the network, with other tensors in it."""
    sound = (
        {name: np.ones(shape, np.float32) for name, shape in NANO.shapes(NANO.options()).items()} if NANO.shapes else {}
    )
    return save({**sound, **changed})


def archive(name: str) -> bytes:
    """Return a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr(name, b"x")
    return content.getvalue()


DAMAGED = "damaged"
SOUND = "nothing of petabytes"  # sound in itself

CASES: list[Case] = [
    case("C3", "empty checkpoint", looked("w.ckpt", b""), 4, "w.ckpt' is empty"),
    case("C3", "web page for a checkpoint", looked("w.ckpt", HTML), 4, "w.ckpt' is a web page"),
    case("C3", "git-lfs pointer for a checkpoint", looked("w.ckpt", LFS), 4, "is a git-lfs pointer", "git lfs pull"),
    case("C3", "pickle for a checkpoint", looked("w.ckpt", pickle.dumps({"a": 1})), 4, "is a pickle", "could run any"),
    case("C3", "zip for a checkpoint", looked("w.ckpt", archive("a.ckpt")), 4, "w.ckpt' is a zip archive"),
    case("C3", "text for a checkpoint", looked("w.ckpt", b"weights"), 4, "w.ckpt"),
    *(
        case("C4", f"checkpoint with {name}", looked("w.ckpt", content), 4, "w.ckpt")
        for name, content in CKPT.items()
        if name != SOUND
    ),
    case("C1", "checkpoint cut off", looked("w.ckpt", WEIGHT[:-1]), 4, "w.ckpt", DAMAGED),
    *(case("C5", f"safetensors with {name}", crafted(name), 4, "x.safetensors") for name in SAFETENSORS),
    case("C5", "header of 2^62 bytes", looked("w.safetensors", (2**62).to_bytes(8, "little") + b"{}"), 4, DAMAGED),
    case(
        "C5",
        "header 200,000 deep",
        looked("w.safetensors", (200_000).to_bytes(8, "little") + b"[" * 200_000),
        4,
        DAMAGED,
    ),
    case(
        "C6", "pickle in a recipe's weights", file(pickle.dumps(os.getcwd)), 4, "is a pickle, which could run any code"
    ),
    case("C8", "no tensor of the network", file(save({"a": np.ones(3, np.float32)})), 4, "w.safetensors"),
    case("C8", "one tensor too many", file(tensors(more=np.ones(3, np.float32))), 4, "no place for 1: 'more'"),
    case("C8", "another shape", file(tensors(**{"stem.bn.gamma": np.ones(3, np.float32)})), 4, "another shape for 1"),
    case("C8", "no numbers", file(tensors(**{"stem.bn.gamma": np.full(32, np.nan, np.float32)})), 4, "NaN or infinity"),
    case("C3", "missing file", used("./gone.ckpt"), 4, "gone.ckpt"),
    case("C3", "folder for weights of a recipe", used("./photos"), 4, "photos"),
    case("C3", "pipe for weights", used("./p.ckpt", lambda folder: os.mkfifo(folder / "p.ckpt")), 4, "p.ckpt"),
    case("C3", "link to nowhere", used("./l.ckpt", lambda folder: (folder / "l.ckpt").symlink_to("gone")), 4, "l.ckpt"),
    case("C3", "file of 300 letters", used(f"./{'x' * 300}.ckpt"), 4, "xxx"),
    case(
        "C7",
        "another sha256",
        used(f"HERE/w.ckpt#sha256={OTHER}", lambda folder: put(folder / "w.ckpt", WEIGHT)),
        4,
        OTHER,
        hashlib.sha256(WEIGHT).hexdigest(),
    ),
    case("D8", "no network", used(f"https://example.invalid/w.ckpt#sha256={OTHER}"), 4, "FINETUNE_OFFLINE"),
    case("D11", "hash that is none", used("https://example.invalid/w.ckpt#sha256=abc"), 2, "sha256"),
]
