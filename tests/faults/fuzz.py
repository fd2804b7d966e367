"""Feed changed files to every reader of the project, and count what is refused, taken, and neither.

    python -m tests.faults.fuzz [--minutes 30] [--seed 0] [--keep FOLDER]

A reader may take an input or raise the error that it promises. Any other exception, more than two seconds of work, ten
of waiting or 300 MB (for an image of the size allowed 1.7 GB) is a failure; its input is kept. The readers take turns,
so that each gets as much time.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.data import loading
from finetune.data.scan import scan
from finetune.errors import DataError, FinetuneError, RecipeError, WeightsError
from finetune.recipe import plan as plans
from finetune.weights import hubcard
from finetune.weights.formats import tensorfile
from tests.weights.files import entry
from tests.weights.hub_cards import READ
from tests.weights.test_fuzz import examined
from tests.weights.test_hubcard import HUB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS, BLOCKED, MB, TURN = 2.0, 60.0, 300.0, 0.2
CARDS = [HUB.encode(), *(kind.text().encode() for kind, _ in READ.values())]
CANVAS = 1700.0  # MB: what an image of as many pixels as are allowed may take on the way
REPO = Path(__file__).resolve().parents[2]
WORDS = {
    "YAML": "\t|: |- |&a |*a |!!python/object |<<: |'|\"|{|}|[|]|#|---\n|...|~|.nan|1e999|0o7|\ufeff|\0|? |%YAML|\n\n",
    "override": "=|.|[0]|[-1]|~|{|}|[|]|'|\"|: |&a |*a |\0|\n|use|\udcff|1e999|null|train|callbacks",
    "card": "---\n|: |- |[|]|<|>|https://|../|asset|sha256|\0|\ufeff|100%|input-shape|ckpt|\u202e",
    "bytes": "\0\0\0\0|\xff\xff\xff\xff|\x7f|\x80\x80\x80|II*\0|MM\0*|\xff\xd8|\xff\xc0|IHDR|IDAT|VP8X|GIF8|[[[[|{}",
}
FORMS = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")
NAMES = ("a.jpg", "\udcff.png", "x\ny.GIF", "e\u0301.tiff", "\u202egpj.webp", "-rf *.bmp", f"{'9' * 240}.jpg", ".h.jpg")
CLASSES = ("a", "A", "2", "10", "caf\u00e9", "cafe\u0301", " ", "\udcff")


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads bytes, what it begins from, words to put in, and the error that it promises."""

    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    refuses: type[FinetuneError]
    mb: float = MB


def changed(rng: random.Random, reader: Reader) -> bytes:
    """Return one of a reader's seeds after a few changes, or one in ten times words without a seed."""
    if rng.random() < 0.1:
        return b"".join(rng.choice((*reader.words, rng.randbytes(1), b"a", b" ")) for _ in range(rng.randint(0, 40)))
    content = bytearray(rng.choice(reader.seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 8, 30))):
        at = rng.randint(0, len(content))
        match rng.randrange(7):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at:at] = rng.choice(reader.words)
            case 2:
                del content[at : at + rng.choice((1, 2, 5, 50))]
            case 3:
                content[at:at] = rng.randbytes(rng.randint(1, 12))
            case 4:
                other = rng.choice(reader.seeds)
                start = rng.randint(0, len(other))
                content[at : at + rng.randint(0, 40)] = other[start : start + rng.randint(0, 60)]
            case 5:
                content[at:at] = content[at : at + rng.randint(1, 40)] * rng.choice((1, 2, 50))
            case _ if rng.random() < 0.1:
                del content[at:]
    return bytes(content[:200_000])


def words(name: str) -> list[bytes]:
    """Return a list of words as bytes."""
    code = "latin-1" if name == "bytes" else "utf-8"
    return [word.encode(code, "surrogateescape" if code == "utf-8" else "strict") for word in WORDS[name].split("|")]


