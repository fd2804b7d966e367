"""Runs that cannot be resumed or extended as asked, evaluations that cannot be made, and a removed working folder."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tests.faults.bad_recipes import line
from tests.faults.case import Case, case
from tests.faults.data_makers import nothing, sound, trained, use

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.case import Make

BOTH = ("remove --resume to start a new run", "--extend EPOCHS")


def resume(*words: str, act: Callable[[Path], object] = nothing) -> Make:
    """Return what resumes a finished run, ``r``, after something was done to its folder."""

    def make(folder: Path) -> tuple[str, ...]:
        (made,) = (trained().parent / "runs").iterdir()
        shutil.copytree(made, folder / "r")
        act(folder / "r")
        return ("run", "--resume", "r", *words)

    return make


def other_photos(run: Path) -> None:
    """Let a run ask for a folder with one photo less."""
    photos = run.parent / "fewer"
    sound(photos)
    next(photos.rglob("*.png")).unlink()
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(trained().parent / "photos"), str(photos)))


def without_checkpoints(run: Path) -> None:
    """Remove the checkpoints of a run."""
    shutil.rmtree(run / "checkpoints")


def unfinished(run: Path) -> None:
    """Take the mark of a finished run away."""
    (run / "result.json").unlink()


def sweep(folder: Path) -> tuple[str, ...]:
    """Return what extends a sweep."""
    (folder / "s").mkdir()
    (folder / "s" / "sweep.json").write_text('{"metric": "accuracy", "runs": []}')
    return ("run", "--resume", "s", "--extend", "1")


def in_removed_folder(*words: str) -> Make:
    """Return a command line that is run in a folder which is removed meanwhile."""

    def make(folder: Path) -> tuple[str, ...]:
        shutil.copytree(trained(), folder / "m")
        sound(folder / "photos")
        (folder / "gone").mkdir()
        os.chdir(folder / "gone")
        (folder / "gone").rmdir()
        return tuple(word.replace("FOLDER", str(folder)) for word in words)

    return make


GONE = ("the working folder, ", "was removed; change to an existing folder with `cd`")

CASES: list[Case] = [
    case("R12", "finished run, another rate", resume("optimizer.lr=0.5"), 2, "optimizer.lr: 0.001 → 0.5", *BOTH),
    case("R12", "finished run, more epochs", resume("train.epochs=99"), 2, "train.epochs: ", "→ 99", *BOTH),
    case("R12", "finished run, a photo less", resume(act=other_photos), 2, "images: 1 removed", *BOTH),
    case(
        "R12", "finished run, allowed", resume("seed=5", "--allow-changed"), 2, "has already trained", "--extend EPOCHS"
    ),
    case("R12", "extending without a run", line("run", "quickstart", "--extend", "1"), 2, "--extend needs a finished"),
    case("R12", "extending by no epoch", resume("--extend", "0"), 2, "invalid value for '--extend'"),
    case("R12", "extending far", resume("--extend", "1000000"), 2, "at most 100,000 are allowed"),
    case("R12", "extending an unfinished run", resume("--extend", "1", act=unfinished), 2, "r is not finished; finish"),
    case(
        "R12",
        "extending without checkpoints",
        resume("--extend", "1", act=without_checkpoints),
        2,
        "its checkpoints were deleted; start a new run",
    ),
    case("R12", "extending a sweep", sweep, 2, "--extend continues a single run; name one of the runs in s"),
    case(
        "R12",
        "held-back photos of a copied model",
        use("eval", "m"),
        2,
        "no split.csv says which images",
        "name the data",
    ),
    case("R15", "predict in a removed folder", in_removed_folder("predict", "FOLDER/m", "FOLDER/photos"), 2, *GONE),
    case("R15", "eval in a removed folder", in_removed_folder("eval", "FOLDER/m", "FOLDER/photos"), 2, *GONE),
    case("R15", "run in a removed folder", in_removed_folder("run", "quickstart"), 2, *GONE),
    case("R15", "list in a removed folder", in_removed_folder("ls"), 2, *GONE),
]
