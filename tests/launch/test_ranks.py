"""What three processes tell one another, seen from each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.distributed.launch import find_free_port

pytestmark = pytest.mark.once

SCRIPT = Path(__file__).with_name("ranks.py")
ROOT = SCRIPT.parents[2]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    launcher = (sys.executable, "-m", "mindspore.parallel.cluster.run", "--worker_num=3", "--local_worker_num=3")
    flags = (f"--master_port={find_free_port()}", f"--log_dir={folder / 'logs'}", "--join=True", "--tail_worker_log=3")
    programs = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    subprocess.run([*launcher, *flags, SCRIPT, folder], cwd=folder, env=env, timeout=200, check=False)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


def test_every_process_knows_its_place(seen: list[dict[str, Any]]) -> None:
    assert [each["world"] for each in seen] == [[rank, 3, rank, 3] for rank in range(3)]
    assert [each["shares"] for each in seen] == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_all_hear_what_each_says_whatever_its_length(seen: list[dict[str, Any]]) -> None:
    expected = [{"rank": rank, "text": "é" * 50 * rank} for rank in range(3)]
    assert [each["gathered"] for each in seen] == [expected] * 3
    assert [each["first"] for each in seen] == ["from 0"] * 3


def test_rows_of_different_numbers_come_whole(seen: list[dict[str, Any]]) -> None:
    expected = [[[2**40 + rank, 3.141592653589793, False]] * rank for rank in range(3)]
    assert [each["rows"] for each in seen] == [expected] * 3


def test_what_one_process_raises_ends_all_and_the_others_say_who_it_was(seen: list[dict[str, Any]]) -> None:
    assert [each["failed"] for each in seen] == ["PeerFailed: rank 2: photo gone"] * 2 + ["DataError: photo gone"]
    assert [each["asked"] for each in seen] == ["StopRequested: "] * 3
    assert [each["fine"] for each in seen] == ["nothing"] * 3


def test_the_first_process_goes_before_the_others(seen: list[dict[str, Any]]) -> None:
    assert [each["second"] for each in seen] == [False, True, True]


def test_all_get_the_weights_of_the_first(seen: list[dict[str, Any]]) -> None:
    assert [each["same"] for each in seen] == [[[[k] * 3] * 2 for k in range(2)]] * 3


def test_batch_norm_over_all_processes_is_that_of_all_images(seen: list[dict[str, Any]]) -> None:
    for each in seen:
        assert max(each["normalised"]) < 1e-5
        assert each["evaluated"] < 1e-6