def photos() -> list[bytes]:
    """Return a small photo in each form."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    found = []
    for form in FORMS:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form)
        found.append(file.getvalue())
    return found


def tensors(folder: Path) -> bytes:
    """Return a small file of ours, sealed."""
    path = folder / "seed.safetensors"
    tensorfile.write_tensors(
        path, {"stem.bn.gamma": np.ones(3, np.float32), "w": np.zeros((2, 2), np.float32)}, {"x": "{}"}
    )
    return path.read_bytes()


def photo_folder(root: Path, catalogue: Catalogue) -> Callable[[bytes], object]:
    """Return what loads a folder of one photo of the given bytes under an odd name and two sound ones."""
    sound = photos()[0]
    plan = plans.load_plan({"dataset": {"use": "folder", "root": str(root), "on_bad_image": "skip"}}, (), catalogue)

    def scanned(content: bytes) -> object:
        rng = random.Random(content)
        shutil.rmtree(root, ignore_errors=True)
        for label, photo in zip(rng.sample(CLASSES, 2), (content, sound), strict=True):
            (root / label).mkdir(parents=True)
            (root / label / rng.choice(NAMES)).write_bytes(photo)
            (root / label / "sound.jpg").write_bytes(sound + label.encode(errors="replace"))
        chosen = plan.dataset
        if samples := chosen.component.build(chosen.options, "train"):
            wrong = scan(samples, "train", 0).wrong  # which holds what should have been an error
            assert not wrong, wrong
        found = loading.load(chosen, plan.recipe.dataset, 0, 0)
        return "refused" if found.report["findings"] else found

    return scanned


def readers(folder: Path) -> dict[str, Reader]:
    """Return every reader by its name."""
    catalogue, file = Catalogue(plugins.load_plugins()), folder / "input"
    base = {"dataset": {"use": "folder", "root": "photos"}, "callbacks": [{"use": "checkpoint"}]}
    overrides = [
        b"train.epochs=3",
        b"callbacks[0].keep=2",
        b"~callbacks",
        b"freeze={use: gradual, schedule: {1: head}}",
    ]
    checkpoint = b"".join(entry(name, (2, 3), bytes(24)) for name in (b"stem.bn.gamma", b"layer1.0.conv2.weight"))

    def written(content: bytes) -> Path:
        file.write_bytes(content)
        return file

    recipes = [path.read_bytes() for path in sorted((REPO / "recipes").glob("*.yaml"))] or [b"dataset: {use: shapes}\n"]
    return {
        "recipe": Reader(lambda c: plans.load_plan(written(c), (), catalogue), recipes, words("YAML"), RecipeError),
        "override": Reader(
            lambda c: plans.load_plan(base, [os.fsdecode(c)], catalogue), overrides, words("override"), RecipeError
        ),
        ".ckpt": Reader(lambda c: examined(file, c), [checkpoint], words("bytes"), WeightsError),
        "safetensors": Reader(lambda c: examined(file, c), [tensors(folder)], words("bytes"), WeightsError),
        "Hub card": Reader(lambda c: hubcard.read_card(written(c)), CARDS, words("card"), WeightsError),
        "scan": Reader(photo_folder(folder / "photos", catalogue), photos(), words("bytes"), DataError, CANVAS),
    }


@dataclass
class Outcome:
    """What came of one input: ``taken``, ``refused``, or what is wrong."""

    kind: str
    wrong: str = ""


class Blocked(BaseException):
    """A reader waits for ever; no reader catches this."""


def blocked(*_: object) -> None:
    """End a wait."""
    raise Blocked


def tried(reader: Reader, content: bytes) -> Outcome:
    """Feed one input to a reader."""
    before, began, kind = memory("VmRSS", anew=True), time.process_time(), "taken"
    signal.signal(signal.SIGALRM, blocked)
    signal.setitimer(signal.ITIMER_REAL, BLOCKED)
    try:
        found = reader.read(content)
        kind = "refused" if isinstance(found, str) and found == "refused" else "taken"
    except reader.refuses:
        kind = "refused"
    except (Exception, Blocked):
        return Outcome("wrong", traceback.format_exc(limit=-3))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, more = time.process_time() - began, memory("VmHWM") - before
    if seconds > SECONDS or more > reader.mb:
        return Outcome("wrong", f"took {seconds:.1f} s and {more:.0f} MB more")
    return Outcome(kind)


def memory(what: str, *, anew: bool = False) -> float:
    """Return this process's memory now or at most, in MB; ``anew`` forgets the most so far."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/status").read_text().partition(f"{what}:")[2].split()[0]) / 1024


def fuzz(folder: Path, keep: Path, *, seed: int, seconds: float, each: int = 10**9) -> tuple[Counter[str], list[str]]:
    """Feed inputs for some seconds, or ``each`` inputs to each reader; return counts and what was wrong."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    numbers: Counter[str] = Counter()
    found = readers(folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(numbers[name] < each for name in found):
        for name, reader in found.items():
            turn = time.monotonic() + TURN
            while time.monotonic() < turn and numbers[name] < each:
                content = changed(random.Random(f"{seed} {name} {numbers[name]}"), reader)
                outcome = tried(reader, content)
                numbers[name] += 1
                counts[f"{name} {outcome.kind}"] += 1
                if outcome.wrong:
                    kept = keep / f"{name.strip('.').replace(' ', '-')}-{numbers[name]}"
                    kept.write_bytes(content)
                    wrong.append(f"{name}, {kept}: {outcome.wrong}")
    return counts, wrong


def main() -> None:
    """Fuzz as the command line says; exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Where inputs stay that went wrong; else a temporary folder.")
    asked = parser.parse_args()
    keep = asked.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FINETUNE_HOME"] = f"{scratch}/home"
        counts, wrong = fuzz(Path(scratch), keep, seed=asked.seed, seconds=60 * asked.minutes)
    print("| reader | inputs | refused | taken | wrong |", "| --- | --- | --- | --- | --- |", sep="\n")
    for name in dict.fromkeys(key.rpartition(" ")[0] for key in counts):
        found = [counts[f"{name} {kind}"] for kind in ("refused", "taken", "wrong")]
        print("|", name, *(f"| {number:,}" for number in (sum(found), *found)), "|")
    print(f"{counts.total():,} inputs, {len(wrong)} wrong", *wrong, sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
