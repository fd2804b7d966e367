"""PyTorch's files: read exactly, in a process of its own, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.errors import WeightsError
from finetune.weights import loading
from finetune.weights.formats import tensorfile, torchfile
from tests.weights.drawn_files import torchvision
from tests.weights.nano import OWN, entries, load, same

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.once]
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def save(path: Path, value: Any, **how: Any) -> Path:
    """Let torch write a file, in a process of its own: it must not meet MindSpore."""
    data = path.with_suffix(".pickled")
    data.write_bytes(pickle.dumps((value, how)))
    code = """
import pickle, sys, torch
def tensors(value):
    if isinstance(value, dict):
        return {key: tensors(item) for key, item in value.items()}
    return torch.from_numpy(value) if hasattr(value, "dtype") else value
value, how = pickle.load(open(sys.argv[1], "rb"))
torch.save(tensors(value), sys.argv[2], **how)
"""
    subprocess.run([sys.executable, "-c", code, str(data), str(path)], check=True)
    return path


@needs_torch
@pytest.mark.parametrize(("wrapper", "legacy"), [(None, False), (None, True), ("state_dict", False), ("model", False)])
def test_files_of_torch_load_exactly(tmp_path: Path, home: Path, wrapper: str | None, legacy: bool) -> None:
    state: dict[str, Any] = {torchvision(name): array for name, array in OWN.items()}
    state |= {"bn1.num_batches_tracked": np.array(3), "note": "text"}
    whole = state if wrapper is None else {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    path = save(tmp_path / "x.pth", whole, _use_new_zipfile_serialization=not legacy)
    first = load(path)
    assert same(first.tensors, OWN)
    assert first.report["layout"] == "torchvision"
    beside = [] if wrapper is None else ["epoch", "optimizer"]
    assert first.report["ignored"] == sorted(["bn1.num_batches_tracked", "note", *beside])
    assert len(entries(home)) == 1
    assert load(path).report == first.report


@needs_torch
def test_every_type_of_torch_is_kept(tmp_path: Path) -> None:
    code = """
import sys, torch
grid = torch.arange(6, dtype=torch.float32).reshape(2, 3)
torch.save({"half": grid.half(), "brain": grid.bfloat16(), "view": grid.T, "one": torch.tensor(2.5),
            "whole": grid.long(), "none": grid[:0], "parameter": torch.nn.Parameter(grid)}, sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.pth")], check=True)
    found = loading.read_complete(tmp_path / "x.pth")[0]
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {"half": grid.astype(np.float16), "view": grid.T, "one": np.array(2.5, np.float32)}
    expected |= {"whole": grid.astype(np.int64), "none": grid[:0], "parameter": grid}
    assert found.records["brain"].dtype == "bfloat16"
    assert np.array_equal(tensorfile.read_array(tmp_path, "brain", found.records.pop("brain")), grid)
    assert same({name: tensorfile.read_array(tmp_path, name, each) for name, each in found.records.items()}, expected)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.system, (f"touch '{self.marker}'",))


def bombs(folder: Path) -> list[Path]:
    """Return files that torch would take for its own, in both of its formats."""
    payload = pickle.dumps({"w": Bomb(folder / "ran")}, protocol=2)
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
    early = [pickle.dumps(each, protocol=2) for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    (folder / "early.pth").write_bytes(b"".join([*early, payload, pickle.dumps([], protocol=2)]))
    return [folder / "zip.pth", folder / "early.pth"]


@needs_torch
def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    for path in bombs(tmp_path):
        with pytest.raises(WeightsError, match=r"torch cannot read safely \(.*; save its tensors as") as caught:
            load(path)
        assert "nsupported GLOBAL posix.system" in str(caught.value)
        assert "weights_only=False" not in str(caught.value)
        assert not (tmp_path / "ran").exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(WeightsError, match=r"is a pickle, which could run any code"):
        load(tmp_path / "plain.pth")
    assert not (tmp_path / "ran").exists()


def test_without_torch_the_error_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchfile, "find_spec", lambda name: None)
    for path in bombs(tmp_path):
        with pytest.raises(WeightsError, match=r"is a PyTorch file.*`pip install torch`.*or save its tensors as safe"):
            load(path)


def test_other_archives_are_not_given_to_torch(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(WeightsError, match=r"is a zip archive"):
        load(tmp_path / "x.npz")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.npz").read_bytes()[:-30])
    with pytest.raises(WeightsError, match=r"is a damaged zip archive, perhaps of PyTorch"):
        load(tmp_path / "x.pth")


REFUSED = {
    "{'w': torch.zeros(3, dtype=torch.complex64)}": "holds 'w' as complex64",
    "{'w': torch.eye(3).to_sparse()}": "holds 'w' as float32, torch.sparse_coo, which is not supported",
    "{3: torch.zeros(3)}": "holds 3 as float32",
    "{'epoch': 3}": "holds 0 tensors",
    "[1, 2]": "holds a list, not tensors by name",
    "{'w': torch.zeros(1).expand(10**12)}": "holds 1 tensors of 4,000,000,000,000 bytes together",
}


@needs_torch
def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    code = "import sys, torch; [torch.save(eval(text), f'{sys.argv[1]}/{n}') for n, text in enumerate(sys.argv[2:])]"
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *REFUSED], check=True)
    for number, message in enumerate(REFUSED.values()):
        with pytest.raises(WeightsError, match=message):
            loading.read_complete(tmp_path / str(number))[0]


@pytest.mark.parametrize(("version", "safe"), [("2.5.1+cpu", False), ("2.6.0", True), ("10.0a", True), ("?", False)])
def test_versions_of_torch_that_can_be_tricked_are_not_used(version: str, safe: bool) -> None:
    assert torchfile.is_safe(version) is safe


@needs_torch
def test_torch_has_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.pth", {"w": np.ones(3, np.float32)})
    monkeypatch.setattr(torchfile, "TIME_LIMIT", 0.01)
    with pytest.raises(WeightsError, match=r"torch timed out after 0.01 s while reading"):
        loading.read_complete(path)[0]
