"""Compare wall clock from photos to model, and from photos to labels: ours, PyTorch as its tutorial has it, and MindCV.

    python benchmarks/jobs.py --flowers FOLDER [--job head layer4 layer3 predict all] [--rounds 3] [--without mindcv]

ResNeXt-50 (32x4d) from one file of random weights, on photos of Oxford 102 Flowers. `head`, `layer4` and `layer3`
(with layer4, without MindCV) are what trains, with validation every epoch; `predict` labels photos; `all` is the full
training step on random images. Every side is a process of its own, from Python's start to its end, in turn. *ours*
begins with an empty cache; *ours, next run* has another learning rate and the same cache. PyTorch trains some epochs
and MindCV takes a few photos twice; the rest of their job is added at the speed of all but the first time, which
holds what is done only once. PyTorch and MindCV come with `pip install mindspore-finetune[dev,bench]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import material
import step
from measured import Measured, Side, kilobytes, machine, measure

HERE = Path(__file__).parent
FREEZE = {"head": "{use: head}", "layer4": "{use: stages, train: [layer4]}"}
FREEZE["layer3"] = "{use: stages, train: [layer3, layer4]}"
TORCH = {"torch fp32": [], "torch fp32 channels-last": ["--channels-last"], "torch bf16": ["--bf16"]}
FEW = {"train": 40, "valid": 20}  # photos of the models that only label
RECIPE = """
backbone: {{use: resnext50, weights: {weights}}}
dataset: {{use: folder, root: {photos}}}
image: {{size: {size}, resize: {resize}}}
augment: [{{use: albumentations, preset: standard}}]
head: {{start: random}}
freeze: {freeze}
optimizer: {{use: sgd, lr: 0.01, momentum: 0.9, weight_decay: 0.0}}
train: {{epochs: {epochs}, batch_size: {batch}}}
"""

Round = dict[str, Measured]


def main() -> None:
    """Run the jobs and print a table of each."""
    given = arguments()
    found: dict[str, list[Round]] = {}
    where = machine()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(given, Path(scratch))
        print(where, flush=True)
        for job in given.job:
            found[job] = bench.stepping() if job == "all" else bench.rounds(job)
            unit = "images/s" if job == "all" else "seconds"
            print(f"\n{about(job, given)}\n\n{table(found[job], unit)}", flush=True)
    if given.json:
        raw = {job: [{n: dataclasses.asdict(m) for n, m in each.items()} for each in r] for job, r in found.items()}
        whole = {"machine": where, "arguments": vars(given), "jobs": raw}
        given.json.write_text(json.dumps(whole, indent=1, default=str))


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = [*FREEZE, "predict", "all"]
    parser.add_argument("--flowers", type=Path, required=True, help="Oxford 102 Flowers, with train, valid and test")
    parser.add_argument("--job", nargs="+", default=["head", "layer4", "predict"], choices=jobs)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", type=int, default=300, help="photos to train on")
    parser.add_argument("--valid", type=int, default=150, help="photos to validate on")
    parser.add_argument("--photos", type=int, default=1000, help="photos to label")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2, help="steps of each side in a round of `all`")
    parser.add_argument("--views", type=int, default=4, help="cache.views of ours; 0 leaves the section out")
    parser.add_argument("--rival-epochs", type=int, default=2, help="epochs that PyTorch really trains")
    parser.add_argument("--mindcv-photos", type=int, default=16, help="photos that MindCV really takes, twice")
    parser.add_argument("--without", nargs="+", default=[], choices=["mindcv", "torch"])
    parser.add_argument("--json", type=Path, help="write the raw numbers here")
    return parser.parse_args()


class Bench:
    """The material of all jobs, and the commands of all sides."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.sizes = ["--size", str(given.size), "--batch", str(given.batch)]
        self.weights = material.weights(folder / "resnext50.safetensors")
        self.photos = material.subset(given.flowers, folder / "photos", {"train": given.train, "valid": given.valid})
        self.mindcv_weights = folder / "mindcv.ckpt"
        if "mindcv" not in given.without:
            convert = self.finetune("weights", "convert", str(self.weights), "--to", "mindcv")
            subprocess.run([*convert, "--output", str(self.mindcv_weights)], check=True, capture_output=True)

    def rounds(self, job: str) -> list[Round]:
        """Run all sides of a job in turn, several times."""
        if job == "predict":
            self.models()
        found = []
        for number in range(self.given.rounds):
            sides = self.labelling(number) if job == "predict" else self.training(job, number)
            found.append({side.name: measure(side, self.folder / "log.txt") for side in sides})
            said = ", ".join(f"{name} {each.seconds:.1f} s" for name, each in found[-1].items())
            print(f"{job}, round {number + 1}: {said}", file=sys.stderr, flush=True)
        return found

    def training(self, job: str, number: int) -> list[Side]:
        """Return the sides that train what the job says."""
        given, kept = self.given, self.folder / f"{job}-{number}"
        cold = self.ours("ours", self.recipe(job), kept)
        again = self.ours("ours, next run", self.recipe(job), kept, "optimizer.lr=0.003")
        trains = ["--trains", "fc" if job == "head" else job, "--epochs", str(given.rival_epochs)]
        task = ["train", str(self.photos), "--weights", str(self.weights), *trains, "--save", f"{kept}.pt"]
        rivals = self.torch(task, {"epoch": given.epochs})
        whole = {split: given.epochs * getattr(given, split) / given.mindcv_photos for split in ("train", "valid")}
        trains = ["--trains", "classifier" if job == "head" else job]
        ours = [cold, again] if job == "head" else [cold]
        mindcv = [] if job == "layer3" else self.mindcv(["train", str(self.photos), *trains], whole)
        return [*ours, *rivals, *mindcv]

    def models(self) -> None:
        """Train the models that label, on few photos."""
        few = material.subset(self.given.flowers, self.folder / "few", FEW)
        material.unlabelled(self.given.flowers, self.folder / "unlabelled", self.given.photos)
        made = [self.ours("ours", self.recipe("head", few), self.folder / "model", "train.epochs=1")]
        task = ["train", str(few), "--weights", str(self.weights), "--epochs", "1"]
        made += self.torch([*task, "--save", str(self.folder / "model.pt")], {})[:1]
        for side in made:
            measure(side, self.folder / "log.txt")

    def labelling(self, number: int) -> list[Side]:
        """Return the sides that label photos."""
        photos, table = str(self.folder / "unlabelled"), str(self.folder / f"labels-{number}.csv")
        (run,) = (self.folder / "model" / "runs").iterdir()
        home = {"FINETUNE_HOME": str(self.folder / f"predict-{number}")}
        command = self.finetune("predict", str(run), photos, "--csv", table)
        ours = Side(name="ours", command=command, environment=home)
        rivals = self.torch(["predict", photos, "--state", str(self.folder / "model.pt"), "--csv", table], {})
        whole = {"predict": self.given.photos / self.given.mindcv_photos}
        return [ours, *rivals, *self.mindcv(["predict", photos], whole)]

    def recipe(self, job: str, photos: Path | None = None) -> Path:
        """Write the recipe of a job and return its path."""
        given, path = self.given, self.folder / f"{job}.yaml"
        sizes = {"size": given.size, "resize": round(given.size * 256 / 224), "batch": given.batch}
        paths = {"weights": self.weights, "photos": photos or self.photos}
        text = RECIPE.format(**paths, **sizes, freeze=FREEZE[job], epochs=given.epochs)
        path.write_text(text + (f"cache: {{views: {given.views}}}\n" if given.views else ""))
        return path

    def ours(self, name: str, recipe: Path, kept: Path, *changes: str) -> Side:
        """Return `finetune run` with a cache and runs in ``kept``."""
        runs = kept / "runs"
        command = [*self.finetune("run", str(recipe)), *changes, "--output", str(runs), "--json"]
        return Side(name=name, command=command, environment={"FINETUNE_HOME": str(kept / "home")}, runs=runs)

    def finetune(self, *words: str) -> list[str]:
        """Return a command of this project."""
        return [sys.executable, "-m", "finetune", *words]

    def torch(self, task: list[str], wanted: dict[str, float]) -> list[Side]:
        """Return PyTorch's sides."""
        command = [sys.executable, str(HERE / "rivals_torch.py"), *task, *self.sizes]
        names = {} if "torch" in self.given.without else TORCH
        return [Side(name=name, command=[*command, *flags], wanted=wanted) for name, flags in names.items()]

    def mindcv(self, task: list[str], wanted: dict[str, float]) -> list[Side]:
        """Return MindCV's side."""
        weights = ["--weights", str(self.mindcv_weights), "--count", str(self.given.mindcv_photos)]
        command = [sys.executable, str(HERE / "rivals_mindcv.py"), *task, *weights, *self.sizes]
        return [] if "mindcv" in self.given.without else [Side(name="MindCV", command=command, wanted=wanted)]

    def stepping(self) -> list[Round]:
        """Have warm sides make full training steps in turn; ``seconds`` of what is returned are images/s."""
        given, sides = self.given, {"ours": step.Side("ours", self.given.batch, self.given.size)}
        sides |= {rival.name: Stepping(rival) for rival in self.torch(["step"], {})}
        found = []
        for _ in range(given.rounds):
            walls = {name: side.seconds(given.steps) for name, side in sides.items()}
            peaks = {name: 1024 * kilobytes(side.process.pid, "status", "VmHWM") for name, side in sides.items()}
            rates = {name: given.steps * given.batch / wall for name, wall in walls.items()}
            found.append({n: Measured(seconds=rates[n], wall=walls[n], peak=peaks[n], report={}) for n in sides})
        for side in sides.values():
            side.process.communicate()  # the end of its input ends it
        return found


