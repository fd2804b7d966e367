"""``finetune weights``: what there is, fetching, looking into files, converting them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from safetensors.numpy import load_file, save_file

from finetune.cli import main
from finetune.cli.app import app, parse_command_line
from finetune.weights import fetching
from tests.cli.calling import answer, command, environment
from tests.weights.drawn_files import ascend, checkpoint, drawn, hub, torchvision
from tests.weights.nano import OWN, RESNEXT50, STATE

if TYPE_CHECKING:
    from tests.cli.calling import Finetune

COMMANDS = sorted(typer.main.get_command(app).commands["weights"].commands)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start with an empty cache, without network, on a screen that is wide enough."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Return a checkpoint of MindSpore Hub, its convolutions split, with optimizer state."""
    return checkpoint(tmp_path / "hub.ckpt", ascend(OWN, 8, state=True))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what runs a command in this process: its exit code, what it printed, and what it said beside."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["weights", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def ask(call: Any) -> Any:
    """Return what runs a command with ``--json``: its exit code and answer."""

    def run(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
        code, out, _ = call(*arguments, "--json")
        return code, json.loads(out.splitlines()[-1])

    return run


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert parse_command_line(["weights", name, "--help"]) is None
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: finetune weights {name} ")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "--json" in text
    assert "--debug" in text
    for example in text.split("Example")[1].splitlines()[1:]:
        program, *arguments = shlex.split(example)
        assert (program, *arguments[:2]) == ("finetune", "weights", name)
        assert callable(parse_command_line(arguments)), example


def test_alone_it_shows_its_help(call: Any) -> None:
    code, out, _ = call()
    assert code == 0
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert "..." not in out.split("Commands:")[1], "a summary is too long for its line"


# ls and fetch


def test_ls_tells_what_there_is_and_what_is_here(ask: Any, call: Any, home: Path) -> None:
    code, said = ask("ls")
    assert code == 0
    rows = {(row["backbone"], row["name"]): row for row in said["weights"]}
    for name, record in RESNEXT50.weights.items():
        row = rows["resnext50", name]
        assert (row["accuracy"], row["licence"], row["cached"]) == (record.accuracy, record.licence, None)
    assert round(rows["resnext50", "mindcv"]["bytes"] / 1e6) == 100
    assert rows["resnext_nano", "fractals"]["cached"]
    name, record = next(iter(RESNEXT50.weights.items()))
    place = fetching.locate_file(record, home / "weights")
    place.parent.mkdir(parents=True)
    place.write_bytes(bytes(1234))
    row = next(row for row in ask("ls", "--backbone", "resnext50")[1]["weights"] if row["name"] == name)
    assert (row["cached"], row["bytes"]) == (str(place), 1234)
    table = call("ls", "--backbone", "resnext50")[1]
    assert table.splitlines()[-1] == f"{name}: {place}"
    assert f"{record.accuracy:.2%}" in table
    assert ask("ls", "--backbone", "resnet")[0] == 2


def test_fetch_prints_where_the_file_is(ask: Any, call: Any, split: Path, home: Path) -> None:
    digest = hashlib.sha256(split.read_bytes()).hexdigest()
    code, said = ask("fetch", f"{split.as_uri()}#sha256={digest}", "--backbone", "resnext_nano")
    assert (code, said["sha256"]) == (0, digest)
    assert Path(said["path"]).read_bytes() == split.read_bytes()
    out = call("fetch", split)[1]
    assert str(split) in out
    assert digest in out


def test_what_is_fetched_and_of_no_use_is_said(ask: Any, split: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.ckpt"
    page.write_text("<html>")
    for path, message in ((page, "is a web page"), (split, "these are not the weights of 'resnext50'")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        code, said = ask("fetch", f"{path.as_uri()}#sha256={digest}")
        assert (code, said["path"], said["sha256"]) == (4, str(path), digest)
        assert message in said["error"]["message"]


@pytest.mark.parametrize(("name", "code"), [("none", 2), ("nonsense", 2), ("hub-v1.1", 4), ("gone.ckpt", 4)])
def test_what_cannot_be_fetched_is_an_error(ask: Any, name: str, code: int) -> None:
    found, said = ask("fetch", name)
    assert found == said["error"]["exit_code"] == code


# inspect


@pytest.mark.parametrize("backbone", [[], ["--backbone", "resnext_nano"]])
def test_inspect_accounts_for_every_name(ask: Any, split: Path, backbone: list[str]) -> None:
    code, said = ask("inspect", split, *backbone)
    assert code == 0
    assert said["counts"] == {
        "loaded": len(OWN),
        "missing": 0,
        "unexpected": 0,
        "merged": 5,
        "ignored": STATE,
        "head": 2,
    }
    assert said["loaded"] == [*list(OWN)[:-2], *said["loaded"][-2:]]
    assert said["merged"] == {name: 8 for name in OWN if name.endswith("conv2.weight")}
    assert (said["format"], said["layout"], said["backbone"]) == ("ckpt", "mindspore-hub", "resnext_nano")
    assert (said["options"], said["classes"], said["source"]) == ({"stem_pool": "same"}, 5, None)
    assert said["sha256"] == hashlib.sha256(split.read_bytes()).hexdigest()
    learned = sum(array.size for name, array in OWN.items() if not name.endswith(("mean", "variance")))
    assert said["parameters"] == learned
    largest = max(OWN, key=lambda name: OWN[name].size)
    assert said["largest"][0] == {"name": hub(largest), "shape": list(OWN[largest].shape), "dtype": "float32"}


def test_inspect_shows_the_first_names(call: Any, split: Path) -> None:
    code, out, _ = call("inspect", split)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    first = [name for name in OWN if not name.startswith("head")][:10]
    assert lines["loaded"].split(maxsplit=1)[1] == f"{len(OWN)}  {', '.join(first)}, …"
    assert lines["missing"].split() == ["missing", "0"]
    assert "mindspore-hub" in lines["layout"]


def test_a_file_that_does_not_fit_is_an_error_with_the_differences(ask: Any, split: Path) -> None:
    code, said = ask("inspect", split, "--backbone", "resnext50")
    assert code == said["error"]["exit_code"] == 4
    assert said["error"]["type"] == "WeightsError"
    assert f"'{split}': these are not the weights" in said["error"]["message"]
    assert "nearest layout, 'mindspore-hub', it lacks 165: " in said["error"]["message"]
    assert (said["layout"], said["counts"]["missing"], said["counts"]["unexpected"]) == ("mindspore-hub", 165, 0)
    assert "layer4.2.bn3.gamma" in said["missing"]


def test_a_shape_that_does_not_fit_is_an_error(ask: Any, tmp_path: Path) -> None:
    other = {**OWN, "layer1.0.conv2.weight": np.zeros((32, 8, 3, 3), np.float32)}
    save_file(other, tmp_path / "x.safetensors")
    code, said = ask("inspect", tmp_path / "x.safetensors", "--backbone", "resnext_nano")
    assert code == 4
    assert (
        "a different shape for 1: 'layer1.0.conv2.weight (32, 8, 3, 3) for (32, 4, 3, 3)'" in said["error"]["message"]
    )
    code, said = ask("inspect", tmp_path / "x.safetensors")
    assert (code, said["backbone"], said["layout"], said["counts"]["unexpected"]) == (0, None, None, len(OWN))


NO_FILES = {"folder": "is a folder", "pipe": "is a pipe", "empty": "is empty"}
NO_WEIGHTS = {
    **NO_FILES,
    "gone.ckpt": "does not exist",
    "page.ckpt": "is a web page",
    "card.md": "is a card, which only describes weights; fetch them with `finetune weights fetch`",
    "cut.ckpt": "damaged MindSpore checkpoint",
}


@pytest.mark.parametrize(
    ("what", "name", "message"),
    [
        *((["inspect"], *each) for each in NO_WEIGHTS.items()),
        *((["convert", "--to", "ckpt"], *each) for each in NO_WEIGHTS.items()),
        *((["fetch"], *each) for each in NO_FILES.items()),  # which does not look into files
    ],
)
def test_what_is_no_weights_file_is_named(
    ask: Any, tmp_path: Path, split: Path, what: list[str], name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "page.ckpt").write_text("<html>")
    (tmp_path / "card.md").write_text("---\nmodel-name: resnext50\n---\n")
    (tmp_path / "cut.ckpt").write_bytes(split.read_bytes()[:-5])
    os.mkfifo(tmp_path / "pipe")
    code, said = ask(what[0], tmp_path / name, *what[1:])
    assert code == 4
    assert message in said["error"]["message"]


LIMITED = """
import resource, sys, time
from finetune.cli import main
code = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(code, 1024 * int(peak.split()[1]), "mindspore" in sys.modules)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_inspecting_resnext50_takes_little_memory_and_no_mindspore(repo: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "hub.ckpt", ascend(drawn(RESNEXT50, 1000), 32))
    done = subprocess.run(
        [sys.executable, "-P", "-c", LIMITED, "weights", "inspect", str(path), "--backbone", "resnext50", "--json"],
        env=environment(repo),
        capture_output=True,
        text=True,
        check=True,
    )
    said, (code, peak, mindspore) = json.loads(done.stdout.splitlines()[0]), done.stdout.splitlines()[1].split()
    assert (code, mindspore) == ("0", "False")
    assert int(peak) < 600e6
    assert said["counts"]["loaded"] == 267
    assert said["counts"]["merged"] == 16
    assert said["counts"]["missing"] == said["counts"]["unexpected"] == 0
    assert said["parameters"] == 25_028_904  # table 1 of the paper: 25.0 million


# convert


def test_convert_writes_beside_the_file_and_overwrites_nothing(ask: Any, split: Path) -> None:
    code, said = ask("convert", split, "--to", "torchvision")
    target = split.with_name("hub.torchvision.safetensors")
    assert (code, said["path"]) == (0, str(target))
    found = load_file(target)
    assert all(np.array_equal(found[torchvision(name)], array) for name, array in OWN.items())
    assert len(said["ignored"]) == STATE
    assert "stem_pool=same" in said["note"]
    assert ask("convert", split, "--to", "torchvision")[0] == 0  # nobody changed it
    target.write_bytes(b"mine")
    code, said = ask("convert", split, "--to", "torchvision")
    assert code == 2
    assert f"'{target}': the file exists; choose another name or pass --force" in said["error"]["message"]
    assert ask("convert", split, "--to", "torchvision", "--force")[0] == 0


def test_a_file_is_not_converted_in_its_own_place(ask: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({torchvision(name): array for name, array in OWN.items()}, path)
    for more in ([], ["--force"]):
        code, said = ask("convert", path, "--to", "safetensors", "--output", path, *more)
        assert code == 2
        assert "the command reads this file; choose another name" in said["error"]["message"]
    assert set(load_file(path)) == {torchvision(name) for name in OWN}


def test_weights_go_only_where_weights_belong(ask: Any, split: Path, tmp_path: Path) -> None:
    def refused(place: Path, to: str = "safetensors") -> str:
        code, said = ask("convert", split, "--to", to, "--output", place, "--force")
        assert code in (2, 7)
        return str(said["error"]["message"])

    assert "does not match the format safetensors; end its name with .safetensors" in refused(
        tmp_path / "x.pth", "torchvision"
    )
    assert "does not match the format ckpt; end its name with .ckpt" in refused(tmp_path / "x.safetensors", "mindcv")
    assert f"no folder '{tmp_path / 'gone'}'; create it first" in refused(tmp_path / "gone" / "x.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "is a pipe, socket or device, which would be replaced" in refused(tmp_path / "pipe.safetensors")
    assert stat.S_ISFIFO((tmp_path / "pipe.safetensors").stat().st_mode)


def test_convert_takes_a_folder_and_says_what_it_did(call: Any, split: Path, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    code, out, _ = call("convert", split, "--to", "safetensors", "--output", tmp_path / "into")
    assert code == 0
    assert str(tmp_path / "into" / "hub.safetensors") in out
    assert "global_step" in out
    assert (tmp_path / "into" / "hub.safetensors").is_file()


@pytest.mark.parametrize(("to", "code"), [("onnx", 2), ("torchvison", 2)])
def test_an_unknown_form_is_refused(ask: Any, split: Path, to: str, code: int) -> None:
    assert ask("convert", split, "--to", to)[0] == code


def test_as_users_call_it(finetune: Finetune, split: Path, home: Path) -> None:
    done = finetune("weights", "convert", split, "--to", "ckpt", "--output", split.with_name("own.ckpt"), "--json")
    assert done.returncode == 0, done.stderr
    assert answer(done)["tensors"] == len(OWN)
    done = finetune("weights", "inspect", split.with_name("own.ckpt"), "--json")
    assert answer(done)["layout"] == "finetune"
    assert command("weights")[-1] == "weights"
