"""What is given for weights by mistake or malice: exit code 4 and the reason, from the command line, and no more."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import socket
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

import finetune_model
from tests.cli.calling import answer, call_in_process, command, environment
from tests.clocks import LONGEST
from tests.drawn import folder
from tests.weights.drawn_files import ascend, checkpoint, drawn
from tests.weights.files import entry

pytestmark = pytest.mark.once

NANO = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}["resnext_nano"]
RECIPE = (
    "backbone: {{use: {backbone}, weights: {weights}}}\ndataset: {{use: folder, root: photos}}\nimage: {{size: 32}}\n"
)
TORCH_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that it pickled first

Call = Callable[..., subprocess.CompletedProcess[str]]


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.fixture(scope="module")
def call(repo: Path) -> Call:
    """Return what calls ``finetune`` in a folder, in a process of its own where another command starts it."""

    def run(*arguments: str | Path, cwd: Path, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        if not before:
            return call_in_process(*arguments, "--json", cwd=cwd)
        line = [*before, *command(*arguments, "--json")]
        return subprocess.run(
            line, cwd=cwd, env=environment(repo), capture_output=True, text=True, timeout=LONGEST, check=False
        )

    return run


def refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    """Assert that a call ended with code 4, the reason and a remedy, and without a traceback."""
    assert done.returncode == 4, done.stderr
    said = answer(done)["error"]
    assert said["exit_code"] == 4
    assert any(each in said["message"] for each in reason.split("|")), said["message"]
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    assert len(done.stderr) < 3000


def archive(path: Path, *contents: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents:
            file.writestr(name, content)


def fifo(path: Path, marker: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path, marker: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # an address is 108 bytes long at most


def bytes_of(content: bytes) -> Callable[[Path, Path], None]:
    return lambda path, marker: path.write_bytes(content) and None


def bomb(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(marker)))


def bomb_of_torch(path: Path, marker: Path) -> None:
    parts = {"data.pkl": pickle.dumps({"conv1.weight": Bomb(marker)}, 2), "version": b"3\n", "byteorder": b"little"}
    archive(path, *((f"archive/{name}", content) for name, content in parts.items()))


def bomb_of_early_torch(path: Path, marker: Path) -> None:
    path.write_bytes(TORCH_BEFORE_1_6 + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickle.dumps(Bomb(marker), 2))


# By what makes them; what the error says, with or without an installed torch.
STRANGERS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "empty.ckpt": (bytes_of(b""), "is empty"),
    "page.ckpt": (bytes_of(b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>"), "is a web page"),
    "page.safetensors": (bytes_of(b"\r\n  <html>login</html>"), "is a web page"),
    "pointer.ckpt": (bytes_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"), "git lfs pull"),
    "pickle.ckpt": (bomb, "is a pickle, which could run any code"),
    "pickle.pth": (bomb, "is a pickle, which could run any code"),
    "archive.ckpt": (lambda path, marker: archive(path, ("weights.ckpt", b"w")), "is a zip archive"),
    "cut.pth": (bytes_of(b"PK\x03\x04" + bytes(60)), "is a damaged zip archive"),
    "torch.pth": (bomb_of_torch, "cannot read safely|pip install torch"),
    "torch.ckpt": (bomb_of_torch, "cannot read safely|pip install torch"),
    "early.pth": (bomb_of_early_torch, "cannot read safely|pip install torch"),
    "gzip.ckpt": (bytes_of(b"\x1f\x8b\x08\0\0\0\0\0"), "is a gzip archive"),
    "hdf5.h5": (bytes_of(b"\x89HDF\r\n\x1a\n" + bytes(60)), "is an HDF5 file"),
    "index.json": (bytes_of(b'{"weight_map": {"w": "model-00001-of-00002.safetensors"}}'), "neither safetensors nor"),
    "photo.ckpt": (bytes_of(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(60)), "neither safetensors nor"),
    "zeros.safetensors": (bytes_of(bytes(4096)), "neither safetensors nor"),
    "cut.safetensors": (bytes_of((10**6).to_bytes(8, "little") + b'{"w":{"dtype":"F32"'), "damaged safetensors"),
    "cut.ckpt": (bytes_of(entry(b"stem.w", (2,), bytes(8))[:-3]), "damaged MindSpore checkpoint"),
    "folder.ckpt": (lambda path, marker: path.mkdir(), "is a folder"),
    "link.ckpt": (lambda path, marker: path.symlink_to("nothing"), "is a broken link"),
    "loop.ckpt": (lambda path, marker: path.symlink_to(path.name), "link"),
    "pipe.ckpt": (fifo, "is a pipe, socket or device"),
    "socket.ckpt": (unix_socket, "is a pipe, socket or device"),
    "device.ckpt": (lambda path, marker: path.symlink_to("/dev/zero"), "is a pipe, socket or device"),
}


# A recipe reads the file in the same way, and takes seconds to get there.
IN_A_RECIPE = ("page.ckpt", "pickle.ckpt", "torch.pth", "folder.ckpt", "pipe.ckpt")


@pytest.mark.parametrize("name", STRANGERS)
def test_it_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    make, reason = STRANGERS[name]
    marker = tmp_path / "ran"
    make(tmp_path / name, marker)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(backbone="resnext50", weights=f"./{name}"))
    refused(call("weights", "inspect", tmp_path / name, cwd=tmp_path), reason)
    if name in IN_A_RECIPE:
        refused(call("check", "r.yaml", cwd=tmp_path), reason)
    assert {path.name for path in tmp_path.iterdir()} == {name, "r.yaml"}  # nothing ran, nothing was made


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, call: Call) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(entry(b"stem.w", (2,), bytes(8)))
    path.chmod(0)
    before = ()
    if os.access(path, os.R_OK):  # as root, who may read everything; without these capabilities, root may not
        before = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")
        if (
            shutil.which("setpriv") is None
            or not subprocess.run([*before, "cat", path], capture_output=True).returncode
        ):
            pytest.skip("this user may read every file")
    (tmp_path / "r.yaml").write_text(RECIPE.format(backbone="resnext50", weights="./x.ckpt"))
    for arguments in (["weights", "inspect", "x.ckpt"], ["check", "r.yaml"]):
        refused(call(*arguments, cwd=tmp_path, before=before), "cannot be read: permission denied|Permission denied")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photos, and weights of ``resnext_nano`` as MindSpore Hub has them."""
    top = tmp_path_factory.mktemp("project")
    folder(top / "photos", each=4)
    checkpoint(top / "nano.ckpt", ascend(drawn(NANO), 8, state=True))
    return top


