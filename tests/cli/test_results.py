"""Commands that say what a model learned: predict with decisions, eval with errors, explain, report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune import Finetuner
from finetune.cli import main
from tests.drawn import folder

SIZE = ("backbone.use=resnext_nano", "image.size=64", "image.resize=64")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photos, test photos with mistakes among them, and a finished run."""
    top = tmp_path_factory.mktemp("made")
    folder(top / "photos", each=20)
    folder(top / "test", each=6, seed=3)
    (top / "test/red/00.jpg").rename(top / "test/blue/wrong.jpg")
    (top / "r.yaml").write_text(f"dataset: {{use: folder, root: {top / 'photos'}}}\noutput: {top / 'runs'}\n")
    assert main(["run", str(top / "r.yaml"), *SIZE]) == 0
    return top


@pytest.fixture
def run(made: Path) -> str:
    return str(made / "runs" / "r-001")


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict_with_decisions(made: Path, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.effect_noise((64, 64), 200).convert("RGB").save(made / "noise.png")
    photos = [str(made / "noise.png"), str(made / "test/green/01.jpg")]
    found = answer(capsys, "predict", run, *photos, "--unknown", "0.05", "--coverage", "0.9")["predictions"]
    assert [each["unknown"] for each in found] == [True, False]
    assert found[0]["known_score"] < found[1]["known_score"]
    assert found[1]["labels"] == ["green"]
    assert "unknown" not in answer(capsys, "predict", run, *photos)["predictions"][0]
    assert main(["predict", run, *photos, "--unknown", "0.05"]) == 0
    said = capsys.readouterr().out
    assert "none of the classes (" in said.splitlines()[0]
    table = tmp_path / "t.csv"
    assert main(["predict", run, *photos, "--unknown", "0.05", "--coverage", "0.9", "--csv", str(table)]) == 0
    assert [(row["unknown"], row["labels"]) for row in read(table)][1] == ("false", "green")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--unknown", "0"], "unknown=0 must be between 0 and 1"),
        (["--coverage", "1.5"], "coverage=1.5 must be between 0 and 1"),
        (["--unknown", "0.001"], "unknown=0.001 needs at least 999 images"),
    ],
)
def test_shares_that_are_refused(
    made: Path, run: str, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", run, str(made / "test/red"), *words]) == 2
    assert text in capsys.readouterr().err


def test_eval_lists_the_mistakes(made: Path, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "errors.csv"
    found = answer(capsys, "eval", run, str(made / "test"), "--errors", str(table))
    rows = read(table)
    assert found["errors"] == str(table)
    assert list(rows[0]) == ["path", "label", "predicted", "probability", "own_probability", "second"]
    assert rows[0]["path"].endswith("blue/wrong.jpg")
    assert (rows[0]["label"], rows[0]["predicted"]) == ("blue", "red")
    wrong = sum(sum(row) for row in found["confusion"]) - sum(row[i] for i, row in enumerate(found["confusion"]))
    assert wrong == len(rows)
    low, high = found["accuracy_interval"]
    assert low < found["accuracy"] < high
    for each in found["per_class"]:
        assert each["recall_interval"][0] <= each["recall"] <= each["recall_interval"][1]
    assert sum(each["images"] for each in found["reliability"]) == found["images"]
    assert main(["eval", run, str(made / "test"), "--errors", str(table)]) == 0  # unchanged since it was written
    table.write_text("mine")
    assert main(["eval", run, str(made / "test"), "--errors", str(table)]) == 2
    assert main(["eval", run, str(made / "test"), "--errors", f"{run}/metrics.jsonl", "--force"]) == 2
    capsys.readouterr()
    assert main(["eval", run, str(made / "test"), "--errors", "-"]) == 0
    assert capsys.readouterr().out.startswith("path,label,predicted,")


def test_eval_prints_intervals(made: Path, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", run, str(made / "test")]) == 0
    said = capsys.readouterr().out
    assert "95 % interval 0." in said
    assert "temperature" not in said


def test_explain_writes_pictures(made: Path, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [str(made / f"test/{name}/02.jpg") for name in ("red", "blue")]
    found = answer(capsys, "explain", run, *photos, "--output", str(tmp_path / "maps"))["explanations"]
    assert [Path(each["file"]).name for each in found] == ["02.png", "02-2.png"]
    for each in found:
        with Image.open(each["file"]) as picture:
            assert picture.size == (64, 64)
    assert main(["explain", run, *photos, "--output", str(tmp_path / "maps")]) == 0  # its own files
    (tmp_path / "maps/02.png").write_bytes(b"mine")
    assert main(["explain", run, *photos, "--output", str(tmp_path / "maps")]) == 2
    assert main(["explain", run, photos[0], "--class", "gren"]) == 2
    assert "the model has no class 'gren'; did you mean 'green'" in capsys.readouterr().err


def test_explain_writes_into_the_run_by_default(made: Path, run: str) -> None:
    (made / "mixed").mkdir()
    (made / "mixed/a.jpg").write_bytes((made / "test/red/03.jpg").read_bytes())
    (made / "mixed/broken.jpg").write_bytes(b"no photo")
    assert main(["explain", run, str(made / "mixed")]) == 3
    assert [path.name for path in (Path(run) / "explanations").iterdir()] == ["a.png"]


def test_predictions_of_a_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"dataset: {{use: folder, root: {made / 'photos'}, split: 0.3}}\noutput: {made / 'runs'}\n"
    (made / "v.yaml").write_text(data)
    assert main(["run", str(made / "v.yaml"), *SIZE, "validate.folds=off"]) == 0
    top = made / "runs/v-001"
    rows = read(top / "predictions.csv")
    assert {row["split"] for row in rows} == {"valid"}
    held = [row for row in read(top / "split.csv") if row["split"] == "valid"]
    assert [(row["path"], row["label"], row["hash"]) for row in rows] == [
        (row["path"], row["label"], row["hash"]) for row in held
    ]
    accuracy = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    result = json.loads((top / "result.json").read_text())
    assert accuracy == pytest.approx(result["validation"]["accuracy"])
    assert all(row["second"] not in ("", row["predicted"]) for row in rows)


def test_an_export_has_the_temperature(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ft = Finetuner.load(made / "runs/r-001", progress=False)
    assert ft.model is not None
    report = ft.export(tmp_path / "plain.onnx")
    assert (report["temperature"], report["calibrated"]) == (1.0, True)
    ft.model.about["calibration"]["temperature"] = 3.0
    report = ft.export(tmp_path / "warm.onnx")
    assert report["temperature"] == 3.0
    onnxruntime = pytest.importorskip("onnxruntime")
    sample = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    cold, warm = (run_exported(onnxruntime, tmp_path / name, sample) for name in ("plain.onnx", "warm.onnx"))
    expected = cold ** (1 / 3) / (cold ** (1 / 3)).sum()
    np.testing.assert_allclose(warm, expected, atol=1e-5)


def run_exported(onnxruntime: Any, path: Path, sample: Any) -> Any:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: sample})[0]