class Stepping(step.Side):
    """A side of another script that steps when it is told to."""

    def __init__(self, side: Side) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(side.command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{side.name} did not start; run: {' '.join(side.command)}")


def about(job: str, given: argparse.Namespace) -> str:
    """Return a job in words: what was done, and which of it was only calculated."""
    setting = f"ResNeXt-50, {given.size} px, batches of {given.batch}, rounds: {given.rounds}"
    if job == "all":
        return f"`all`: full training steps on random images; {setting}. Memory is VmHWM."
    work, count = f"{given.photos} photos are labelled", given.mindcv_photos
    mindcv = f"MindCV takes {count} photos (batch {min(count, given.batch)}) twice"
    samples = [] if "mindcv" in given.without else [mindcv]
    if job != "predict":
        work = f"{given.train} photos to train on, {given.valid} to validate, {given.epochs} epochs"
        samples += [] if "torch" in given.without else [f"PyTorch trains {given.rival_epochs} epochs"]
    rest = [f"{' and '.join(samples)}; the rest is added at the speed of all but the first time"] if samples else []
    memory = "Memory is VmHWM of the process and the private pages of its workers"
    return ". ".join([f"`{job}`: {work}; {setting}", *rest, memory]) + "."


def table(rounds: list[Round], unit: str) -> str:
    """Return the table in Markdown, and below it when ours made its first step."""
    lines = [f"| side | {unit}, median (min to max) | times as long as ours | peak MB |", "| --- | --- | --- | --- |"]
    for name in rounds[0]:
        values, ours = [each[name].seconds for each in rounds], [each["ours"].seconds for each in rounds]
        pairs = zip(ours, values, strict=True)
        ratios = [a / b if unit == "images/s" else b / a for a, b in pairs]
        peak = max(each[name].peak for each in rounds) / 1e6
        lines.append(f"| {name} | {spread(values)} | {spread(ratios)} | {peak:,.0f} |")
    for name, first in rounds[0].items():
        if first.first_step is not None:
            until = [each[name].first_step or 0.0 for each in rounds]
            lines.append(f"{'' if lines[-1][0] != '|' else chr(10)}{name}: first step done after {spread(until)} s")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Return median (minimum to maximum)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
