"""From a recipe to labels, on the command line alone."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from finetune import DataError, Finetuner
from tests.cli.calling import RECIPE, Finetune, answer, call_in_process, command, environment
from tests.clocks import LONGEST
from tests.drawn import COLOURS

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def model(trained: Done) -> str:
    """Return the finished run's folder, as a user names it."""
    assert trained.returncode == 0, trained.stderr
    return answer(trained)["run"]


def test_a_run_answers_with_its_result(trained: Done, project: Path, model: str) -> None:
    assert trained.stdout.count("\n") == 1
    assert answer(trained) == json.loads((project / "runs" / "small-001" / "result.json").read_text())
    assert Path(model) == project / "runs" / "small-001"


def test_a_run_is_told_in_plain_lines(trained: Done) -> None:
    lines = trained.stderr.splitlines()
    assert lines[0] == "small"
    assert any(line.split() == ["images", "18", "training,", "6", "validation;", "3", "classes"] for line in lines), (
        lines
    )
    assert "phase 1, from epoch 1: training head; frozen: stem, layer1, layer2, layer3, layer4" in lines
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == [
        "epoch 1/2, phase 1, head",
        "epoch 2/2, phase 2, all",
    ]
    assert "\x1b" not in trained.stderr
    assert "\r" not in trained.stderr


def test_a_finished_run_has_nothing_to_do(trained: Done, project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (project / "runs" / "small-001").rglob("*")}
    for arguments in (["--resume", "runs/small-001"], ["small.yaml", "--resume", "auto"]):
        done = call_in_process("run", *arguments, cwd=project)
        assert done.returncode == 0
        assert "nothing to do" in done.stderr
        assert "finetune predict runs/small-001 photo.jpg" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (project / "runs" / "small-001").rglob("*")} == before


def test_auto_refuses_another_recipe(trained: Done, project: Path) -> None:
    done = call_in_process("run", "small.yaml", "optimizer.lr=0.1", "train.epochs=3", "--resume", "auto", cwd=project)
    assert done.returncode == 2
    assert "  optimizer.lr: 0.003 → 0.1\n  train.epochs: 2 → 3\nremove --resume to start a new run\n" in done.stderr
    assert "--allow-changed" in done.stderr
    assert done.stdout == ""


def test_what_has_no_effect_is_noted(project: Path) -> None:
    done = call_in_process("check", "small.yaml", "train.epochs=1", "--json", cwd=project)
    note = "freeze.schedule.2: comes after the last epoch; raise train.epochs, which is 1, or remove the entry"
    assert answer(done)["notes"] == [f"small.yaml:5:44: {note}"]
    assert f"small.yaml:5:44: {note}" in done.stderr.splitlines()


def test_looking_first_writes_nothing(project: Path) -> None:
    done = call_in_process("run", "small.yaml", "--dry-run", "--output", "elsewhere", "--json", cwd=project)
    report = answer(done)
    assert (done.returncode, report["data"]["images"], report["steps"]) == (0, {"train": 18, "valid": 6}, 6)
    text = call_in_process("check", "small.yaml", "output=elsewhere", cwd=project).stdout
    assert "epochs 2 to 2: stem, layer1, layer2, layer3, layer4, head train" in text
    assert not (project / "elsewhere").exists()


def test_looking_first_at_a_run_to_resume_says_what_forbids_it(trained: Done, project: Path) -> None:
    words = ("run", "small.yaml", "--resume", "runs/small-001", "--dry-run")
    refused = call_in_process(*words, "seed=7", cwd=project)
    assert refused.returncode == 2
    assert "  seed: 42 → 7\n" in refused.stderr
    extended = call_in_process(*words, "--extend", "3", "--json", cwd=project)
    assert answer(extended)["phases"][-1]["epochs"] == [2, 5]
    assert "nothing to do" in call_in_process(*words, cwd=project).stderr


def test_a_recipe_from_standard_input(finetune: Finetune, project: Path) -> None:
    done = finetune("check", "-", "train.epochs=7", "--json", cwd=project, stdin=RECIPE)
    assert answer(done)["phases"][-1]["epochs"] == [2, 7]


def test_predict(project: Path, model: str) -> None:
    done = call_in_process(
        "predict", model, "photos", "photos/red/00.jpg", "--top", "2", "--csv", "labels.csv", cwd=project
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 2 * 25
    assert [line[2] for line in lines[::2]][-2:] == ["photos/red/07.jpg", "photos/red/00.jpg"]
    with (project / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "probability", "label_2", "probability_2"]
    assert [(row["path"], row["label"]) for row in rows] == [(line[2], line[1]) for line in lines[::2]]
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows)


