"""Plugins that fail or misbehave in the middle of a run: what was trained is kept, and nobody else is harmed."""

from __future__ import annotations

import os
import random
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import hookimpl, plugins
from finetune.errors import PluginError, UsageError
from finetune.training import saving
from tests.faults.small import recipe
from tests.features.tiny import At, Made, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.run import Run

EVENTS = (
    "finetune_run_start",
    "finetune_epoch_start",
    "finetune_step_end",
    "finetune_epoch_end",
    "finetune_checkpoint_saved",
    "finetune_run_end",
)


pytestmark = pytest.mark.usefixtures("graph_mode")


def failing(event: str) -> Any:
    """Return a plugin that fails at an event, from the second epoch on where there are epochs."""

    def fail(self: Any, run: Run) -> None:
        if run.epoch >= 2 or event == "finetune_run_start":
            raise KeyError("gone")

    return type("Bad", (), {event: hookimpl(fail)})()


class Ends:
    """Hears how a run ends."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def finetune_run_error(self, error: BaseException) -> None:
        self.heard.append(type(error).__name__)

    @hookimpl
    def finetune_run_end(self) -> None:
        self.heard.append("end")


@pytest.mark.parametrize("event", EVENTS)
def test_g1_a_plugin_that_fails_at_an_event(event: str, photos: Path, plain: Made, tmp_path: Path) -> None:
    ends, said = Ends(), []
    with pytest.raises(PluginError, match=rf"plugin 'bad' .* failed in {event}: KeyError: 'gone'") as caught:
        run(recipe(photos, tmp_path), watchers=[ends, failing(event)], say=said.append)
    assert caught.value.exit_code == 6
    assert ends.heard == (["end"] if event == "finetune_run_end" else ["PluginError", "end"])
    found = tmp_path / "small-001"
    if event == "finetune_run_end":
        assert (found / "result.json").exists()
        return
    if event != "finetune_run_start":
        steps = saving.load_newest(found / "checkpoints")[0].state["step"]
        assert f"saved step {steps} in {found / 'checkpoints'}" in " ".join(said)
        assert run(recipe(photos, tmp_path), resume=found).weights == plain.weights
    assert not list(found.rglob("*.tmp"))


def test_g1_a_plugin_that_fails_when_it_hears_of_an_error(photos: Path, tmp_path: Path) -> None:
    class Worse:
        @hookimpl
        def finetune_run_error(self, error: BaseException) -> None:
            raise RuntimeError("worse")

    ends = Ends()
    with pytest.raises(PluginError, match="failed in finetune_step_end"):
        run(recipe(photos, tmp_path), watchers=[ends, failing("finetune_step_end"), Worse()])
    assert ends.heard == ["PluginError", "end"]


def another_folder(tmp_path: Path) -> None:
    """Change what every relative path means."""
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")


def other_numbers(tmp_path: Path) -> None:
    """Start every generator of the process anew."""
    import mindspore as ms

    random.seed(1)
    np.random.seed(1)
    ms.set_seed(1)


def other_environment(tmp_path: Path) -> None:
    """Change where the cache of this process would be."""
    os.environ["FINETUNE_HOME"] = str(tmp_path / "no" / "such" / "home")


@pytest.mark.parametrize("act", [another_folder, other_numbers, other_environment])
def test_g4_a_plugin_that_changes_the_process(
    act: Callable[[Path], None], photos: Path, plain: Made, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    what = recipe(photos, "runs")
    made = run(what, watchers=[At(partial(act, tmp_path), step=2)])
    monkeypatch.chdir(tmp_path)
    assert made.weights == plain.weights
    assert (tmp_path / "runs" / "small-001" / "result.json").exists()
    assert not list((tmp_path / "elsewhere").rglob("*"))


def test_g4_a_plugin_that_prints_and_tries_to_end_the_process(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Leaving:
        @hookimpl
        def finetune_epoch_end(self) -> None:
            print("bye")
            raise SystemExit(0)

    with pytest.raises(PluginError, match=r"plugin 'leaving' .* failed in finetune_epoch_end: SystemExit: 0"):
        run(recipe(photos, tmp_path), watchers=[Leaving()])
    assert capsys.readouterr().out == "bye\n"
    assert saving.load_newest(tmp_path / "small-001" / "checkpoints")[0].state["step"] == 3


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("<99", True), (">=0.1", True), (">=99", False), (">=0.0.1,<0.0.2", False), ("", True)],
)
def test_g8_a_plugin_for_other_versions(
    wanted: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "birds-1.2.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: birds", "Version: 1.2", f"Requires-Dist: mindspore-finetune{wanted}"]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text("[finetune]\nbirds = birds_plugin\n")
    (tmp_path / "birds_plugin.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = [each for each in plugins.load_plugins().broken if each.origin.name == "birds"]
    assert not broken if fits else "it requires mindspore-finetune" in broken[0].reason
    sys.modules.pop("birds_plugin", None)


def test_g11_a_plugin_that_takes_long(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow:
        @hookimpl
        def finetune_epoch_end(self) -> None:
            now[0] += plugins.SLOW + 1

    monkeypatch.setattr(plugins, "time", SimpleNamespace(monotonic=lambda: now[0]))
    made = run(recipe(photos, tmp_path), watchers=[Slow()])
    (message,) = made.told(f"took {plugins.SLOW + 1:.0f} s in finetune_epoch_end, which blocks training")
    assert message.startswith("warning: plugin 'slow' (")


def test_g13_the_recipe_of_a_run_cannot_be_changed(photos: Path, tmp_path: Path) -> None:
    class Changing:
        @hookimpl
        def finetune_run_start(self, run: Run) -> None:
            run.recipe.train.epochs = 1  # type: ignore[misc]

    with pytest.raises(PluginError, match=r"failed in finetune_run_start: ValidationError: .*"):
        run(recipe(photos, tmp_path), watchers=[Changing()])


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), lambda: None], ids=["object", "set", "nan", "code"])
def test_g14_state_of_a_plugin_is_json(value: Any, photos: Path, tmp_path: Path) -> None:
    class Keeping:
        @hookimpl
        def finetune_run_start(self, run: Run) -> None:
            run.state["keeping"] = {"value": value}

    with pytest.raises(
        PluginError, match=r"run\.state\['keeping'\] cannot be saved as JSON: .*; store only numbers, text"
    ):
        run(recipe(photos, tmp_path), watchers=[Keeping()])
    saved = saving.load_newest(tmp_path / "small-001" / "checkpoints")[0]
    assert (saved.state["step"], saved.state["plugins"]) == (3, {})


def test_g14_a_plugin_that_is_gone_at_resume(photos: Path, tmp_path: Path) -> None:
    what = recipe(photos, tmp_path)
    with pytest.raises(PluginError):
        run(what, watchers=[failing("finetune_epoch_end")])
    changed = recipe(photos, tmp_path, callbacks=[{"use": "nosuch"}])
    with pytest.raises(UsageError, match="no callback named 'nosuch'"):
        run(changed, resume=tmp_path / "small-001")
