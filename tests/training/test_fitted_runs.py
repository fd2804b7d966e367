"""A run in which nothing is chosen: the head is fitted, no image is held back, and every choice is recorded."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cli.calling import answer, call_in_process
from tests.drawn import COLOURS, folder
from tests.training import nano

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

FOLDS = "each image is scored by a head that was fitted without its fold"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> nano.Made:
    return nano.run(nano.recipe(photos, tmp_path_factory.mktemp("runs")))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def values(node: Any) -> list[Any]:
    """Return all values in a recipe, without its sections."""
    if isinstance(node, dict):
        return [each for value in node.values() for each in values(value)]
    return [each for value in node for each in values(value)] if isinstance(node, list) else [node]


def wilson(hits: float, count: float) -> tuple[float, float]:
    z, share = 1.959964, hits / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def test_its_choices_are_reported(made: nano.Made) -> None:
    assert made.said[0] == "head.start=auto chose fitted: the backbone is pretrained and its features are cached"
    assert "head.views=auto chose 4: augmented views help a head most when there are few images" in made.said
    assert [line for line in made.said if line.startswith(("validate.", "train."))] == [
        f"validate.folds=auto chose 5: {FOLDS}",
        "train.epochs=auto chose 0: only the head trains, and it is fitted to its optimum",
    ]
    assert "fitting the head to 36 training images in 5 views" in made.said
    assert not [line for line in made.said if "batch_size" in line or "optimizer.lr" in line]


def test_its_recipe_says_what_was_chosen(made: nano.Made) -> None:
    said = yaml.safe_load((made.run.folder / "recipe.yaml").read_text())
    assert (said["head"]["start"], said["validate"]["folds"], said["evaluate"]["metric"]) == ("fitted", 5, "loss")
    assert (said["train"]["epochs"], said["train"]["batch_size"], said["optimizer"]["lr"]) == (0, 8, 1e-3)
    assert said["loss"]["class_weights"] == "none"
    settled = {name: said[name] for name in ("head", "loss", "optimizer", "schedule", "train", "validate", "evaluate")}
    assert not {"auto", "measured"} & {*map(str, values(settled))}


def test_no_image_is_held_back(made: nano.Made) -> None:
    about = json.loads((made.run.folder / "data.json").read_text())
    assert about["split"] == {"method": "folds", "folds": 5, "seed": 42}
    assert about["images"] == {"train": 36}
    assert {row["split"] for row in rows(made.run.folder / "split.csv")} == {"train"}
    assert made.run.images == {"train": 36}


def test_each_image_is_judged_out_of_fold(made: nano.Made, photos: Path) -> None:
    judged = rows(made.run.folder / "out_of_fold.csv")
    assert sorted(row["path"] for row in judged) == sorted(map(str, photos.rglob("*.jpg")))
    assert {(row["label"], row["fold"]) for row in judged} == {
        (name, str(fold)) for name in COLOURS for fold in range(5)
    }
    assert all(row["path"].split("/")[-2] == row["label"] for row in judged)
    hits = sum(row["label"] == row["predicted"] for row in judged)
    low, high = wilson(hits / 4, 36 / 4)  # photos in series, and folds that share images, say less
    assert made.result["validation"] == {
        "method": "folds",
        "folds": 5,
        "images": 36,
        "accuracy": pytest.approx(hits / 36, abs=1e-6),
        "accuracy_low": pytest.approx(low, abs=1e-6),
        "accuracy_high": pytest.approx(high, abs=1e-6),
    }
    loss = -sum(math.log(float(row["own_probability"])) for row in judged) / 36
    assert made.run.history[0]["val_loss"] == pytest.approx(loss, rel=0.02)


def test_its_history_is_one_line(made: nano.Made) -> None:
    (line,) = map(json.loads, (made.run.folder / "metrics.jsonl").read_text().splitlines())
    assert (line["epoch"], line["phase"], line["trainable"], line["lr"]) == (0, 0, ["head"], 0.0)
    assert {"train_loss", "val_loss", "val_accuracy", "val_macro_f1"} < {*line}
    assert line["train_loss"] < line["val_loss"]
    result = json.loads((made.run.folder / "result.json").read_text())
    assert (result["epochs"], result["planned_epochs"], result["warnings"]) == (0, 0, [])
    assert result["best"] == {"epoch": 0, "val_loss": line["val_loss"], "val_accuracy": line["val_accuracy"]}
    assert result["fitted"]["folds"] == 5


def test_the_same_recipe_gives_the_same_bytes(made: nano.Made, photos: Path, tmp_path: Path) -> None:
    assert nano.run(nano.recipe(photos, tmp_path)).weights == made.weights
    again = nano.run(made.run.folder / "recipe.yaml")
    assert again.weights == made.weights
    assert again.result["validation"] == made.result["validation"]
    assert (again.run.folder / "recipe.yaml").read_text() == (made.run.folder / "recipe.yaml").read_text()
    assert not [line for line in again.said if "=auto chose" in line or "no effect" in line]


def test_evaluating_it_repeats_the_estimate(made: nano.Made, photos: Path) -> None:
    found = answer(call_in_process("eval", made.run.folder, "--json"))
    assert (found["part"], found["images"], found["held_back"], found["trained_on"]) == ("out of fold", 36, True, 0)
    assert found["accuracy"] == pytest.approx(made.result["validation"]["accuracy"], abs=1e-6)
    text = call_in_process("eval", made.run.folder).stdout
    assert "part      training images, each labelled by a head that was fitted without it\n" in text
    assert "trained on" not in text
    assert call_in_process("eval", made.run.folder, photos).stdout == text


def test_it_is_finished(made: nano.Made) -> None:
    done = call_in_process("run", "--resume", made.run.folder)
    assert (done.returncode, "nothing to do" in done.stderr) == (0, True)
    assert "finished  the head is fitted, in " in done.stdout
    assert "best      the fitted head, val loss " in done.stdout
    assert "36 images, out of fold)" in done.stdout


def test_it_is_finished_for_the_recipe_that_it_was_made_from(made: nano.Made, photos: Path, tmp_path: Path) -> None:
    """What the recipe leaves open is what the run has chosen, as the preset of the augmentation."""
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(nano.recipe(photos, made.run.folder.parent)))
    done = call_in_process("run", file, "--resume", made.run.folder)
    assert (done.returncode, "nothing to do" in done.stderr) == (0, True), done.stderr


def test_checking_it_says_that_the_head_is_fitted(made: nano.Made) -> None:
    text = call_in_process("check", made.run.folder / "recipe.yaml").stdout
    assert "phase 0        the head is fitted to its optimum, 1,539 parameters\n" in text
    assert "features 0     after layer4: train 0.0 MB\n" in text
    assert not [line for line in text.splitlines() if line.startswith(("phase 1", "steps"))]
    both = call_in_process("check", made.run.folder / "recipe.yaml", "train.epochs=2", "validate.folds=off").stdout
    assert "phase 0        the head is fitted to its optimum, 1,539 parameters\n" in both
    assert "phase 1        epochs 1 to 2: head train, 1,539 parameters\n" in both
    assert "steps          4 of 8 images in an epoch, 8 in all\n" in both


def test_keys_of_training_have_no_effect_and_that_is_said(photos: Path, tmp_path: Path, made: nano.Made) -> None:
    more = {"optimizer": {"lr": 0.1}, "schedule": {"warmup_epochs": 2}, "train": {"clip_norm": 1.0, "epochs": 0}}
    other = nano.run(nano.recipe(photos, tmp_path, **more))
    (line,) = [line for line in other.said if "no effect" in line]
    assert line == (
        "optimizer.lr, schedule.warmup_epochs, train.clip_norm: no effect, because nothing trains after the head is "
        "fitted; set train.epochs, or remove them"
    )
    assert other.weights == made.weights
