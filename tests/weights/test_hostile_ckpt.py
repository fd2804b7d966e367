"""A MindSpore checkpoint that was cut, flipped or crafted: a WeightsError each time, never half a network."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.components import Backbone, Layout, Weights
from finetune.errors import WeightsError
from finetune.machine import device
from finetune.weights import fetching, loading
from tests.cli.calling import command, environment
from tests.clocks import LONGEST
from tests.weights.files import boundaries, entry, item

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.weights.loading import Loaded
    from tests.weights.files import Arrays

pytestmark = pytest.mark.once

SHAPES = {
    "stem.conv.weight": (4, 3, 9, 9),
    "stem.bn.gamma": (4,),
    "layer1.0.conv2.weight": (8, 2, 1, 1),
    "head.fc.weight": (5, 8),
    "head.fc.bias": (5,),
}
HEAD = frozenset({"head.fc.weight", "head.fc.bias"})
SPLIT = Layout(
    name="split",
    rules=((r"((?:stem|layer1)\..*)", r"\1"), (r"(head\..*)", r"\1")),
    pieces=(r"(.*)\.convs\.(\d+)\.weight", r"\1.weight"),
)
TOY = Backbone(name="toy", build=lambda options: {}, stages=("stem", "layer1"), features=8, layouts=(SPLIT,))


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def whole(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a checkpoint that MindSpore wrote."""
    device.set_up(device="cpu")
    import mindspore as ms

    path = tmp_path_factory.mktemp("whole") / "x.ckpt"
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()], str(path))
    return path.read_bytes()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))


def load(path: Path, content: bytes, *, digest: str = "", keep_head: bool = True) -> Loaded:
    """Load a file's content for the toy network, with a record that promises a sha256 or without one."""
    path.write_bytes(content)
    record = Weights(url=path.as_uri(), sha256=digest, layout="finetune") if digest else None
    return loading.load(fetching.Source(path=path, name="x", record=record), TOY, SHAPES, HEAD, keep_head)


def same(loaded: Loaded, arrays: Arrays, *, head: bool) -> bool:
    """Tell whether all that the network needs was loaded, equal to the bit."""
    wanted = [name for name in arrays if head or name not in HEAD]
    return list(loaded.tensors) == wanted and all(np.array_equal(loaded.tensors[n], arrays[n]) for n in wanted)


def test_the_whole_file_is_loaded(tmp_path: Path, whole: bytes, arrays: Arrays) -> None:
    digest = hashlib.sha256(whole).hexdigest()
    assert same(load(tmp_path / "x.ckpt", whole, digest=digest), arrays, head=True)
    assert same(load(tmp_path / "x.ckpt", whole, keep_head=False), arrays, head=False)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, whole: bytes, arrays: Arrays) -> None:
    digest, path = hashlib.sha256(whole).hexdigest(), tmp_path / "x.ckpt"
    ends = boundaries(whole, level=3)[2::2]  # of the Values, the last of which is the file's
    assert len(ends) == len(arrays)
    cuts = {*boundaries(whole), *random.Random(0).sample(range(len(whole)), 200)}
    assert len(cuts) > 200
    for cut in sorted(cuts - {len(whole)}):
        with pytest.raises(WeightsError, match=r"has sha256|is empty"):
            load(path, whole[:cut], digest=digest)
        reason = "lacks" if cut in ends else "damaged|is empty|is neither"
        with pytest.raises(WeightsError, match=reason):
            load(path, whole[:cut])
        try:
            loaded = load(path, whole[:cut], keep_head=False)
        except WeightsError:
            continue
        assert same(loaded, arrays, head=False)  # only the old head is lost, which a new one replaces


def test_a_flipped_bit_never_passes_the_known_hash(tmp_path: Path, whole: bytes, arrays: Arrays) -> None:
    digest, path, rng = hashlib.sha256(whole).hexdigest(), tmp_path / "x.ckpt", random.Random(1)
    for _ in range(500):
        bit, content = rng.randrange(8 * len(whole)), bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        found = hashlib.sha256(content).hexdigest()
        with pytest.raises(WeightsError, match=f"has sha256 {found}, not {digest}"):
            load(path, content, digest=digest)
        try:  # Without the hash it is a whole network or none.
            loaded = load(path, content)
        except WeightsError:
            continue
        assert {name: array.shape for name, array in loaded.tensors.items()} == SHAPES
        assert sum(not np.array_equal(loaded.tensors[name], arrays[name]) for name in arrays) == 1


def test_the_hash_is_compared_where_a_name_is_resolved(tmp_path: Path, whole: bytes) -> None:
    path, promised = tmp_path / "x.ckpt", hashlib.sha256(whole).hexdigest()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    record = Weights(url=path.as_uri(), sha256=promised, layout="finetune")
    offering = Backbone(name="toy", build=TOY.build, stages=TOY.stages, features=8, weights={"mine": record})
    with pytest.raises(WeightsError, match=f"{hashlib.sha256(path.read_bytes()).hexdigest()}, not {promised}"):
        fetching.resolve("mine", offering)
    assert path.exists()  # it is the user's own


WEIGHT = entry(b"stem.bn.gamma", (4,), bytes(16))
FLOAT = item(2, b"Float32")


def nested(depth: int) -> bytes:
    """Return entries within an entry."""
    value = b"w"
    for _ in range(depth):
        value = item(1, value)
    return value


