"""The time slice of this process: shortened where a CPU is set up, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from finetune.machine import timeslice

if TYPE_CHECKING:
    from pathlib import Path

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of Linux")
SHOW = """
import os, threading
{before}
from finetune.machine import cpu
from finetune.machine.kind import Settings
from finetune.machine import timeslice
cpu.cap_onednn = lambda **chosen: "as it is"
before = timeslice.read_attributes()
cpu.prepare_cpu(None, Settings())
found = []
thread = threading.Thread(target=lambda: found.append(timeslice.read_attributes()))
thread.start()
thread.join()
after = timeslice.read_attributes()
assert found == [after], (found, after)  # threads that are started later have it too
changed = [name for name, old, new in zip(range(10), before, after) if old != new]
print(after[5] if changed == [timeslice.RUNTIME] else f"changed {{changed}}")
"""


def prepared(repo: Path, *, before: str = "", **environment: str) -> str:
    """Return what a fresh process says of its time slice in nanoseconds, once the CPU was prepared."""
    env = {name: value for name, value in os.environ.items() if name != timeslice.VARIABLE} | environment
    command = [sys.executable, "-c", SHOW.format(before=before)]
    done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@LINUX
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "100000"),
        ({"FINETUNE_TIME_SLICE_US": "500"}, "500000"),
        ({"FINETUNE_TIME_SLICE_US": "0"}, "changed []"),
        ({"FINETUNE_TIME_SLICE_US": "nonsense"}, "100000"),
        ({"FINETUNE_TIME_SLICE_US": "9" * 5000}, "100000000"),
    ],
)
def test_a_process_has_short_slices_unless_the_user_says_otherwise(
    repo: Path, environment: dict[str, str], expected: str
) -> None:
    if timeslice.read_attributes() is None:
        pytest.skip("this kernel does not tell")
    found = prepared(repo, **environment)
    if expected != "changed []" and found == "changed []":
        pytest.skip("this kernel has no time slices of a process's own (Linux before 6.12)")
    assert found == expected


@LINUX
def test_a_policy_of_the_users_own_stays(repo: Path) -> None:
    before = "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"
    assert prepared(repo, before=before) == "changed []"


def test_where_the_kernel_refuses_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(timeslice.VARIABLE, raising=False)
    monkeypatch.setattr(timeslice, "read_attributes", lambda: None)
    assert timeslice.shorten_time_slice() is None
    monkeypatch.setattr(timeslice, "read_attributes", lambda: [56, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    monkeypatch.setattr(timeslice, "write_attributes", lambda attributes: False)
    assert timeslice.shorten_time_slice() is None
    monkeypatch.setattr(timeslice.platform, "machine", lambda: "s390x")
    assert timeslice.shorten_time_slice() is None
