"""Weights in other forms: exact there and back, and accepted by the libraries whose forms they are."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from finetune.components import ImageSpec, Weights
from finetune.errors import UsageError, WeightsError
from finetune.weights import examining, fetching, fitting, labels, loading
from finetune.weights.formats import tensorfile
from finetune.weights.formats.tensorfile import Record
from finetune.weights.loading import hash_file
from tests.weights.drawn_files import ascend, checkpoint, drawn, hub, mindcv, torchvision
from tests.weights.nano import NANO, OWN, RESNEXT50, load, same

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune import Backbone
    from tests.weights.drawn_files import Arrays


TEXTS = {
    "image": json.dumps({"size": 64, "resize": 72, "keep_aspect": True, "mean": [0.5] * 3, "std": [0.2] * 3}),
    "classes": json.dumps(list("abcde")),
    "backbone": json.dumps({"use": "resnext_nano", "options": {"stem_pool": "same"}}),
}
pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.once]
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def convert(path: Path, to: str, target: Path, backbone: Backbone = NANO) -> dict[str, Any]:
    return examining.convert(examining.examine(path, [backbone]), to, target)


def test_writing_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive: list[int] = []
    peak = 0

    class Content(bytearray):
        def __del__(self) -> None:
            alive.remove(1)

    def content() -> bytearray:
        nonlocal peak
        alive.append(1)
        peak = max(peak, len(alive))
        return Content(8)

    records = {str(number): Record("float32", (2,), content) for number in range(20)}
    tensorfile.write_records(tmp_path / "x", records, {})
    examining.write_checkpoint(tmp_path / "y", records, {})
    assert [len(tensorfile.read_tensors(tmp_path / name).tensors) for name in "xy"] == [20, 20]
    assert peak <= 2


def test_round_trips_are_exact(tmp_path: Path, split: Path) -> None:
    ways = ("safetensors", "torchvision", "safetensors", "ckpt", "mindcv", "safetensors", "mindspore-hub", "ckpt")
    path = split
    for number, to in enumerate(ways):
        target = tmp_path / str(number)
        done = convert(path, to, target)
        assert done["tensors"] == len(OWN)
        assert (done["to"], done["sha256"]) == (to, hash_file(target))
        assert done["ignored"] == [] or number == 0
        loaded = load(target)
        assert same(loaded.tensors, OWN)
        assert loaded.report["layout"] == ("finetune" if to in ("safetensors", "ckpt") else to)
        path = target
    assert same(load_file(tmp_path / "0"), OWN)
    assert same(load_file(tmp_path / "1"), {torchvision(name): array for name, array in OWN.items()})
    assert set(tensorfile.read_tensors(tmp_path / "4").tensors) == {mindcv(name) for name in OWN}
    assert same(tensorfile.read_tensors(tmp_path / "6").tensors, {hub(name): array for name, array in OWN.items()})


@pytest.mark.parametrize("to", ["safetensors", "ckpt", "torchvision", "mindcv", "mindspore-hub"])
def test_types_are_kept(tmp_path: Path, to: str) -> None:
    mixed = {name: array.astype(np.float16) if "conv1" in name else array for name, array in OWN.items()}
    brain = {n: Record("bfloat16", a.shape, a.astype(np.float16).tobytes) for n, a in OWN.items() if "conv3" in n}
    records = {n: Record(a.dtype.name, a.shape, a.tobytes) for n, a in mixed.items()} | brain
    tensorfile.write_records(tmp_path / "x", records, {})
    convert(tmp_path / "x", to, tmp_path / "y")
    convert(tmp_path / "y", "safetensors", tmp_path / "z")
    found = tensorfile.read_index(tmp_path / "z").records
    assert {n: (r.dtype, r.shape, bytes(r.content())) for n, r in found.items()} == {
        n: (r.dtype, r.shape, bytes(r.content())) for n, r in records.items()
    }


def test_half_the_size_without_the_head(tmp_path: Path) -> None:
    classes = {"classes": '["a", "b"]', "image": "{}"}
    tensorfile.write_tensors(tmp_path / "own.safetensors", OWN, classes)
    about = examining.examine(tmp_path / "own.safetensors", [NANO])
    done = examining.convert(about, "safetensors", tmp_path / "half.safetensors", half=True, head=False)
    found = tensorfile.read_tensors(tmp_path / "half.safetensors")
    stages = {name: array for name, array in OWN.items() if not name.startswith("head.")}
    assert done["tensors"] == len(stages) == len(found.tensors)
    assert "classes" not in found.metadata
    assert same(found.tensors, {name: array.astype(np.float16) for name, array in stages.items()})
    tensorfile.write_tensors(
        tmp_path / "large.safetensors", {**OWN, "stem.conv.weight": OWN["stem.conv.weight"] + 1e6}, {}
    )
    about = examining.examine(tmp_path / "large.safetensors", [NANO])
    with pytest.raises(WeightsError, match=r"numbers beyond 65504 in 'stem.conv.weight'; convert it without --float16"):
        examining.convert(about, "safetensors", tmp_path / "none.safetensors", half=True)
    assert not (tmp_path / "none.safetensors").exists()


def test_what_our_own_files_say_is_kept(tmp_path: Path) -> None:
    tensorfile.write_tensors(tmp_path / "x", OWN, {**TEXTS, "other": "left out"})
    for to in ("safetensors", "ckpt", "torchvision"):
        convert(tmp_path / "x", to, tmp_path / to)
        assert tensorfile.inspect(tmp_path / to).metadata == TEXTS
        source = fetching.Source(path=tmp_path / to, name="x")
        assert loading.read_options(source, NANO) == {"stem_pool": "same"}
        assert loading.read_image_defaults(source)["size"] == 64


def test_what_is_known_of_a_published_file_goes_with_its_tensors(tmp_path: Path, split: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{name}\n" for name in "vwxyz"))
    options = {"stem_pool": "symmetric"}  # unlike the layout
    record = Weights(url="", sha256=hash_file(split), layout="", size=227, labels=names, classes=5, options=options)
    published = replace(NANO, weights={"best": record})
    convert(split, "safetensors", tmp_path / "own", published)
    source = fetching.Source(path=tmp_path / "own", name="x")
    assert loading.read_options(source, NANO) == options
    assert ImageSpec(**loading.read_image_defaults(source)) == ImageSpec(size=227)
    assert labels.read_classes(source) == tuple("vwxyz")


def test_the_padding_that_weights_need_is_not_lost(tmp_path: Path, split: Path) -> None:
    assert convert(split, "safetensors", tmp_path / "own")["note"] == ""
    assert loading.read_options(fetching.Source(path=tmp_path / "own", name="x"), NANO) == {"stem_pool": "same"}
    note = convert(split, "torchvision", tmp_path / "theirs")["note"]
    assert note == "these weights are for stem_pool=same, unlike networks that usually read the layout 'torchvision'"
    assert loading.read_options(fetching.Source(path=tmp_path / "theirs", name="x"), NANO) == {"stem_pool": "same"}


def test_checkpoints_written_here_are_read_by_mindspore(tmp_path: Path) -> None:
    from finetune.machine import device

    device.set_up(device="cpu")
    import mindspore as ms

    tensors: Arrays = {
        **OWN,
        "half": np.array([1.5, -2.0], np.float16),
        "double": np.array([[1e-300]]),
        "step": np.array(7, np.int64),
        "mask": np.array([True, False]),
    }
    records = {name: Record(array.dtype.name, array.shape, array.tobytes) for name, array in tensors.items()}
    examining.write_checkpoint(tmp_path / "x.ckpt", records, {"note": "Blüte"})
    found = ms.load_checkpoint(str(tmp_path / "x.ckpt"))
    assert found.pop("note") == "Blüte"
    assert same({name: parameter.asnumpy() for name, parameter in found.items()}, tensors)
    ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in OWN.items()], str(tmp_path / "theirs.ckpt"))
    examining.write_checkpoint(tmp_path / "ours.ckpt", {name: records[name] for name in OWN}, {})
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.weights.formats import mindspore_ckpt

    records = {"w": Record("float32", (3,), lambda: bytes(12))}
    for name, limit in (("SLICE", "cannot store 'w'"), ("MAX_BYTES", "too large for a MindSpore checkpoint")):
        with monkeypatch.context() as patch:
            patch.setattr(mindspore_ckpt, name, 10)
            with pytest.raises(WeightsError, match=limit):
                examining.write_checkpoint(tmp_path / "x.ckpt", records, {})
        assert list(tmp_path.glob("*x.ckpt*")) == []


@needs_torch
def test_torchvision_files_are_taken_by_torch(tmp_path: Path) -> None:
    own = drawn(RESNEXT50, 7)
    checkpoint(tmp_path / "hub.ckpt", ascend(own, 32))
    convert(tmp_path / "hub.ckpt", "torchvision", tmp_path / "tv.safetensors", RESNEXT50)
    code = """
