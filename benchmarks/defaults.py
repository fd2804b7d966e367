"""Compare the two-line recipe with a logistic regression that is tuned out of fold on the same features.

    pip install examples/finetune-squeezenet
    python benchmarks/defaults.py --flowers PHOTOS --weights squeezenet1_1.safetensors [--seeds 1 2 3] [--tasks ...]

PHOTOS is Oxford 102 Flowers as a folder with train/, valid/ and test/. Each task is a subset of the training photos, or
of the drawn shapes; the test photos of its classes judge. In turn run `finetune run` with a dataset and a backbone as
all there is in the recipe, in a process and with a cache of its own, and scikit-learn's LogisticRegression on the same
features, standardised, its strength chosen by five-fold cross-validation. Printed are the test accuracies with their
95 % intervals (Wilson for one run, Student's t for the mean difference), what our run estimated out of fold, and the
seconds of our process next to those of computing the features. The table is followed by three bounds: on which tasks
the mean is more than half a point below the reference, on how many it is above, and which runs take longer than 1.3
times the features and 5 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine

from finetune.fitting.scores import compute_wilson

RECIPE = "seed: {seed}\nbackbone: {{use: {backbone}{weights}}}\ndataset: {dataset}\n"
CLASSES = 102
BELOW, FACTOR, SECONDS = 0.005, 1.3, 5.0  # the bounds


@dataclass(frozen=True, slots=True)
class Task:
    """A subset of the photos: how many of each class, None for all; without counts, the drawn shapes."""

    name: str
    counts: dict[int, int | None]

    def draw(self, seed: int, flowers: Path, folder: Path) -> str:
        """Put the images into train/ and test/, a folder for each class; return the dataset as in a recipe."""
        if not self.counts:
            draw_shapes(seed, folder)
            return f"{{use: shapes, seed: {seed}}}"
        link_photos(self, seed, flowers, folder)
        return f"{{use: folder, root: {folder / 'train'}}}"


def tasks() -> list[Task]:
    """Return the tasks, the quick ones first."""
    every = range(1, CLASSES + 1)
    common = (44, 51, 73, 77, 78, 82, 83, 89, 94, 98)
    decay = {label: max(3, round(40 * 0.7**place)) for place, label in enumerate(common)}
    return [
        Task("20 photos, 2 classes", {58: 10, 59: 10}),
        Task("60 photos, 6 classes", dict.fromkeys(range(11, 17), 10)),
        Task("10 classes of 20", dict.fromkeys(range(11, 21), 20)),
        Task("unbalanced, 10 classes, 40 to 3", decay),
        Task("unbalanced, 20 classes, 30 or 5", {label: 30 if label % 2 else 5 for label in range(71, 91)}),
        Task("2 of each class", dict.fromkeys(every, 2)),
        Task("5 of each class", dict.fromkeys(every, 5)),
        Task("10 of each class", dict.fromkeys(every, 10)),
        Task("shapes", {}),
        Task("all", dict.fromkeys(every, None)),
    ]


def main() -> None:
    """Run every task with every seed and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flowers", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbones", nargs="+", default=["squeezenet1_1", "resnext_nano"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", nargs="+", help="parts of their names")
    given = parser.parse_args()
    print(machine())
    print("| backbone | task | ours | logistic regression | difference (95 % interval) | estimate | s | features, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows: list[tuple[str, list[dict[str, Any]]]] = []
    for backbone in given.backbones:
        for task in tasks():
            if not given.tasks or any(part in task.name for part in given.tasks):
                found = [measure(task, backbone, seed, given) for seed in given.seeds]
                print(f"| {backbone} | {task.name} | {line(found)} |", flush=True)
                rows.append((f"{backbone}, {task.name}", found))
    print("\n".join(bounds(rows)))


def measure(task: Task, backbone: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return what the default run and the reference come to on one draw of a task."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset = task.draw(seed, given.flowers, folder)
        weights = f", weights: {given.weights.resolve()}" if backbone == "squeezenet1_1" else ""
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(seed=seed, backbone=backbone, weights=weights, dataset=dataset))
        began = time.perf_counter()
        result = finetune(folder, "run", str(recipe), "--output", str(folder / "runs"))
        seconds = time.perf_counter() - began
        judged = finetune(folder, "eval", result["run"], str(folder / "test"))
        reference = logistic(folder, backbone, given.weights, seed)
    return {
        "ours": judged["accuracy"],
        "ours_f1": judged["macro_f1"],
        **reference,
        "images": judged["images"],
        "estimate": result["validation"],
        "seconds": seconds,
        "features": result["features"]["seconds"],
    }


def draw_shapes(seed: int, folder: Path) -> None:
    """Write the drawn flowers of a seed."""
    from PIL import Image

    from finetune_plugins.shapes import Shapes, build

    for split in ("train", "test"):
        samples = build(Shapes(seed=seed), split)  # type: ignore[arg-type]
        assert samples is not None
        for index, label in enumerate(samples.labels):
            path = folder / split / samples.classes[label] / f"{index:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(samples.images[index])).save(path)


def link_photos(task: Task, seed: int, flowers: Path, folder: Path) -> None:
    """Link the photos of a task."""
    rng = np.random.default_rng(seed)
    for label, count in task.counts.items():
        photos = sorted((flowers / "train" / str(label)).glob("*.jpg"))
        chosen = photos if count is None else [photos[i] for i in sorted(rng.permutation(len(photos))[:count])]
        for split, each in (("train", chosen), ("test", sorted((flowers / "test" / str(label)).glob("*.jpg")))):
            (folder / split / str(label)).mkdir(parents=True)
            for photo in each:
                (folder / split / str(label) / photo.name).symlink_to(photo.resolve())


def finetune(home: Path, *words: str) -> dict[str, Any]:
    """Return what a command answers, in a process and with a cache of its own."""
    environment = {**os.environ, "FINETUNE_HOME": str(home / "home")}
    command = [sys.executable, "-m", "finetune", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def logistic(folder: Path, backbone: str, weights: Path, seed: int) -> dict[str, float]:
    """Return test accuracy and macro-F1 of scikit-learn's logistic regression, tuned out of fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from finetune import Finetuner

    own = {"weights": str(weights)} if backbone == "squeezenet1_1" else {}
    finetuner = Finetuner(backbone, progress=False, **own)
    parts = {}
    for split in ("train", "test"):
        photos = sorted((folder / split).glob("*/*.*"))
        parts[split] = finetuner.embed([str(photo) for photo in photos]), [photo.parent.name for photo in photos]
    (train, labels), (test, truth) = parts["train"], parts["test"]
    rarest = min(map(labels.count, {*labels}))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    if rarest > 1:
        folds = StratifiedKFold(min(5, rarest), shuffle=True, random_state=seed)
        grid = {"logisticregression__C": np.logspace(-4, 2, 7)}
        model = GridSearchCV(model, grid, cv=folds)
    predicted = model.fit(train, labels).predict(test)
    return {
        "reference": float(np.mean(predicted == np.array(truth))),
        "reference_f1": float(f1_score(truth, predicted, average="macro")),
    }


def reach(differences: list[float]) -> str:
    """Return the 95 % interval of a mean difference, by Student's t."""
    from scipy.stats import t

    error = statistics.stdev(differences) / len(differences) ** 0.5 * float(t.ppf(0.975, len(differences) - 1))
    mean = statistics.mean(differences)
    return f"{mean - error:+.3f} to {mean + error:+.3f}"


def bounds(rows: list[tuple[str, list[dict[str, Any]]]]) -> list[str]:
    """Return which tasks miss the bounds."""
    means = {name: statistics.mean(each["ours"] - each["reference"] for each in found) for name, found in rows}
    below = [f"{name} ({mean:+.4f})" for name, mean in means.items() if mean < -BELOW]
    slow = [
        f"{name} ({each['seconds']:.1f} s, features {each['features']:.1f} s)"
        for name, found in rows
        for each in found
        if each["seconds"] > FACTOR * each["features"] + SECONDS
    ]
    return [
        f"more than {BELOW:g} below the reference: {', '.join(below) or 'none'}",
        f"above the reference: {sum(mean > 0 for mean in means.values())} of {len(means)}",
        f"longer than {FACTOR:g} times the features and {SECONDS:g} s: {', '.join(slow) or 'none'}",
    ]


def line(found: list[dict[str, Any]]) -> str:
    """Return the cells of a task."""
    ours, other = ([each[name] for each in found] for name in ("ours", "reference"))
    low, high = compute_wilson(round(ours[0] * found[0]["images"]), found[0]["images"])
    differences = [a - b for a, b in zip(ours, other, strict=True)]
    spread = f" ({reach(differences)})" if len(found) > 1 else ""
    estimates = [each["estimate"] for each in found if "accuracy_low" in each["estimate"]]
    covered = sum(
        each["estimate"]["accuracy_low"] <= each["ours"] <= each["estimate"]["accuracy_high"]
        for each in found
        if "accuracy_low" in each["estimate"]
    )
    cells = [
        f"{statistics.mean(ours):.3f}, F1 {statistics.mean(each['ours_f1'] for each in found):.3f} "
        f"(first {low:.3f} to {high:.3f})",
        f"{statistics.mean(other):.3f}, F1 {statistics.mean(each['reference_f1'] for each in found):.3f}",
        f"{statistics.mean(differences):+.3f}{spread}",
        f"{covered} of {len(estimates)} cover the test" if estimates else "-",
        f"{statistics.median(each['seconds'] for each in found):.1f}",
        f"{statistics.median(each['features'] for each in found):.1f}",
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