def test_predict_labels_all_that_can_be_read(project: Path, model: str, tmp_path: Path) -> None:
    for name in ("a", "c"):
        (tmp_path / f"{name}.jpg").write_bytes((project / "photos" / "red" / "00.jpg").read_bytes())
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    table = tmp_path / "labels.csv"
    done = call_in_process("predict", model, tmp_path, "--csv", table)
    assert done.returncode == 3
    assert [Path(line.split()[2]).name for line in done.stdout.splitlines()] == ["a.jpg", "c.jpg"]
    assert "error: 1 of 3 photos could not be labelled; repair or remove them\n" in done.stderr
    assert f"'{tmp_path / 'b.jpg'}' is not an image" in done.stderr
    assert len(table.read_text().splitlines()) == 3
    found = json.loads(call_in_process("predict", model, tmp_path, "--json").stdout)
    assert len(found["predictions"]) == 2
    assert found["error"]["exit_code"] == 3
    with pytest.raises(DataError, match="is not an image"):
        Finetuner.load(project / model).predict([tmp_path / "a.jpg", tmp_path / "b.jpg"])


def test_predict_for_programs(project: Path, model: str) -> None:
    found = answer(
        call_in_process("predict", f"{model}/model", "photos/red/00.jpg", "--json", "--top", "3", cwd=project)
    )
    (only,) = found["predictions"]
    assert only["path"] == "photos/red/00.jpg"
    assert {each["label"] for each in only["top"]} == set(COLOURS)
    assert only["top"][0] == {"label": only["label"], "probability": only["probability"]}


def test_names_of_photos_cannot_steer_the_terminal(
    finetune: Finetune, project: Path, model: str, tmp_path: Path
) -> None:
    strange = tmp_path / "a\x1b[2J\nb\udcff.jpg"
    strange.write_bytes((project / "photos" / "red" / "00.jpg").read_bytes())
    (tmp_path / ".hidden.jpg").touch()
    done = finetune("predict", model, tmp_path)
    assert done.stdout.splitlines()[0].endswith("/a\\x1b[2J\\nb\\udcff.jpg") or "\\x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_eval(project: Path, model: str) -> None:
    found = answer(call_in_process("eval", model, "--json", cwd=project))
    assert [found[key] for key in ("part", "images", "held_back", "trained_on", "skipped")] == ["valid", 6, True, 0, 18]
    assert {each["class"] for each in found["per_class"]} == set(COLOURS)
    text = call_in_process("eval", model, "photos", cwd=project).stdout
    assert "part        validation images, held back from training" in text
    assert "trained on  0 of these images" in text
    assert f"accuracy    {found['accuracy']:.4f}" in text


def test_eval_says_how_many_photos_were_trained_on(project: Path, model: str, tmp_path: Path) -> None:
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for number in ("00", "06"):
            (tmp_path / name / f"{number}.jpg").write_bytes((project / "photos" / name / f"{number}.jpg").read_bytes())
    done = call_in_process("eval", model, tmp_path)
    assert "trained on  3 of these images" in done.stdout
    assert "warning: the run was trained on 3 of the 6 images; expect worse metrics on new images" in done.stderr


def test_export(model: str, tmp_path: Path) -> None:
    done = call_in_process("export", model, "--format", "onnx", "--output", tmp_path / "x.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert answer(done)["file"] == str(tmp_path / "x.onnx")
    assert answer(done)["compared"].startswith(("onnxruntime 1.", "openvino 20"))
    assert (tmp_path / "x.onnx").stat().st_size > 1000


def test_an_unfinished_run_is_no_model(project: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    done = call_in_process("predict", tmp_path, "photos", cwd=project)
    assert done.returncode == 2
    assert "is not finished" in done.stderr


def test_terminate_then_resume(repo: Path, project: Path, tmp_path: Path) -> None:
    arguments = ("run", "small.yaml", "train.epochs=15", "name=stopped", "--output", tmp_path, "--json")
    with subprocess.Popen(
        command(*arguments),
        cwd=project,
        env=environment(repo),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while not process.stderr.readline().startswith("epoch 1/15"):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 143, err
    assert json.loads(out)["error"]["exit_code"] == 143
    assert f"resume with: finetune run --resume {tmp_path}/stopped-001" in err
    done = call_in_process(*arguments, "--resume", "auto", cwd=project)
    assert done.returncode == 0, done.stderr
    assert answer(done)["epochs"] == 15
    assert f"resuming {tmp_path}/stopped-001" in done.stderr


def test_check_tells_what_is_wrong_with_weights_and_photos_at_once(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(
        "backbone: {use: resnext_nano, weights: gone.ckpt}\ndataset: {use: folder, root: nowhere}\n"
    )
    done = call_in_process("check", "n.yaml", cwd=tmp_path)
    assert done.returncode == 4
    assert f"no weights file at '{tmp_path / 'gone.ckpt'}'" in done.stderr
    assert f"no folder '{tmp_path / 'nowhere'}'" in done.stderr
