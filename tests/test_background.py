"""Runs in the background of a script: shells start them with SIGINT ignored, and `nohup` with SIGHUP ignored."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from finetune.training.saving import load_newest
from tests.clocks import LONGEST, wait_for
from tests.machine.test_interrupts import place

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["place"]  # a fixture

RUN = f"{sys.executable} -m finetune run long.yaml"
AT_TERMINAL = """
import fcntl, signal, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if {ignored}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from finetune.machine import interrupts
interrupts.listen()
try:
    print("ready", flush=True)
    time.sleep({seconds})
    print("done")
except KeyboardInterrupt:
    sys.exit(130)
"""


def background(command: str, place: Path) -> subprocess.Popen[str]:
    """Start a shell that starts a job in the background, tells its id, and ends as the job does."""
    script = f"{command} & echo $! > pid; wait $!"
    return subprocess.Popen(["sh", "-c", script], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_interrupt_stops_a_job_in_the_background_after_saving(place: Path) -> None:
    shell = background(RUN, place)
    metrics = place / "runs" / "long-001" / "metrics.jsonl"
    wait_for(metrics.exists, shell)
    os.kill(int((place / "pid").read_text()), signal.SIGINT)
    _, errors = shell.communicate(timeout=LONGEST)
    assert shell.returncode == 130, errors
    assert "SIGINT: saving and stopping" in errors
    saved, broken = load_newest(place / "runs" / "long-001" / "checkpoints")
    assert not broken
    assert saved.state["step"] >= 1


def test_nohup_keeps_a_run_from_a_closed_terminal(place: Path) -> None:
    shell = background(f"nohup {RUN}", place)
    metrics = place / "runs" / "long-001" / "metrics.jsonl"
    wait_for(metrics.exists, shell)
    pid = int((place / "pid").read_text())
    before = len(metrics.read_text().splitlines())
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: len(metrics.read_text().splitlines()) >= before + 2, shell)
    assert shell.poll() is None
    os.kill(pid, signal.SIGTERM)
    assert (shell.communicate(timeout=LONGEST), shell.returncode)[1] == 143


@pytest.mark.parametrize(("ignored", "code", "printed"), [(False, 130, "ready"), (True, 0, "ready\r\ndone")])
def test_ctrl_c_at_a_terminal_passes_a_job_in_the_background_by(ignored: bool, code: int, printed: str) -> None:
    terminal, inside = pty.openpty()
    code_of_child = AT_TERMINAL.format(ignored=ignored, seconds=1.5 if ignored else 60)
    child = subprocess.Popen(
        [sys.executable, "-c", code_of_child], stdin=inside, stdout=inside, stderr=inside, start_new_session=True
    )
    os.close(inside)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    with suppress(OSError):  # by which Linux says that the other end is closed
        while more := os.read(terminal, 1000):
            shown += more
    os.close(terminal)
    assert child.wait(timeout=LONGEST) == code
    assert shown.decode().replace("^C", "").strip() == printed
