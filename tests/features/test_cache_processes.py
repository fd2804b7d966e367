"""The feature cache between processes: one that is killed while it writes, and two that want the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from finetune.features import entries, store
from tests.cli.calling import environment
from tests.clocks import LONGEST
from tests.features import tiny
from tests.features.tiny import run, shards

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]

recipe = partial(tiny.recipe, runner={"mode": "pynative"})  # nothing to compile

VIEWS = 2 * 24 + 6


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 1)


def started(repo: Path, home: Path, said: dict[str, Any], file: Path, *options: str) -> subprocess.Popen[str]:
    """Start the recipe in a process of its own, which imports the tests as well."""
    file.write_text(json.dumps(said))
    env = environment(repo, FINETUNE_HOME=str(home))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH", ""), str(repo)]))
    command = [sys.executable, "-m", "tests.features.driver", str(file), *options]
    return subprocess.Popen(
        command, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the weights of a run that nothing disturbs."""
    top = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(top / "home"))
        return run(recipe(photos, top)).weights


@pytest.mark.parametrize(("kill_at", "whole"), [(2, 4), (9, 24 + 6)])
def test_killed_while_writing(
    kill_at: int, whole: int, repo: Path, home: Path, photos: Path, tmp_path: Path, expected: str
) -> None:
    said = recipe(photos, tmp_path)
    with started(repo, home, said, tmp_path / "r.json", "--kill-at", str(kill_at)) as child:
        _, err = child.communicate(timeout=LONGEST)
    assert child.returncode == -signal.SIGKILL, err
    assert len(shards(home)) == kill_at - 1
    made = run(said)
    assert made.weights == expected
    assert not made.told("waiting")
    assert (made.features["computed"], made.features["reused"]) == (VIEWS - whole, whole)
    assert len(shards(home)) == 2 * 6 + 2
    again = run(said)
    assert again.weights == expected
    assert again.features["computed"] == 0


def test_what_a_killed_run_left_half_written_goes(home: Path, photos: Path, tmp_path: Path, repo: Path) -> None:
    said = recipe(photos, tmp_path)
    with started(repo, home, said, tmp_path / "r.json", "--kill-at", "2") as child:
        child.communicate(timeout=LONGEST)
    (left,) = (home / "features").rglob(".*.tmp")
    os.utime(left, (1, 1))  # it may be another run's while it is young
    run(said)
    assert not left.exists()


def test_two_runs_that_want_the_same(
    repo: Path, home: Path, photos: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "POLL", 0.02)
    said, go = recipe(photos, tmp_path), tmp_path / "go"
    with started(repo, home, {**said, "name": "other"}, tmp_path / "r.json", "--hold", str(go)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "holding\n"
        try:
            made = run(said, say=lambda message: go.touch() if "waiting for it" in message else None)
        finally:
            go.touch()
        out, err = child.communicate(timeout=LONGEST)
    assert child.returncode == 0, err
    other = json.loads(out.splitlines()[-1])
    assert made.told("another run computes the same features; waiting for it")
    assert made.weights == other["weights"] == expected
    assert made.features["computed"] + other["features"]["computed"] == VIEWS  # nothing was computed twice
    assert made.features["reused"] + other["features"]["reused"] == VIEWS
    assert not list((home / "features").rglob("*.tmp"))


def test_waiting_for_another_run_can_be_stopped(
    repo: Path, home: Path, photos: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.errors import Interrupted

    monkeypatch.setattr(entries, "POLL", 0.02)
    said, go = recipe(photos, tmp_path), tmp_path / "go"
    with started(repo, home, {**said, "name": "other"}, tmp_path / "r.json", "--hold", str(go)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "holding\n"
        try:
            with pytest.raises(Interrupted):
                run(said, say=lambda message: tiny.terminate() if "waiting for it" in message else None)
        finally:
            go.touch()
        child.communicate(timeout=LONGEST)
    assert child.returncode == 0
    made = run(said, resume=tmp_path / "small-001")
    assert made.weights == expected
    assert made.features["reused"] >= 24


def test_a_run_reads_on_while_another_drops_what_it_reads(
    home: Path, photos: Path, tmp_path: Path, expected: str
) -> None:
    """Another run makes room for itself while this one trains."""
    said = recipe(photos, tmp_path)

    def dropped() -> None:
        assert all([entries.drop_entry(path.parent) for path in tiny.about(home)])

    made = run(said, watchers=[tiny.At(dropped, step=2)])
    assert made.weights == expected
    wide = recipe(photos, tmp_path, freeze={"use": "stages", "train": ["neck"]})
    made, plain = run(wide, watchers=[tiny.At(dropped, step=2)]), run(wide)
    assert made.weights == plain.weights