import sys
from safetensors.torch import load_file
from torch import nn

def unit(inputs, outputs, kernel, stride=1, groups=1):
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs)

class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        width = outputs // 2
        self.conv1, self.bn1 = unit(inputs, width, 1)
        self.conv2, self.bn2 = unit(width, width, 3, stride, 32)
        self.conv3, self.bn3 = unit(width, outputs, 1)
        if inputs != outputs:
            self.downsample = nn.Sequential(*unit(inputs, outputs, 1, stride))

network, inputs = nn.Module(), 64
network.conv1, network.bn1 = unit(3, 64, 7, 2)
for number, (depth, outputs) in enumerate(zip((3, 4, 6, 3), (256, 512, 1024, 2048)), 1):
    blocks = [Block(inputs if i == 0 else outputs, outputs, 1 + (i == 0 and number > 1)) for i in range(depth)]
    setattr(network, f"layer{number}", nn.Sequential(*blocks))
    inputs = outputs
network.fc = nn.Linear(2048, 7)
print(network.load_state_dict(load_file(sys.argv[1]), strict=True))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "tv.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "<All keys matched successfully>\n", done.stderr


def test_a_head_of_another_kind_has_no_name_elsewhere(tmp_path: Path) -> None:
    tensorfile.write_tensors(tmp_path / "x", {**OWN, "head.hidden.weight": np.ones((4, 4), np.float32)}, {})
    assert convert(tmp_path / "x", "ckpt", tmp_path / "y")["tensors"] == len(OWN) + 1
    with pytest.raises(WeightsError, match=r"'torchvision' has no name for 1: 'head.hidden.weight'"):
        convert(tmp_path / "x", "torchvision", tmp_path / "z")
    assert not (tmp_path / "z").exists()


def test_unknown_forms_and_files_are_refused(tmp_path: Path, split: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be written as 'torchvison'; did you mean 'torchvision'\?"):
        convert(split, "torchvison", tmp_path / "x")
    save_file({"strange": np.ones(3, np.float32)}, tmp_path / "strange")
    with pytest.raises(WeightsError, match=r"does not fit any backbone; run `finetune weights inspect --backbone` to"):
        convert(tmp_path / "strange", "ckpt", tmp_path / "x")


# Fitting


def without_shapes(build: Callable[[Any], Any]) -> Backbone:
    return replace(NANO, shapes=None, build=build)


def test_a_backbone_that_does_not_tell_its_shapes_is_built(tmp_path: Path) -> None:
    tensorfile.write_tensors(tmp_path / "x", OWN, {})
    found = examining.examine(tmp_path / "x", [without_shapes(NANO.build)])
    assert list(found.names)[:-2] == list(OWN)[:-2]
    assert set(found.names) == set(OWN)
    assert fitting.compute_shapes(without_shapes(NANO.build), {}) == fitting.compute_shapes(NANO, {})