# Beside those of weights/test_tensorfile.py.
CRAFTED = {
    "type twice as wide": entry(b"w", (2,), bytes(8), b"Float64"),
    "type half as wide": entry(b"w", (2,), bytes(8), b"Float16"),
    "type in small letters": entry(b"w", (2,), bytes(8), b"float32"),
    "type with a zero byte": entry(b"w", (2,), bytes(8), b"Float32\0"),
    "type not UTF-8": entry(b"w", (2,), bytes(8), b"\xff\xfe"),
    "type twice": item(1, item(1, b"w") + item(2, FLOAT + FLOAT + item(3, b""))),
    "type a number": item(1, item(1, b"w") + item(2, item(2, 7) + item(3, b""))),
    "content a number": item(1, item(1, b"w") + item(2, FLOAT + item(3, 7))),
    "dimensions packed": item(1, item(1, b"w") + item(2, item(1, b"\2") + FLOAT + item(3, bytes(8)))),
    "dimension of 69 bits": item(1, item(1, b"w") + item(2, item(1, 2**69) + FLOAT + item(3, bytes(4)))),
    "100k dimensions": item(1, item(1, b"w") + item(2, item(1, 1) * 100_000 + FLOAT + item(3, bytes(4)))),
    "dimensions of petabytes": entry(b"w", (2**31 - 1,) * 8, bytes(4)),
    "nothing of petabytes": entry(b"w", (0,) + (2**31 - 1,) * 7, b""),
    "tag twice in an entry": item(1, item(1, b"w") + item(1, b"v") + item(2, FLOAT + item(3, b""))),
    "tag a number": item(1, item(1, 5) + item(2, FLOAT + item(3, b""))),
    "empty entry": WEIGHT + item(1, b""),
    "field 0": WEIGHT + item(0, b""),
    "zero byte at the end": WEIGHT + b"\0",
    "group": WEIGHT + b"\x0b\x0c",
    "key of 69 bits": WEIGHT + b"\xff" * 9 + b"\x01\x00",
    "number of eleven bytes": WEIGHT + b"\x0a" + b"\x80" * 10 + b"\x01",
    "length of 2^62": item(1, WEIGHT, 2**62),
    "length of 2^64 - 1": item(1, WEIGHT, 2**64 - 1),
    "length one too long": item(1, item(1, b"w") + item(2, FLOAT + item(3, bytes(4)), 14)),
    "tag longer than the file": item(1, item(1, b"w", 2**40)),
    "5,000 nested entries": nested(5000),
    "random bytes in an entry": item(1, item(1, b"w") + item(2, random.Random(2).randbytes(1000))),
    "twice the same entry": WEIGHT + WEIGHT,
    "pieces of two types": entry(b"w", (4,), bytes(8)) + entry(b"w", (4,), bytes(8), b"Int32"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_checkpoints_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load(tmp_path / "x.ckpt", CRAFTED[name])
    assert len(str(caught.value)) < 2000
    if name != "nothing of petabytes":  # sound in itself; no network has such a parameter
        with pytest.raises(WeightsError, match=r"x\.ckpt' (is a damaged|is neither)"):
            loading.read_complete(tmp_path / "x.ckpt")[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (entry(b"stem.bn.gamma", (2, 2), bytes(16)), r"a different shape for 1: 'stem.bn.gamma \(2, 2\) for \(4,\)'"),
        (entry(b"stem.bn.gamma", (5,), bytes(20)), r"a different shape for 1: 'stem.bn.gamma \(5,\) for \(4,\)'"),
        (entry(b"stem.bn.gamma", (4,), bytes(16), b"Int32"), "integers for 1: 'stem.bn.gamma'"),
        (entry(b"stem.bn.gamma", (0,), bytes(16), b"str"), "lacks 1: 'stem.bn.gamma'"),
        (entry(b"stem.bn.Gamma", (4,), bytes(16)), "lacks 1: 'stem.bn.gamma'; has no place for 1: 'stem.bn.Gamma'"),
        (entry(b"stem.bn.gamma", (4,), np.full(4, np.nan, "<f4").tobytes()), "NaN or infinity in 'stem.bn.gamma'"),
        (entry(b"stem.bn.gamma", (4,), np.full(4, np.inf, "<f8").tobytes(), b"Float64"), "NaN or infinity in"),
        (entry(b"layer1.convs.0.weight", (4,), bytes(16)), "lacks 1: 'stem.bn.gamma'; has no place for 1: 'layer1.wei"),
    ],
)
def test_one_parameter_that_is_not_the_networks_is_named(
    tmp_path: Path, arrays: Arrays, changed: bytes, message: str
) -> None:
    rest = [
        entry(name.encode(), array.shape, array.tobytes()) for name, array in arrays.items() if name != "stem.bn.gamma"
    ]
    with pytest.raises(WeightsError, match=message):
        load(tmp_path / "x.ckpt", b"".join([*rest, changed]))


# A small process between: what a child of this one says of its memory begins with this one's.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def many(count: int, tag: str, dims: tuple[int, ...]) -> bytes:
    return b"".join(entry((tag % i if "%" in tag else tag).encode(), dims, bytes(4)) for i in range(count))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: many(1_000_000, "layer1.%d", (1,)), "more than 100,000 entries"),
        (lambda: many(200_000, "w", (200_000,)), "more than 100,000 entries"),
        (lambda: many(100_000, "layer1.convs.%d.weight", (1,)), "not the weights of 'resnext50'"),
    ],
    ids=["a million tensors", "200k times one tag", "100k pieces"],
)
def test_the_worst_files_cost_little_time_and_memory(tmp_path: Path, repo: Path, content: Any, reason: str) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content())
    line = [sys.executable, "-c", MEASURE, *command("weights", "inspect", path, "--backbone", "resnext50")]
    done = subprocess.run(line, env=environment(repo), capture_output=True, text=True, timeout=LONGEST, check=True)
    code, seconds, kibibytes = map(float, done.stdout.split())
    assert reason in done.stderr
    assert code == 4
    assert seconds < 20  # of the processor; 2 to 4 on an idle machine
    assert kibibytes < 400 * 1024
