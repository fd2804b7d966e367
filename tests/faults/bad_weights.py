"""Weights files and addresses that cannot be used, examined and named by a recipe."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

import finetune_model
from tests.faults.case import Case, case
from tests.faults.data_makers import HTML, LFS, put, sound
from tests.weights.drawn_files import drawn
from tests.weights.files import entry
from tests.weights.hub_cards import NEWEST, OTHERS, REFUSED, RESNEXT50, Kind
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
OWN = drawn(NANO)
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


def gamma(*shape: int, kind: type[np.generic] = np.float32, value: float = 1) -> Make:
    """Return what checks a recipe whose weights have another first scale."""
    return file(save({**OWN, "stem.bn.gamma": np.full(shape or 32, value, kind)}))


def about(text: str) -> Make:
    """Return what checks a recipe whose weights say this of their network."""
    return file(save(OWN, {"backbone": text}))


def converted(*words: str, content: bytes | None = None, act: Callable[[Path], object] = lambda folder: None) -> Make:
    """Return what converts sound weights or these bytes, after something was done in its folder."""

    def make(folder: Path) -> list[str]:
        put(folder / "w.safetensors", save(OWN) if content is None else content)
        act(folder)
        return ["weights", "convert", "w.safetensors", "--to", *words]

    return make


def fetched(*words: str, act: Callable[[Path], object] = lambda folder: None) -> Make:
    """Return what fetches weights, after something was done in its folder."""

    def make(folder: Path) -> list[str]:
        act(folder)
        return ["weights", "fetch", *(word.replace("HERE", folder.as_uri()) for word in words)]

    return make


def archive(name: str) -> bytes:
    """Return a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr(name, b"x")
    return content.getvalue()


def carded(kind: Kind) -> Make:
    """Return what fetches the weights of a card."""
    return fetched("card.md", "--backbone", "resnext50", act=lambda f: put(f / "card.md", kind.text().encode()))


def own_run(folder: Path) -> None:
    """Write a model of a run without what is not needed here."""
    put(folder / "run" / "weights.safetensors", save(OWN))
    put(folder / "run" / "model.json", b"{}")


def empty_run(folder: Path) -> None:
    """Write the folder of a run that has saved nothing."""
    put(folder / "run" / "recipe.yaml", b"name: x")


def cut_run(folder: Path) -> None:
    """Write a checkpoint of a run that lacks its end."""
    content = save({f"network/{name}": array for name, array in OWN.items()}, {"finetune": "{}"})
    put(folder / "run" / "checkpoints" / "step-00000001.safetensors", content[:-9])


def stateless(folder: Path) -> None:
    """Write a checkpoint of a run whose state is cut off."""
    put(folder / "w.safetensors", save({f"network/{n}": a for n, a in OWN.items()}, {"finetune": '{"version": 1'}))


CARDS_OF_OTHERS = {name: fields for name, (fields, _) in OTHERS.items()}
DAMAGED = "damaged"
AGAIN = "download or copy it again"
STATED = "damaged backbone metadata"
SOUND = "nothing of petabytes"  # sound in itself