def test_weights_of_another_network_are_refused_with_all_that_differs(
    project: Path, call: Call, squeezenet: Path
) -> None:
    (project / "r.yaml").write_text(RECIPE.format(backbone="resnext_nano", weights=str(squeezenet)))
    for done in (
        call("weights", "inspect", squeezenet, "--backbone", "resnext50", cwd=project),
        call("check", "r.yaml", cwd=project),
    ):
        refused(done, "these are not the weights of 'resnext")
        message = answer(done)["error"]["message"]
        assert "it lacks " in message
        assert "'features.0.bias'" in message
        assert "has no place for 52:" in message


def test_weights_of_a_smaller_network_of_the_kind_are_refused(project: Path, call: Call) -> None:
    done = call("weights", "inspect", "nano.ckpt", "--backbone", "resnext50", cwd=project)
    refused(done, "in the nearest layout, 'mindspore-hub', it lacks ")
    assert call("weights", "inspect", "nano.ckpt", "--backbone", "resnext_nano", cwd=project).returncode == 0


def test_a_network_that_lacks_one_parameter_is_not_built_by_half(project: Path, call: Call) -> None:
    own = drawn(NANO)
    del own["layer4.0.bn3.beta"]
    save_file(own, project / "half.safetensors")
    (project / "r.yaml").write_text(RECIPE.format(backbone="resnext_nano", weights="half.safetensors"))
    refused(call("run", "r.yaml", cwd=project), "it lacks 1: 'layer4.0.bn3.beta'")
    assert not list(project.glob("runs/*/model"))


def test_a_wrong_sha256_is_refused_with_both(project: Path, call: Call) -> None:
    found, promised = hashlib.sha256((project / "nano.ckpt").read_bytes()).hexdigest(), "0123456789abcdef" * 4
    address = f"{(project / 'nano.ckpt').as_uri()}#sha256={promised}"
    (project / "r.yaml").write_text(RECIPE.format(backbone="resnext_nano", weights=address))
    refused(call("check", "r.yaml", cwd=project), f"has sha256 {found}, not {promised} as expected")
    assert (project / "nano.ckpt").exists()
