"""Kill a run again and again, go on each time, and compare what comes out with a run that nobody disturbs.

    python -m tests.faults.crash [--kills 100] [--seed 0]                     a small network, three phases
    python -m tests.faults.crash --resnext PHOTOS [--kills 10] [--seed 0]     ResNeXt-50 at 64 px

Each process is told where to kill itself with SIGKILL: before or after a file reaches the disk, in a step, in an
evaluation, while features are written, or after some milliseconds. Places and counts are drawn from the seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.source import find_newest_run as newest_run
from finetune.training import saving
from tests.features import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

# How often each place is drawn, and the largest count of times that a process may pass it before it dies there.
PLACES = {
    "fsync": (6, 12),
    "replace": (6, 12),
    "linked": (2, 2),
    "step": (3, 8),
    "first step": (2, 1),
    "epoch end": (3, 2),
    "evaluation": (3, 2),
    "features": (3, 3),
    "time": (2, 6000),
}


LATEST = 20.0  # seconds after which a process dies that has not reached its place


def passing(owner: Any, name: str, at: int, *, after: bool = False) -> None:
    """Let this process die before, or right after, a function is called for the ``at``-th time."""
    function: Callable[..., Any] = getattr(owner, name)
    count = [0]

    def counted(*arguments: Any, **more: Any) -> Any:
        count[0] += 1
        if count[0] == at and not after:
            die()
        found = function(*arguments, **more)
        if count[0] == at:
            die()
        return found

    setattr(owner, name, counted)


def die() -> None:
    """Kill this process as the kernel kills one that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def armed(place: str, at: int) -> None:
    """Let this process die at a place."""
    from finetune.features.store import Table
    from finetune.model.evaluation import Predictor
    from finetune.training.trainer import Trainer
    from finetune.training.training_run import TrainingRun

    if place == "fsync":
        passing(os, "fsync", at)
    elif place == "replace":
        passing(os, "replace", at, after=True)
    elif place == "linked":
        passing(saving, "link_best", at)
    elif place in ("step", "first step"):
        passing(Trainer, "step", at, after=place == "step")
    elif place == "epoch end":
        passing(TrainingRun, "end_epoch", at, after=True)
    elif place == "evaluation":
        passing(Predictor, "evaluate", at)
    elif place == "features":
        passing(Table, "seal", at)
    elif place == "time":
        killed_after(at / 1000)
    if place:
        killed_after(LATEST)


def killed_after(seconds: float) -> None:
    """Let this process die after a time, if it still runs."""
    timer = threading.Timer(seconds, die)
    timer.daemon = True
    timer.start()


def recipe(photos: Path, output: Path, epochs: int = 60) -> dict[str, Any]:
    """Return three phases with everything that has state: moving average, dropout, early stopping, accumulation."""
    third = epochs // 3
    return tiny.recipe(
        photos,
        output,
        head={"use": "linear", "dropout": 0.2},
        freeze={"use": "gradual", "schedule": {1: "head", 1 + third: "neck", 1 + 2 * third: "all"}},
        train={"epochs": epochs, "batch_size": 4, "accumulate": 2, "ema": 0.9},
        callbacks=[{"use": "checkpoint", "every": "2 steps"}, {"use": "early_stopping", "patience": epochs}],
        runner={"mode": "pynative"},
    )


def resnext(photos: Path, output: Path) -> dict[str, Any]:
    """Return ResNeXt-50 at 64 px from a random start, in three phases."""
    return {
        "name": "small",
        "output": str(output),
        "backbone": {"use": "resnext50", "weights": "none"},
        "dataset": {"use": "folder", "root": str(photos)},
        "image": {"size": 64, "resize": 72},
        "freeze": {"use": "gradual", "schedule": {1: "head", 2: "layer4", 3: "all"}},
        "optimizer": {"use": "sgd", "lr": 1e-3},
        "train": {"epochs": 3, "batch_size": 8},
        "cache": {"views": 2},
        "callbacks": [{"use": "checkpoint", "every": "1 epoch"}],
    }


def child(file: Path, place: str, at: int) -> None:
    """Go on with the newest run of a recipe, or begin one, and die where told."""
    said = json.loads(file.read_text(encoding="utf-8"))
    armed(place, at)
    folder = newest_run(Path(said["output"]), said["name"])
    made = tiny.run(said, resume=folder)
    print(json.dumps({"folder": str(made.run.folder), "said": made.said}))


