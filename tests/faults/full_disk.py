"""Fill a small file system in the middle of every kind of write; look at what is left and what is said.

    unshare -rm sh -c 'mount -t tmpfs -o size=20m tmpfs DIR && python -m tests.faults.full_disk DIR'

``DIR`` is an empty folder on a small file system of its own. A line is printed for each kind; exit code 1 if one is
wrong.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli import main as command
from finetune.data.pack import packing
from finetune.errors import ResourceError
from finetune.training import saving
from finetune.training.saving import load_newest
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = {
    "train": {"epochs": 3, "batch_size": 8},
    "runner": {"mode": "pynative"},  # nothing to compile
    "callbacks": [{"use": "tensorboard", "images": 0}, {"use": "checkpoint"}],
}


class Disk:
    """A small file system that can be filled to the last byte and made empty again."""

    def __init__(self, top: Path) -> None:
        self.top, self.ballast = top, top / "ballast"

    def fill(self) -> None:
        """Leave no room."""
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as file:
                while file.write(b"\0" * size):
                    pass

    def free(self) -> None:
        """Make room again."""
        self.ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Let no file be opened for writing."""
        subprocess.run(["mount", "--bind", str(self.top), str(self.top)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(self.top)], check=True)

    def open(self) -> None:
        """Let it be written to again."""
        subprocess.run(["umount", "--lazy", str(self.top)], check=True)

    def empty(self) -> None:
        """Remove everything."""
        for path in self.top.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def leftovers(self) -> list[str]:
        """Return what was left half written."""
        return [f"left {path.name}" for path in self.top.rglob("*.tmp")]


