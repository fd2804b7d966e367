"""Run folders: numbered, exclusive, locked."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from finetune.errors import ResourceError, UsageError
from finetune.training.runfolder import Lock, create_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: create_folder(tmp_path / "runs", "a.b"), range(20)))
    assert sorted(path.name for path in made) == [f"a.b-{number:03d}" for number in range(1, 21)]


def test_numbers_go_on_and_other_names_do_not_count(tmp_path: Path) -> None:
    for name in ("x-007", "x-y-099", "x-notes"):
        (tmp_path / name).mkdir()
    assert create_folder(tmp_path, "x").name == "x-008"


def test_a_file_in_the_way_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ResourceError, match=r"cannot create a run folder in .*; choose another with --output"):
        create_folder(tmp_path / "runs", "x")


def test_a_second_run_in_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    with Lock(tmp_path):
        with pytest.raises(UsageError, match=rf"is in use by process {os.getpid()} on ") as caught:
            Lock(tmp_path).__enter__()
        assert "wait for it or stop it" in str(caught.value)
    with Lock(tmp_path):
        pass
