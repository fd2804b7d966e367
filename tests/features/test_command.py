"""``finetune run`` tells what of the cache it reused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.calling import answer, call_in_process
from tests.features.tiny import shards, weights

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

RECIPE = """\
backbone: {use: resnext_nano, weights: none}
dataset: {use: shapes, train: 20, valid: 6, test: 4, classes: 2, size: 32}
image: {size: 32, resize: 36}
augment: []
train: {epochs: 1, batch_size: 8}
callbacks: []
"""


def test_a_second_run_says_what_it_reuses_and_how_much_time_that_saves(home: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)

    def call(*changes: str) -> subprocess.CompletedProcess[str]:
        done = call_in_process("run", "small.yaml", *changes, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    first, second = call(), call("optimizer.lr=1e-2")
    once = "computed once and cached, by "
    assert f"features after layer4: 20 training images, 6 validation images, 4 test images {once}" in first.stderr
    assert answer(first)["features"]["computed"] == 30
    reused = "features after layer4: 20 training images, 6 validation images, 4 test images reused, computed by "
    assert reused in second.stderr
    features = answer(second)["features"]
    assert (features["computed"], features["reused"]) == (0, 30)
    assert features["saved_seconds"] > 0
    assert len(shards(home)) == 3
    log = (tmp_path / "runs" / "small-002" / "log.txt").read_text()
    assert reused in log
    assert weights(tmp_path / "runs" / "small-001") != weights(tmp_path / "runs" / "small-002")
