"""The story of docs/how-to/improve-your-data.md: every command of the page, on photos with wrong labels."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from finetune.cli import main
from tests.cli.calling import command, environment
from tests.clocks import LONGEST
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.checkout

RECIPE = """\
backbone: {use: resnext_nano}
dataset: {use: folder, root: photos}
image: {size: 32, resize: 36}
"""
MOVED = {"red": "blue", "blue": "green", "green": "red"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a recipe, test photos, and photos of which two of each class lie in a wrong folder."""
    pytest.importorskip("starlette", reason="the extra web is not installed")
    folder(tmp_path / "photos", each=40)
    folder(tmp_path / "test", each=12, seed=9)
    for name, wrong in MOVED.items():
        for number in (3, 7):
            target = tmp_path / f"photos/{wrong}/was-{name}-{number}.jpg"
            shutil.move(tmp_path / f"photos/{name}/{number:02d}.jpg", target)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def accept_all(words: list[str], project: Path, repo: Path) -> None:
    """Open a review, accept every suggestion as the page does, and end it with Ctrl-C."""
    process = subprocess.Popen(
        command(*words),
        cwd=project,
        env=environment(repo),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    try:
        address = next(match for line in process.stderr if (match := re.search(r"http://\S+", line)))[0]
        with urlopen(f"{address}state") as answer:
            state: dict[str, Any] = json.load(answer)
        for item in state["items"]:
            body = {"path": item["path"], "action": "keep"}
            if item["suggested"]:
                body |= {"action": "relabel", "label": item["suggested"]}
            request = Request(f"{address}decide", json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urlopen(request) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONGEST)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_every_step_works(project: Path, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repo / "docs/how-to/improve-your-data.md").read_text(encoding="utf-8")
    lines = [line[2:] for block in re.findall(r"```console\n(.*?)```", page, re.S) for line in block.splitlines()]
    steps = [shlex.split(line)[1:] for line in lines]
    assert [words[0] for words in steps] == ["run", "audit", "review", "run", "compare"]
    for words in steps:
        if words[0] == "review":
            accept_all(words, project, repo)
        else:
            assert main(words) == 0, capsys.readouterr().err
    with (project / "runs/audit-001/corrections.csv").open(newline="") as file:
        corrected = {row["path"].rpartition("/")[2]: row["label"] for row in csv.DictReader(file)}
    moved = {f"was-{name}-{number}.jpg": name for name in MOVED for number in (3, 7)}
    assert len(corrected.items() & moved.items()) >= 4
    assert len(corrected) <= 8
    said = " ".join(capsys.readouterr().out.split())
    assert "is runs/after-001 better than runs/before-001?" in said
    data = json.loads((project / "runs/after-001/data.json").read_text())
    assert data["corrections"]["relabelled"] == len(corrected)
    for name in ("before-001/report.html", "after-001/report.html", "audit-001/audit.html", "../compare.html"):
        assert (project / "runs" / name).stat().st_size > 5_000
    report = re.sub("<[^>]+>", "", (project / "runs/after-001/report.html").read_text())
    assert f"Corrections: {len(corrected)} relabelled" in report


def test_the_guides_are_linked(repo: Path) -> None:
    text = (repo / "mkdocs.yml").read_text(encoding="utf-8")
    for name in ("improve-your-data", "read-results", "trust-predictions"):
        assert f"how-to/{name}.md" in text
