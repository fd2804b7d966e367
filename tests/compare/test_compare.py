"""Comparison of runs: what differs, which one is better, and which runs cannot be compared."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import UsageError
from finetune.cli import main
from finetune.compare.compare import compare_runs, describe_verdict
from finetune.compare.runs import flatten_values, read_run
from finetune.model.predictions import HEADER
from finetune.report.comparison import render_comparison

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("ant", "bee", "cow")
RECIPE = "name: {name}\noptimizer: {{use: adamw, lr: {lr}}}\ncallbacks:\n  - {{use: checkpoint, every: {every}}}\n"
LABELS = np.random.default_rng(0).integers(0, 3, 400)


def write_run(
    folder: Path,
    right: float,
    *,
    seed: int = 0,
    lr: float = 0.1,
    split: str = "test",
    labels: np.ndarray = LABELS,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """Write the files of a finished run that is right about this share of the images."""
    (folder / "model").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=folder.name, lr=lr, every=seed + 1))
    (folder / "result.json").write_text("{}")
    about = {"name": "x", "backbone": {"use": "x", "options": {}}, "head": {"use": "linear"}, "features": 8}
    image = {"size": 8, "resize": 8, "keep_aspect": True, "mean": [0.5] * 3, "std": [0.5] * 3, "background": [0] * 3}
    more = {"classes": list(classes), "image": image, "metrics": {}, "recipe": {}}
    (folder / "model" / "model.json").write_text(json.dumps({**about, **more}))
    hard = np.random.default_rng(9).random(len(labels))
    noise = np.random.default_rng(seed).normal(0, 0.05, len(labels))
    predicted = np.where(hard + noise < right, labels, (labels + 1) % len(classes))
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number, (label, guess) in enumerate(zip(labels, predicted, strict=True)):
            own = 0.8 if label == guess else 0.1
            writer.writerow([f"{number}.jpg", split, classes[label], classes[guess], 0.8, own, "", f"h{number}"])
    return folder


def compare(*folders: Path) -> dict[str, Any]:
    return compare_runs([read_run(folder) for folder in folders])


def test_a_clear_difference_is_told(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", 0.7), write_run(tmp_path / "b", 0.85, seed=1, lr=0.2))
    assert (found["split"], found["images"]) == ("test", 400)
    (pair,) = found["pairs"]
    assert pair["better"] == "yes"
    assert pair["low"] < 0.15 < pair["high"]
    assert pair["difference"] == pytest.approx(found["runs"][1]["accuracy"] - found["runs"][0]["accuracy"])
    assert len(pair["changed"]) == pair["only_first"] + pair["only_second"]
    assert found["recipe"] == {"optimizer.lr": [0.1, 0.2], "callbacks[0].every": [1, 2]}
    (back,) = compare(tmp_path / "b", tmp_path / "a")["pairs"]
    assert (back["better"], back["difference"]) == ("no", -pair["difference"])
    assert describe_verdict(back, 400).startswith("no, the first one is: -")


def test_a_small_difference_cannot_be_told(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", 0.80), write_run(tmp_path / "b", 0.81, seed=1))
    (pair,) = found["pairs"]
    assert pair["better"] == "cannot be told"
    assert describe_verdict(pair, 400).startswith("cannot be told with 400 images: ")


def test_equal_predictions(tmp_path: Path) -> None:
    (pair,) = compare(write_run(tmp_path / "a", 0.8), write_run(tmp_path / "b", 0.8))["pairs"]
    assert (pair["better"], pair["changed"], pair["p_value"]) == ("cannot be told", [], 1.0)


def test_several_runs_are_compared_in_pairs(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / name, right, seed=seed)
        for seed, (name, right) in enumerate(zip("abc", (0.6, 0.7, 0.9), strict=True))
    ]
    found = compare(*folders)
    assert len(found["pairs"]) == 3
    assert all(pair["adjusted_p_value"] >= pair["p_value"] for pair in found["pairs"])
    assert [pair["better"] for pair in found["pairs"]] == ["yes", "yes", "yes"]


def test_images_in_another_order_are_aligned(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", 0.8), write_run(tmp_path / "b", 0.8)
    head, *lines = (second / "predictions.csv").read_text().splitlines()
    (second / "predictions.csv").write_text("\n".join([head, *reversed(lines)]) + "\n")
    assert compare(first, second)["pairs"][0]["changed"] == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"labels": LABELS[:-5]}, r"the test images of .* differ \(400 and 395; 395 are the same\)"),
        ({"labels": (LABELS + 1) % 3}, "have different labels"),
        ({"classes": ("ant", "bee", "dog")}, r"different classes \(cow, dog\); compare runs with the same classes"),
        ({"split": "valid"}, "differ"),
    ],
)
def test_runs_that_cannot_be_compared(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=f"these runs cannot be compared: .*{reason}"):
        compare(write_run(tmp_path / "a", 0.8), write_run(tmp_path / "b", 0.8, **more))


def test_folders_that_are_no_finished_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.8)
    with pytest.raises(UsageError, match="this is not a run; name the folder of a run"):
        read_run(tmp_path)
    (run / "predictions.csv").write_text("a,b\n")
    with pytest.raises(UsageError, match="cannot be read: unexpected header"):
        read_run(run)
    (run / "predictions.csv").unlink()
    with pytest.raises(UsageError, match="it is from an earlier release"):
        read_run(run)
    (run / "result.json").unlink()
    with pytest.raises(UsageError, match="the run is not finished; finish it with: finetune run --resume"):
        read_run(run)
    with pytest.raises(UsageError, match="needs at least two runs"):
        compare_runs([])


def test_the_command_prints_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    runs = [str(write_run(tmp_path / "a", 0.7)), str(write_run(tmp_path / "b", 0.9, lr=0.2))]
    page = tmp_path / "compare.html"
    assert main(["compare", *runs, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert f"is {runs[1]} better than {runs[0]}? yes: +" in " ".join(said.split())
    assert "optimizer.lr" in said
    text = page.read_text()
    assert "Is " in text
    assert "<b>yes: +" in text
    assert main(["compare", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"][0]["better"] == "yes"
    assert main(["compare", runs[0]]) == 2


def test_a_page_escapes_names(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    found = compare(
        write_run(tmp_path / "a", 0.7, classes=(bad, "b", "c")), write_run(tmp_path / "b", 0.9, classes=(bad, "b", "c"))
    )
    page = render_comparison(found, ["yes"])
    assert bad not in page
    assert "&lt;script&gt;alert(1)" in page


def test_lists_of_sections_are_numbered() -> None:
    assert flatten_values({"a": [{"b": 1}, {"b": 2}], "c": [1, 2], "d": {"e": None}}) == {
        "a[0].b": 1,
        "a[1].b": 2,
        "c": [1, 2],
        "d.e": None,
    }


def test_secrets_are_masked(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 0.8) for name in "ab"]
    for number, run in enumerate(runs):
        with (run / "recipe.yaml").open("a") as file:
            file.write(f"dataset: {{use: x, url: 'https://me:secret{number}@host/a'}}\n")
    found = compare(*runs)["recipe"]
    assert "secret" not in json.dumps(found)
    assert found["dataset.url"] == ["https://***@host/a"] * 2
