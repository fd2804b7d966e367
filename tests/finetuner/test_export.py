"""Exported files: what they answer, what they are compared with, and what is refused."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
import pytest

from finetune import Finetuner
from finetune.data.images import fit, read_image
from finetune.errors import FinetuneError
from tests.finetuner.small import tiny_finetuner

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("format", ["onnx", "mindir"])
def test_an_exported_graph_says_the_same(fitted: Finetuner, paths: list[Path], tmp_path: Path, format: str) -> None:
    file = tmp_path / "new" / f"flowers.{format}"
    report = fitted.export(file)
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, f"{file.name}.json"]
    assert report["largest_difference"] < 1e-4
    library = {"onnx": "onnxruntime", "mindir": "mindspore"}[format]
    assert report["compared"] == f"{library} {version(library)}"
    about = json.loads((file.parent / f"{file.name}.json").read_text())
    assert about["classes"] == ["blue", "green", "red"]
    assert fitted.run is not None
    exactly = Finetuner.load(fitted.run.folder, progress=False, inference={"precision": "fp32"})
    assert exactly.model is not None
    spec = exactly.model.image
    for path in paths[::9]:
        image = fit(read_image(path, spec), spec).astype(np.float32)[None] / 255.0
        found = RUN[format](file, np.ascontiguousarray(image.transpose(0, 3, 1, 2)))[0]
        expected = dict(exactly.predict([path])[0].top)
        assert np.allclose(found, [expected[name] for name in about["classes"]], atol=1e-4)


pytestmark = pytest.mark.once


def run_onnx(file: Path, images: np.ndarray) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_mindir(file: Path, images: np.ndarray) -> Any:
    import mindspore as ms

    return ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)).asnumpy()


RUN = {"onnx": run_onnx, "mindir": run_mindir}


# What the file is compared with


@pytest.fixture(scope="module")
def small(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuner:
    ft = tiny_finetuner(tmp_path_factory.mktemp("runs"), freeze="head")
    ft.fit(photos, epochs=1)
    return ft


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make libraries look as if they were not installed, to ``import`` and ``find_spec`` alike."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_without_onnxruntime_openvino_compares(
    small: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "onnxruntime")
    report = small.export(tmp_path / "a.onnx")
    assert report["compared"] == f"openvino {version('openvino').partition('-')[0]}"
    assert 0 <= report["largest_difference"] < 1e-4
    assert json.loads((tmp_path / "a.onnx.json").read_text())["compared"] == report["compared"]


def test_without_any_runtime_the_report_says_what_to_install(
    small: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "onnxruntime", "openvino")
    report = small.export(tmp_path / "a.onnx")
    assert report["largest_difference"] is None
    assert report["compared"] == (
        "no: onnxruntime is not installed; openvino is not installed; to compare, run: pip install onnxruntime"
    )
    assert (tmp_path / "a.onnx").stat().st_size > 0


def test_a_runtime_that_cannot_be_imported_leaves_it_to_the_next(
    small: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise AttributeError('_ARRAY_API not found')\n")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert small.export(tmp_path / "a.onnx")["compared"].startswith("openvino 20")
    hide(monkeypatch, "openvino")
    found = small.export(tmp_path / "b.onnx")["compared"]
    assert found.startswith("no: onnxruntime cannot be imported (_ARRAY_API not found); openvino is not installed;")


def with_other_weights(content: bytes, weight: np.ndarray, value: float) -> bytes:
    """Return an exported file in which one parameter has other values."""
    assert content.count(weight.tobytes()) == 1
    return content.replace(weight.tobytes(), np.full_like(weight, value).tobytes())


def change_written_files(monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]) -> None:
    """Change every file that MindSpore exports, as soon as it is written."""
    export = ms.export

    def changed(*args: Any, file_name: str, file_format: str) -> None:
        export(*args, file_name=file_name, file_format=file_format)
        file = Path(f"{file_name}.{file_format.lower()}")
        file.chmod(0o600)  # MindIR files are read-only
        file.write_bytes(change(file.read_bytes()))

    monkeypatch.setattr(ms, "export", changed)


@pytest.fixture(params=["onnxruntime", "openvino", "mindspore"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leave one library that can run the exported file, and return its name."""
    name: str = request.param
    if name == "openvino":
        hide(monkeypatch, "onnxruntime")
    return name


@pytest.mark.parametrize(("value", "differs"), [(5.0, r"0\.\d+"), (np.nan, "nan")])
def test_a_file_with_other_weights_is_refused(
    small: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, value: float, differs: str
) -> None:
    assert small.model is not None
    weight = small.model.network.head.fc.weight.asnumpy()
    weight_of_one_class = weight[1] if weight.shape[0] == 3 else weight[:, 1]
    change_written_files(
        monkeypatch, lambda content: with_other_weights(content, np.ascontiguousarray(weight_of_one_class), value)
    )
    file = tmp_path / ("a.mindir" if runtime == "mindspore" else "a.onnx")
    expected = rf"the exported graph, run with {runtime} \S+, differs from the network by {differs} in probability; "
    with pytest.raises(FinetuneError, match=f"{expected}nothing was written"):
        small.export(file)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_refused(
    small: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    change_written_files(monkeypatch, lambda content: content[:-50])
    file = tmp_path / ("a.mindir" if runtime == "mindspore" else "a.onnx")
    with pytest.raises(FinetuneError, match=rf"{runtime} \S+ cannot run the exported graph: .*\w; nothing was written"):
        small.export(file)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_ends_with_1_and_keeps_the_file_that_was_there(
    small: Finetuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "onnxruntime")
    small.export(tmp_path / "a.onnx")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    change_written_files(monkeypatch, lambda content: content[:-50])
    with pytest.raises(FinetuneError) as caught:
        small.export(tmp_path / "a.onnx")
    assert caught.value.exit_code == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
