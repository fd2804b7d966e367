"""Fixtures: the source tree, shared photos and weights where this machine has them, and a home of the tests' own."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

# A shell's background jobs ignore Ctrl-C, and `nohup` a closed terminal, and so would all that the tests interrupt.
for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)

REPO = Path(__file__).resolve().parents[1]

FROZEN: set[tuple[Path, bool]] = set()  # files of tests that began with MindSpore, or without it
# Folders of tests of what no packaging can change, and what of them is run on the wheel all the same.
ENGINE_LOGIC = {
    *("data", "display", "distributed", "doctor", "faults", "features", "files", "fitting", "machine", "network"),
    *("plugins", "recipe", "training", "weights"),
}
ON_THE_WHEEL = {
    *("data/test_data.py", "data/test_packing.py", "display/test_notebook.py", "doctor/test_doctor.py"),
    *(
        "recipe/test_plan.py",
        "recipe/test_plan_mistakes.py",
        "recipe/test_schema.py",
        "training/test_engine.py",
        "training/test_trainer.py",
    ),
    *("weights/test_sources.py", "weights/test_torchfile.py"),
}
# Files whose tests start many processes or train for long, in the order in which `make test` begins with them: what is
# long must not be left for the end, when one process works and the other has nothing to do.
LONG = (
    *("launch/test_runs.py", "test_flowers.py", "faults/test_resuming.py", "faults/test_crash.py"),
    *("launch/test_machines.py", "faults/test_signals.py", "launch/test_ranks.py", "faults/test_full_disk.py"),
    *(
        "cli/test_run.py",
        "training/test_engine.py",
        "model/test_matmul_form.py",
        "test_docs.py",
        "training/test_run_forms.py",
    ),
)


THOROUGH = frozenset((REPO / "tests" / "thorough.txt").read_text(encoding="utf-8").splitlines())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that CI runs once or that `make test` leaves out; begin with the longest."""
    here, places = Path(__file__).parent, {name: place for place, name in enumerate(LONG)}
    own = [item for item in items if item.path.is_relative_to(here)]
    for item in own:
        path = item.path.relative_to(here)
        if (
            path.parts[0] in ENGINE_LOGIC and path.as_posix() not in ON_THE_WHEEL
        ) or path.name == "test_meta_clocks.py":
            item.add_marker(pytest.mark.once)
        if f"{path.as_posix()}::{item.name.partition('[')[0]}" in THOROUGH:
            item.add_marker(pytest.mark.thorough)
    if len(own) == len(items):
        items.sort(key=lambda item: places.get(item.path.relative_to(here).as_posix(), len(LONG)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave what is here for good out of garbage collections: MindSpore asks for one whenever it compiles a graph."""
    key = (item.path, "mindspore" in sys.modules)
    if key not in FROZEN:
        FROZEN.add(key)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def repo() -> Path:
    """Return the root of the source tree."""
    return REPO


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep caches of tests out of the user's, and shared between tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(tmp_path_factory.getbasetemp() / "finetune-home"))
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start with an empty cache, and return where it will be."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FINETUNE_OFFLINE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Return a whole training checkpoint as MindSpore Hub has them, its convolutions split."""
    from tests.weights import nano

    return nano.hub_file(tmp_path / "hub.ckpt")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of photos and weights that belong to no repository; skip where there is none."""
    folder = Path(os.environ.get("FINETUNE_TEST_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared photos and weights at {folder}; set FINETUNE_TEST_SHARED")
    return folder


@pytest.fixture(scope="session")
def flowers(shared: Path) -> Path:
    """Return the folder of Oxford's 102 flowers; skip where it is missing."""
    folder = shared / "data" / "flowers102"
    if not folder.is_dir():
        pytest.skip(f"no flowers at {folder}")
    return folder


@pytest.fixture(scope="session")
def squeezenet(shared: Path) -> Path:
    """Return SqueezeNet's ImageNet weights; skip where they are missing."""
    file = shared / "weights" / "squeezenet1_1.safetensors"
    if not file.is_file():
        pytest.skip(f"no weights at {file}")
    return file


@pytest.fixture(scope="module")
def graph_mode() -> Iterator[None]:
    """Leave MindSpore to others as they expect it."""
    from finetune.machine import device

    yield
    device.set_up(device="cpu")
