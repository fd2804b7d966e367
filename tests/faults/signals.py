"""Interrupt runs at random moments and look at how they end.

    python -m tests.faults.signals [--tries 200] [--seed 0]

Each try starts `finetune run` on a small network, sends SIGINT, SIGTERM or SIGHUP to the process or to its group, one
in five times twice, and looks at exit code, time, messages and the newest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.training import saving
from tests.clocks import catches, processor_time_of, wait_for
from tests.drawn import folder

RECIPE = """\
backbone: {{use: resnext_nano, weights: none}}
dataset: {{use: folder, root: {photos}}}
image: {{size: 32, resize: 36}}
augment: []
freeze: {{use: {freeze}}}
train: {{epochs: 1000, batch_size: 8}}
runner: {{mode: {mode}}}
output: runs
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_MOST = 10.0  # seconds of the processor from the signal to the end
LATEST = 4.0  # seconds from the first file of the run to the signal


def tried(number: int, photos: Path, top: Path, seed: int) -> tuple[str, list[str]]:
    """Interrupt one run; return what it was and how it ended, and all that is wrong with that."""
    rng = random.Random(f"{seed} {number}")
    place, signum = top / str(number), rng.choice(SIGNALS)
    twice, group, early = rng.random() < 0.2, rng.random() < 0.5, rng.random() < 0.2
    place.mkdir()
    said = RECIPE.format(photos=photos, freeze=rng.choice(["head", "none"]), mode=rng.choice(["graph", "pynative"]))
    (place / "long.yaml").write_text(said)
    command = [sys.executable, "-m", "finetune", "run", "long.yaml"]
    env = {**os.environ, "FINETUNE_HOME": str(place / "home")}
    with (place / "out.txt").open("w") as out:
        process = subprocess.Popen(command, cwd=place, env=env, stdout=out, stderr=out, start_new_session=True)
    run = place / "runs" / "long-001"
    if early:
        wait_for(lambda: catches(process.pid, signal.SIGTERM))  # from here on finetune answers for signals
        time.sleep(rng.uniform(0.0, 2.5))
    else:
        wait_for(lambda: (run / "environment.json").exists() or ended(process.pid))
        time.sleep(rng.uniform(0.0, LATEST))
    before = processor_time_of(process.pid)
    for _ in range(1 + twice):
        (os.killpg if group else os.kill)(process.pid, signum)
        time.sleep(0.05)
    try:
        wait_for(lambda: ended(process.pid))
    except AssertionError:
        process.kill()
        return f"{signum.name} hung", [f"try {number}: {signum.name} did not end it: {said}"]
    seconds = processor_time_of(process.pid) - before
    process.wait()
    errors = (place / "out.txt").read_text(encoding="utf-8", errors="replace")
    wrong = [f"took {seconds:.1f} s of the processor"] if seconds > AT_MOST else []
    wrong += judged(process.returncode, errors, run, signum, twice=twice)
    about = f"{signum.name}{' twice' if twice else ''}{' before the run' if not run.exists() else ''}"
    return f"{about}: {process.returncode}", [f"try {number}, {about}: {text}\n{errors[-1500:]}" for text in wrong]


def ended(pid: int) -> bool:
    """Tell whether a child process has ended, and leave it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def judged(code: int, errors: str, run: Path, signum: signal.Signals, *, twice: bool) -> list[str]:
    """Return what is wrong with how a process ended."""
    wrong = [] if code == (130 if signum == signal.SIGINT else 143) else [f"exit code {code}"]
    wrong += ["a traceback"] if "Traceback" in errors else []
    saved = re.search(r"saved and stopped in epoch \d+, step (\d+)", errors)
    if saved and int(saved[1]):
        try:
            step = saving.load_newest(run / "checkpoints")[0].state["step"]
        except FinetuneError as error:
            return [*wrong, f"no checkpoint: {error}"]
        wrong += [f"stopped at step {saved[1]}, saved {step}"] if step != int(saved[1]) else []
    if (run / "metrics.jsonl").exists():
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            json.loads(line)
        if not saved and not twice:
            wrong.append("it trained, and did not say what it saved")
    return wrong


def main() -> None:
    """Try as often as the command line says; exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        top = Path(scratch)
        photos = folder(top / "photos", each=12, size=40)
        found = list(pool.map(lambda number: tried(number, photos, top, asked.seed), range(asked.tries)))
    for what, count in sorted(Counter(about for about, _ in found).items()):
        print(f"{count:4}  {what}")
    wrong = [text for _, several in found for text in several]
    print(f"{asked.tries} tries, {len(wrong)} wrong", *wrong, sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
