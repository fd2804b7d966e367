"""Every command that writes a file where the user says: it overwrites nothing, and ``-`` is standard output."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Finetuner, UsageError
from finetune.cli import main
from finetune.recipe import bundled
from tests.drawn import folder
from tests.faults.data_makers import sound, trained

if TYPE_CHECKING:
    from pathlib import Path

Call = Callable[..., tuple[int, bytes, str]]
EXISTS = "the file exists; choose another name or pass --force"
READ = "the command reads this file; choose another name"
RECIPE = """\
backbone: {use: resnext_nano, weights: none}
dataset: {use: folder, root: drawn}
image: {size: 32, resize: 36}
augment: []
freeze: {use: head}
train: {batch_size: 8}
runner: {mode: pynative}
"""
COMMANDS = {
    "predict": ("a.csv", "predict", "m", "photos", "--csv", "a.csv"),
    "export": ("a.onnx", "export", "m", "--output", "a.onnx"),
    "export, beside": ("a.onnx.json", "export", "m", "--output", "a.onnx"),
    "schema": ("a.json", "schema", "--output", "a.json"),
    "lr": ("a.svg", "lr", "r.yaml", "--steps", "20", "--plot", "a.svg"),
    "new recipe": ("a.yaml", "new", "recipe", "photos", "--output", "a.yaml"),
    "cp": ("a.yaml", "cp", "quickstart", "a.yaml"),
    "convert": ("a.ckpt", "weights", "convert", "m/weights.safetensors", "--to", "ckpt", "--output", "a.ckpt"),
}


@pytest.fixture
def top(tmp_path: Path, home: Path) -> Path:
    """Return a folder with photos, a recipe and a model, and start with an empty ledger."""
    shutil.copytree(trained(), tmp_path / "m")
    sound(tmp_path / "photos")
    folder(tmp_path / "drawn")
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def call(top: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """Return a function that calls the command line in that folder: code, standard output, standard error."""

    def called(*words: str | Path) -> tuple[int, bytes, str]:
        with chdir(top):
            code = main([*map(str, words)])
        found = capfdbinary.readouterr()
        return code, found.out, found.err.decode()

    return called


@pytest.mark.once
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_overwrites_nothing_but_its_own(call: Call, top: Path, command: str) -> None:
    file, *words = COMMANDS[command]
    (top / file).write_bytes(b"mine")
    code, _, errors = call(*words)
    assert (code, f"'{file}': {EXISTS}" in errors) == (2, True), errors
    assert (top / file).read_bytes() == b"mine"
    assert call(*words, "--force")[0] == 0
    assert (top / file).read_bytes() != b"mine"
    if command != "lr":  # which takes a while
        assert call(*words)[0] == 0
        (top / file).write_bytes(b"mine, again")
        assert call(*words)[0] == 2
    assert (top / file).read_bytes() == b"mine, again" or command == "lr"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("photos/red/0.png", ("predict", "m", "photos/red/0.png", "--csv", "photos/red/0.png")),
        ("photos/red/0.png", ("predict", "m", "photos", "--csv", "./photos/blue/../red/0.png")),
        ("m/model.json", ("predict", "m", "photos", "--csv", "m/model.json")),
        ("r.yaml", ("lr", "r.yaml", "--plot", "r.yaml")),
        ("base.yaml", ("lr", "own.yaml", "--plot", "base.yaml")),
        ("drawn/red/00.jpg", ("lr", "r.yaml", "--plot", "drawn/red/00.jpg")),
        ("m/weights.safetensors", ("lr", "r.yaml", "backbone.weights=./m/weights.safetensors", "--plot", "l.svg")),
        ("photos/red/0.png", ("new", "recipe", "photos", "--output", "photos/red/0.png")),
        ("t.csv", ("new", "recipe", "t.csv", "--output", "t.csv")),
        (
            "m/weights.safetensors",
            ("weights", "convert", "m/weights.safetensors", "--to", "ckpt", "--output", "l.ckpt"),
        ),
    ],
)
def test_inputs_are_never_overwritten(call: Call, top: Path, file: str, words: tuple[str, ...]) -> None:
    (top / "base.yaml").write_text(RECIPE, encoding="utf-8")
    (top / "own.yaml").write_text("extends: base.yaml\n", encoding="utf-8")
    (top / "t.csv").write_text("path,label\nphotos/red/0.png,a\nphotos/red/1.png,b\n", encoding="utf-8")
    (top / "l.ckpt").symlink_to("m/weights.safetensors")
    (top / "l.svg").symlink_to("m/weights.safetensors")
    before = (top / file).read_bytes()
    code, _, errors = call(*words, "--force")
    assert (code, READ in errors) == (2, True), errors
    assert (top / file).read_bytes() == before


def test_a_bundled_recipe_is_an_input_too(call: Call) -> None:
    path = bundled.find_recipe("quickstart")
    before = path.read_bytes()
    assert call("lr", "quickstart", "--plot", path, "--force")[0] == 2
    assert call("cp", "folder", path, "--force")[0] == 2
    assert path.read_bytes() == before


@pytest.mark.once
def test_standard_output_takes_texts(call: Call, top: Path) -> None:
    _, plain, _ = call("schema")
    for name in ("-", "/dev/stdout"):
        assert call("schema", "--output", name)[1] == plain
        code, table, _ = call("predict", "m", "photos", "--csv", name)
        assert (code, table.splitlines()[0], len(table.splitlines())) == (0, b"path,label,probability", 7)
    assert len(json.loads(call("predict", "m", "photos", "--csv", "-", "--json")[1])["predictions"]) == 6
    assert call("new", "recipe", "photos", "--output", "-")[1].startswith(b"#")
    assert call("cp", "quickstart", "-")[1] == call("cat", "quickstart")[1]
    code, chart, errors = call("lr", "r.yaml", "--steps", "20", "--plot", "-")
    assert (code, chart[:4], b"</svg>" in chart, "optimizer.lr=" in errors) == (0, b"<svg", True, True), errors
    assert {path.name for path in top.iterdir()} <= {"m", "photos", "drawn", "r.yaml", "home"}


def answers(graph: bytes) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    images = np.random.default_rng(1).random([1, *given.shape[1:]], np.float32)
    return session.run(None, {given.name: images})[0]


@pytest.mark.once
def test_standard_output_takes_files_of_bytes(call: Call, top: Path) -> None:
    assert call("export", "m", "--output", "a.onnx")[0] == 0
    code, graph, errors = call("export", "m", "--output", "-")
    assert code == 0
    # Two exports of one model differ in the names of their graphs, which MindSpore counts on.
    assert np.array_equal(answers(graph), answers((top / "a.onnx").read_bytes()))
    assert errors.startswith(("compared: onnxruntime", "compared: openvino"))
    assert call("weights", "convert", "m/weights.safetensors", "--to", "ckpt", "--output", "a.ckpt")[0] == 0
    words = ("weights", "convert", "m/weights.safetensors", "--to", "ckpt", "--output", "-")
    assert call(*words)[1] == (top / "a.ckpt").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("export", "m", "--output", "-"),
        ("lr", "r.yaml", "--plot", "-"),
        ("weights", "convert", "m/weights.safetensors", "--to", "ckpt", "--output", "-"),
    ],
)
def test_a_file_and_the_line_for_programs_do_not_mix(call: Call, words: tuple[str, ...]) -> None:
    code, out, _ = call(*words, "--json")
    said = "standard output cannot hold both the file and the line of --json; name a file"
    assert (code, json.loads(out)["error"]["message"]) == (2, said)


@pytest.mark.parametrize(
    "words", [("pack", "photos", "-"), ("new", "plugin", "x", "--kind", "freezer", "--output", "-")]
)
def test_standard_output_takes_no_folders(call: Call, words: tuple[str, ...]) -> None:
    code, _, errors = call(*words)
    assert (code, "which is a folder; name a folder" in errors and "standard output cannot hold" in errors) == (2, True)


def test_a_pack_is_replaced_when_forced(call: Call, top: Path) -> None:
    assert call("pack", "photos", "packed")[0] == 0
    code, _, errors = call("pack", "photos", "packed")
    assert (code, "already is a pack; remove it, name another folder, or pass --force" in errors) == (2, True)
    os.remove(top / "photos" / "red" / "0.png")
    code, out, _ = call("pack", "photos", "packed", "--force", "--json")
    assert (code, json.loads(out)["photos"]) == (0, {"train": 5})
    assert {each.name for each in top.iterdir()} == {"m", "photos", "drawn", "r.yaml", "home", "packed"}
    assert call("pack", "packed", "packed", "--force")[0] == 2
    (top / "link").symlink_to("packed")
    assert call("pack", "link", "packed", "--force")[0] == 2
    (top / "packed" / "notes.txt").write_text("mine")
    code, _, errors = call("pack", "photos", "packed", "--force")
    assert (code, "holds more than a pack, such as 'notes.txt'" in errors) == (2, True)
    assert call("pack", "photos", "photos", "--force")[0] == 2


def test_a_plugin_is_replaced_when_forced(call: Call, top: Path) -> None:
    words = ("new", "plugin", "birds", "--kind", "dataset")
    assert call(*words)[0] == 0
    (top / "finetune-birds" / "README.md").write_text("mine")
    (top / "finetune-birds" / "own.py").write_text("mine")
    assert call(*words)[0] == 2
    assert (top / "finetune-birds" / "README.md").read_text() == "mine"
    assert call(*words, "--force")[0] == 0
    assert (top / "finetune-birds" / "README.md").read_text() != "mine"
    assert (top / "finetune-birds" / "own.py").read_text() == "mine"
    assert not [path.name for path in top.iterdir() if path.name.startswith(".")]


@pytest.mark.once
def test_the_python_api_overwrites_nothing(top: Path) -> None:
    ft: Any = Finetuner.load(top / "m", progress=False)
    ft.export(top / "a.onnx")
    ft.export(top / "a.onnx")
    (top / "a.onnx").write_bytes(b"mine")
    with pytest.raises(UsageError, match="the file exists; choose another name or pass force=True"):
        ft.export(top / "a.onnx")
    ft.export(top / "a.onnx", force=True)
    ft.save(top / "copy")
    ft.save(top / "copy")
    (top / "copy" / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"README\.md': the file exists; choose another name or pass force=True"):
        ft.save(top / "copy")
    (top / "copy" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="copy is not empty; choose a new folder or pass force=True"):
        ft.save(top / "copy")
    ft.save(top / "copy", force=True)
    assert (top / "copy" / "notes.txt").read_text() == "mine"
    assert (top / "copy" / "README.md").read_bytes() == (top / "m" / "README.md").read_bytes()
    with pytest.raises(UsageError, match=READ):
        ft.save(top / "m", force=True)