class Kinds:
    """One method for each kind of write; each returns what is wrong."""

    def __init__(self, disk: Disk, scratch: Path) -> None:
        self.disk, self.scratch = disk, scratch
        self.photos = folder(scratch / "photos", each=10, size=20)
        os.environ["FINETUNE_HOME"] = str(scratch / "home")
        self.plain = tiny.run(tiny.recipe(self.photos, scratch / "plain", **RUN))
        self.made = self.trained("nano", scratch)

    def trained(self, name: str, output: Path) -> str:
        """Return the run folder of a model that the command line can read."""
        (self.scratch / f"{name}.yaml").write_text(
            f"backbone: {{use: resnext_nano, weights: none}}\ndataset: {{use: folder, root: {self.photos}}}\n"
            "image: {size: 32, resize: 36}\naugment: []\ntrain: {epochs: 1}\nfreeze: {use: head}\n"
            "runner: {mode: pynative}\n"
        )
        code, said = self.said("run", str(self.scratch / f"{name}.yaml"), "--output", str(output))
        assert code == 0, said
        return str(output / f"{name}-001")

    def said(self, *words: str) -> tuple[int, str]:
        """Run a command; return its exit code and standard error."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            return command(list(words)), errors.getvalue()

    def run_that_finds_room_again(self) -> list[str]:
        """Full from the second to the seventh step of nine: the run goes on, and ends as it would have."""
        acts = [At(self.disk.fill, step=2), At(self.disk.free, step=7)]
        made = tiny.run(tiny.recipe(self.photos, self.disk.top / "runs", **RUN), watchers=acts)
        wrong = [] if made.told("warning: no checkpoint was written: cannot write") else ["said nothing"]
        wrong += [] if made.weights == self.plain.weights else ["other weights"]
        return wrong + ([] if made.lines == self.plain.lines else ["another history"])

    def run_on_a_disk_that_is_read_only_for_a_while(self) -> list[str]:
        """Read-only from the second to the seventh step: the run goes on, and ends as it would have."""
        acts = [At(self.disk.close, step=2), At(self.disk.open, step=7)]
        made = tiny.run(tiny.recipe(self.photos, self.disk.top / "runs", **RUN), watchers=acts)
        wrong = [] if made.told("warning: no checkpoint was written: cannot write") else ["said nothing"]
        return wrong + ([] if made.weights == self.plain.weights else ["other weights"])

    def run_that_stays_full(self) -> list[str]:
        """Full from the fifth step on: what was saved stays, and the run goes on from there."""
        what = tiny.recipe(self.photos, self.disk.top / "runs", **RUN)
        try:
            tiny.run(what, watchers=[At(self.disk.fill, step=5)])
            return ["did not end"]
        except ResourceError as error:
            wrong = [] if "the disk is full; free some space" in str(error) else [f"said {error}"]
        found = self.disk.top / "runs" / "small-001"
        wrong += self.disk.leftovers()
        if load_newest(found / "checkpoints")[0].state["step"] != 3:
            wrong.append("lost the checkpoint")
        self.disk.free()
        return wrong + ([] if tiny.run(what, resume=found).weights == self.plain.weights else ["other weights"])

    def features(self) -> list[str]:
        """No room for features: they are computed in every epoch, to the same weights."""
        os.environ["FINETUNE_HOME"] = str(self.disk.top / "home")
        self.disk.fill()
        made = tiny.run(tiny.recipe(self.photos, self.scratch / "streamed", **RUN))
        os.environ["FINETUNE_HOME"] = str(self.scratch / "home")
        wrong = [] if made.told("features are not cached") else ["said nothing"]
        return wrong + ([] if made.weights == self.plain.weights else ["other weights"])

    def run_before_it_starts(self) -> list[str]:
        """A full disk is seen before anything is trained."""
        self.disk.fill()
        code, errors = self.said("run", str(self.scratch / "nano.yaml"), "--output", str(self.disk.top / "runs"))
        return self.refused(code, errors, "is full; free some space or choose another")

    def pack(self) -> list[str]:
        """The disk becomes full while MindSpore writes: no pack is there, nor anything that begins one."""
        keep, packing.check_free_space = packing.check_free_space, lambda *_: self.disk.fill()
        try:
            code, errors = self.said("pack", str(self.photos), str(self.disk.top / "pack"))
        finally:
            packing.check_free_space = keep
        left = [path.name for path in self.disk.top.iterdir() if path != self.disk.ballast]
        return [f"left {name}" for name in left] + self.refused(code, errors, "the disk is full; free some space")

    def written_by(self, words: list[str], name: str) -> list[str]:
        """A file that a command writes over one that is there: that one stays."""
        target = self.disk.top / name
        target.write_text("the one before")
        self.disk.fill()
        code, errors = self.said(*(word.replace("TARGET", str(target)) for word in words))
        wrong = [] if target.read_text() == "the one before" else ["the file before is gone"]
        return wrong + self.refused(code, errors, "the disk is full; free some space")

    def refused(self, code: int, errors: str, text: str) -> list[str]:
        """Return what is wrong with a refusal."""
        wrong = [] if code == 7 else [f"exit code {code}"]
        wrong += [] if text in errors and "Traceback" not in errors else [f"said {errors}"]
        return wrong + self.disk.leftovers()

    def all(self) -> dict[str, Callable[[], list[str]]]:
        """Return every kind by its name."""
        weights = f"{self.made}/model/weights.safetensors"
        photo = str(next(self.photos.rglob("*.jpg")))
        commands = {
            "export to ONNX": (["export", self.made, "--format", "onnx", "--output", "TARGET", "--force"], "a.onnx"),
            "export to MindIR": (
                ["export", self.made, "--format", "mindir", "--output", "TARGET", "--force"],
                "a.mindir",
            ),
            "predictions": (["predict", self.made, photo, "--csv", "TARGET", "--force"], "a.csv"),
            "converted weights": (
                ["weights", "convert", weights, "--to", "ckpt", "--output", "TARGET", "--force"],
                "a.ckpt",
            ),
        }
        return {
            "a run that finds room again": self.run_that_finds_room_again,
            "a run on a disk that is read-only for a while": self.run_on_a_disk_that_is_read_only_for_a_while,
            "a run that stays full": self.run_that_stays_full,
            "a run before it starts": self.run_before_it_starts,
            "features": self.features,
            "a pack": self.pack,
            **{name: partial(self.written_by, words, file) for name, (words, file) in commands.items()},
        }


def main() -> None:
    """Try every kind on the file system that the command line names."""
    disk, wrong = Disk(Path(sys.argv[1])), 0
    saving.QUICK = 1e9  # a checkpoint in every epoch, however short that is
    with tempfile.TemporaryDirectory() as scratch:
        for name, tried in Kinds(disk, Path(scratch)).all().items():
            disk.empty()
            found = tried()
            wrong += bool(found)
            print(f"{name}: {'; '.join(found) or 'right'}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
