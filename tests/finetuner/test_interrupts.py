"""Interrupts in fit and predict, as a notebook's stop button sends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Finetuner, hookimpl
from finetune.errors import UsageError
from finetune.recipe import plan as plans
from tests.clocks import LONGEST
from tests.features import tiny
from tests.finetuner.small import tiny_finetuner, weights

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.once
COMPILED: dict[str, Any] = {"freeze": "none", "runner": {"mode": "graph"}}


class Interrupt:
    """Sends this process SIGINT, as the stop button of a notebook does, after a step."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    @hookimpl
    def finetune_step_end(self, step: int) -> None:
        for _ in range(self.times if step == self.step else 0):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuner:
    ft = tiny_finetuner(tmp_path_factory.mktemp("runs"), **COMPILED)
    ft.fit(photos, epochs=2)
    return ft


def test_an_interrupted_fit_is_saved_and_can_go_on(undisturbed: Finetuner, photos: Path, tmp_path: Path) -> None:
    interrupt = Interrupt(step=6)
    ft = tiny_finetuner(tmp_path, plugins=[interrupt], **COMPILED)
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match=r"saved and stopped in epoch 2, step 6; resume with fit\(…, resume="):
        ft.fit(photos, epochs=2)
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [line["epoch"] for line in ft.history] == [1]
    assert ft.run is not None
    assert repr(ft) == f"<Finetuner: interrupted in epoch 2, {ft.run.folder}>"
    for use in (lambda: ft.predict([]), lambda: ft.embed([])):
        with pytest.raises(UsageError, match=r"the last fit was not finished; resume it with fit\(…, resume="):
            use()
    interrupt.times = 0
    again = ft.fit(photos, epochs=2, resume=ft.run.folder)
    assert undisturbed.run is not None
    assert weights(again) == weights(undisturbed.run)
    assert [line["epoch"] for line in ft.history] == [1, 2]
    assert ft.evaluate(photos) == undisturbed.evaluate(photos)


def test_the_engine_resumes_what_python_began(undisturbed: Finetuner, photos: Path, tmp_path: Path) -> None:
    from finetune.training import engine

    ft = tiny_finetuner(tmp_path, plugins=[Interrupt(step=2)], **COMPILED)
    with pytest.raises(KeyboardInterrupt):
        ft.fit(photos, epochs=2)
    assert ft.run is not None
    catalogue = tiny.catalogue()
    plan = plans.load_plan(ft.run.folder / "recipe.yaml", [], catalogue)
    resumed = engine.fine_tune(plan, catalogue, resume=ft.run.folder, say=lambda message: None)
    assert undisturbed.run is not None
    assert weights(resumed) == weights(undisturbed.run)


def test_a_second_interrupt_stops_at_once_and_the_process_lives(photos: Path, tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path, freeze="head", plugins=[Interrupt(step=2, times=2)])
    with pytest.raises(KeyboardInterrupt, match="stopped without saving"):
        ft.fit(photos, epochs=1)
    assert ft.run is not None
    assert not (ft.run.folder / "checkpoints").exists()


# Python loses an interrupt that meets a destructor, so this one comes again, as from a person.
PREDICTING = """
import os, signal, sys, threading, time
from finetune import Finetuner

ft = Finetuner.load(sys.argv[1])
ft.predict([sys.argv[2]])
over = threading.Event()
def interrupt():
    while not over.wait(2):
        os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    while True:
        ft.predict([sys.argv[2]] * 64)
except KeyboardInterrupt:
    over.set()
    print("interrupted", len(ft.predict([sys.argv[2]])))
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("alive")
"""


def test_interrupting_predict_leaves_the_process_alive(fitted: Finetuner, paths: list[Path]) -> None:
    assert fitted.run is not None
    command = [sys.executable, "-c", PREDICTING, str(fitted.run.folder), str(paths[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    assert (done.stdout, done.returncode) == ("interrupted 1\nalive\n", 0), done.stderr