CASES: list[Case] = [
    case("C3", "empty checkpoint", looked("w.ckpt", b""), 4, "w.ckpt' is empty"),
    case("C3", "web page for a checkpoint", looked("w.ckpt", HTML), 4, "w.ckpt' is a web page"),
    case("C3", "git-lfs pointer for a checkpoint", looked("w.ckpt", LFS), 4, "is a git-lfs pointer", "git lfs pull"),
    case("C3", "pickle for a checkpoint", looked("w.ckpt", pickle.dumps({"a": 1})), 4, "is a pickle", "could run any"),
    case("C3", "zip for a checkpoint", looked("w.ckpt", archive("a.ckpt")), 4, "w.ckpt' is a zip archive"),
    case("C3", "text for a checkpoint", looked("w.ckpt", b"weights"), 4, "w.ckpt"),
    *(
        case("C4", f"checkpoint with {name}", looked("w.ckpt", content), 4, "w.ckpt", AGAIN)
        for name, content in CKPT.items()
        if name != SOUND
    ),
    case("C1", "checkpoint cut off", looked("w.ckpt", WEIGHT[:-1]), 4, "w.ckpt", DAMAGED),
    *(case("C5", f"safetensors with {name}", crafted(name), 4, "x.safetensors", AGAIN) for name in SAFETENSORS),
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
    case(
        "C8", "another shape", file(tensors(**{"stem.bn.gamma": np.ones(3, np.float32)})), 4, "a different shape for 1"
    ),
    case("C8", "no numbers", file(tensors(**{"stem.bn.gamma": np.full(32, np.nan, np.float32)})), 4, "NaN or infinity"),
    case(
        "C8", "one tensor too few", file(save({k: v for k, v in OWN.items() if k != "stem.bn.beta"})), 4, "it lacks 1: "
    ),
    case("C8", "no tensors", file(save({})), 4, "it lacks 100: 'stem.conv.weight'", "use a file of this network"),
    case("C8", "names in capitals", file(save({k.upper(): v for k, v in OWN.items()})), 4, "no place for 102: 'HEAD.F"),
    case("C8", "whole numbers", gamma(kind=np.int32), 4, "has integers for 1: 'stem.bn.gamma'", "use a file"),
    case("C8", "infinity in half precision", gamma(kind=np.float16, value=np.inf), 4, "NaN or infinity", "use a file"),
    case("C8", "a side of 0", gamma(0), 4, "a different shape for 1: 'stem.bn.gamma (0,) for (32,)'", "use a file"),
    case("C5", "metadata cut off", about("{"), 4, STATED, "copy the file again"),
    case("C5", "metadata of a list", about("[1]"), 4, STATED, "copy the file again"),
    case("C5", "metadata 200,000 deep", about("[" * 200_000), 4, STATED, "copy the file again"),
    case(
        "C5",
        "metadata of another pool",
        about(json.dumps({"use": "resnext_nano", "options": {"stem_pool": 3}})),
        4,
        STATED,
        "copy the file again",
    ),
    case("C3", "names of 3,000 letters", looked("w.safetensors", save({"n" * 3000: np.ones(1)})), 4, DAMAGED, AGAIN),
    case("C3", "weights of another form", looked("w.npz", archive("a.npy")), 4, "w.npz' is a zip archive", "save its"),
    case(
        "C3", "weights of another program", looked("w.bin", b"GGUF" + bytes(60)), 4, "w.bin' is neither safeten", AGAIN
    ),
    case(
        "C8", "to an unknown layout", converted("torchvison"), 2, "cannot be written as 'torchvison'", "'torchvision'?"
    ),
    case("C8", "of an unknown backbone", converted("ckpt", "--backbone", "resnet_nano"), 2, "'resnext_nano'?"),
    case(
        "C8", "of another backbone", converted("ckpt", "--backbone", "resnext50"), 4, "not the weights of 'resnext50'"
    ),
    case(
        "C8",
        "of no backbone",
        converted("ckpt", content=save({"a": np.ones(1)})),
        4,
        "does not fit any backbone",
        "inspect",
    ),
    case(
        "C8",
        "numbers too large for half precision",
        converted("ckpt", "--float16", content=save({**OWN, "stem.bn.beta": np.full(32, 1e6, np.float32)})),
        4,
        "numbers beyond 65504 in 'stem.bn.beta'",
        "without --float16",
    ),
    case("C3", "web page to convert", converted("ckpt", content=HTML), 4, "w.safetensors' is a web page", AGAIN),
    case(
        "Y7",
        "over another file",
        converted("ckpt", act=lambda f: put(f / "w.ckpt", b"")),
        2,
        "the file exists",
        "--force",
    ),
    case("Y7", "over itself", converted("safetensors", "--force"), 2, "the command reads this file", "choose another"),
    case(
        "Y7",
        "over itself by a link",
        converted("ckpt", "--output", "l.ckpt", "--force", act=lambda f: (f / "l.ckpt").symlink_to("w.safetensors")),
        2,
        "'l.ckpt': the command reads this file",
        "choose another name",
    ),
    case("Y7", "with another ending", converted("ckpt", "--output", "x.onnx"), 2, "end its name with .ckpt"),
    case(
        "Y7",
        "to a folder that is not",
        converted("ckpt", "--output", "no/w.ckpt"),
        2,
        "no folder 'no'",
        "create it first",
    ),
    case("Y7", "to 300 letters", converted("ckpt", "--output", f"{'x' * 300}.ckpt"), 7, "too long; choose a shorter"),
    case("D11", "http", fetched(f"http://x.org/w.ckpt#sha256={OTHER}"), 4, "is neither https nor file", "if you put"),
    case(
        "D11",
        "address with half a host",
        fetched(f"https://[::1/w#sha256={OTHER}"),
        2,
        "is not a valid address; write https",
    ),
    case("D11", "md5 for sha256", fetched("https://x.org/w.ckpt#md5=abc"), 2, "needs the sha256", "64 hex digits"),
    case(
        "D8", "file that is gone", fetched(f"HERE/gone.ckpt#sha256={OTHER}"), 4, "the file does not exist", "sha256: "
    ),
    case(
        "C3",
        "web page with the sha256 promised",
        fetched(
            f"HERE/w.ckpt#sha256={hashlib.sha256(HTML).hexdigest()}", act=lambda folder: put(folder / "w.ckpt", HTML)
        ),
        4,
        "w.ckpt' is a web page",
        AGAIN,
    ),
    case("C3", "unknown name", fetched("fractal"), 2, "offers no weights named 'fractal'", "known: auto"),
    case("C3", "card that is gone", fetched("card.md"), 4, "no weights file at 'card.md'", "name a .safetensors"),
    case(
        "C3", "empty card", fetched("card.md", act=lambda f: put(f / "card.md", b"")), 4, "is not a card", "name such a"
    ),
    case(
        "C3", "card of bytes", fetched("card.md", act=lambda f: put(f / "card.md", b"\xff")), 4, "is not text", "UTF-8"
    ),
    case(
        "C3",
        "pipe for a card",
        fetched("card.md", act=lambda f: os.mkfifo(f / "card.md")),
        4,
        "is not a file; name the",
    ),
    *(
        case("C3", f"card with {name}", carded(kind), 4, says.partition("'")[0].rstrip())
        for name, (kind, says) in REFUSED.items()
    ),
    *(
        case("C3", f"card of {name}", carded(Kind(fields={**RESNEXT50, **fields}, assets=NEWEST)), 4, "is a card of '")
        for name, fields in CARDS_OF_OTHERS.items()
    ),
    case("C3", "model.json of a run", used("./run/model.json", own_run), 4, "holds no weights; name its folder"),
    case(
        "C3",
        "run without a checkpoint",
        used("./run", empty_run),
        4,
        "has not saved a checkpoint",
        "name a different run",
    ),
    case(
        "C1", "checkpoint of a run cut off", used("./run/checkpoints", cut_run), 4, "step-00000001.safetensors", DAMAGED
    ),
    case(
        "C5",
        "state of a run cut off",
        used("./w.safetensors", stateless),
        4,
        "whose state cannot be read",
        "use a diff",
    ),
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