@dataclass
class Outcome:
    """What a run was in the end: how often it was killed, and what every process of it said."""

    folder: Path | None = None
    kills: dict[str, int] = field(default_factory=dict)
    unread: int = 0


def crashed(said: dict[str, Any], top: Path, kills: int, seed: int, most: float = 300.0) -> Outcome:
    """Run a recipe to its end, killed ``kills`` times on the way, or less often if it is through before."""
    rng, outcome = random.Random(seed), Outcome()
    file = top / "recipe.json"
    file.write_text(json.dumps(said))
    while outcome.folder is None:
        place, at = "", 0
        if sum(outcome.kills.values()) < kills:
            place = rng.choices(list(PLACES), [weight for weight, _ in PLACES.values()])[0]
            at = rng.randint(1, PLACES[place][1])
        command = [sys.executable, "-m", "tests.faults.crash", "--child", str(file), "--place", place, "--at", str(at)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=most, check=False)
        outcome.unread += done.stdout.count("not used:")
        if done.returncode == -signal.SIGKILL:
            outcome.kills[place] = outcome.kills.get(place, 0) + 1
        elif done.returncode:
            raise AssertionError(f"ended with {done.returncode} after {outcome.kills}: {done.stderr[-2000:]}")
        else:
            answer = json.loads(done.stdout.splitlines()[-1])
            outcome.unread += sum("not used:" in message for message in answer["said"])
            outcome.folder = Path(answer["folder"])
    return outcome


def differences(folder: Path, other: Path) -> list[str]:
    """Return in what two finished runs differ, byte for byte; times are none of it."""
    found = []
    (one, _), (two, _) = (saving.load_newest(each / "checkpoints") for each in (folder, other))
    if {*one.arrays} != {*two.arrays}:
        found.append("names of arrays")
    found += [name for name in one.arrays if one.arrays[name].tobytes() != two.arrays[name].tobytes()]
    weights = "model/weights.safetensors"
    if (folder / weights).read_bytes() != (other / weights).read_bytes():
        found.append(weights)
    if lines(folder) != lines(other):
        found.append("metrics.jsonl")
    return found


def lines(folder: Path) -> list[str]:
    """Return the lines of a run's history without times, as they stand in the file."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.dumps({k: v for k, v in json.loads(line).items() if k not in tiny.TIMES}) for line in text]


def leftovers(*folders: Path) -> list[Path]:
    """Return temporary files that nobody swept."""
    return [path for folder in folders for path in folder.rglob(".*.tmp")]


def compared(said: dict[str, Any], top: Path, kills: int, seed: int, plain: Path) -> tuple[int, list[str]]:
    """Run a killed recipe to its end; return how often it was killed, and all in which it is not the plain run."""
    killed = crashed(said, top, kills, seed)
    assert killed.folder is not None
    wrong = differences(plain, killed.folder)
    wrong += [f"{killed.unread} unreadable checkpoints"] if killed.unread else []
    wrong += map(str, leftovers(killed.folder, top / "home"))
    where = ", ".join(f"{place} {count}" for place, count in sorted(killed.kills.items()))
    count = sum(killed.kills.values())
    print(
        f"{count} kills ({where}): {'DIFFERENT: ' + ', '.join(wrong[:10]) if wrong else 'the same bytes'}", flush=True
    )
    return count, wrong


def repeated(said: Callable[[Path, Path], dict[str, Any]], photos: Path, top: Path, kills: int, seed: int) -> list[str]:
    """Run a recipe undisturbed, and as often as it takes with ``kills`` in all; return all that is wrong."""
    wrong: list[str] = []

    def place(name: str) -> tuple[dict[str, Any], Path]:
        (top / name).mkdir()
        os.environ["FINETUNE_HOME"] = str(top / name / "home")
        return said(photos, top / name / "runs"), top / name

    plain = crashed(*place("undisturbed"), 0, seed).folder
    assert plain is not None
    left = kills
    while left > 0 and not wrong:
        count, wrong = compared(*place(f"killed-{left}"), left, seed + left, plain)
        left -= max(1, count)
    print(f"{kills - left} kills in all, {len(wrong)} differences", flush=True)
    return wrong


def main() -> None:
    """Crash as the command line says; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resnext", type=Path, metavar="PHOTOS")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.place, asked.at)
        return
    from tests.drawn import folder

    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        photos = asked.resnext or folder(top / "photos", each=12, size=20)
        wrong = repeated(resnext if asked.resnext else recipe, photos, top, asked.kills, asked.seed)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
