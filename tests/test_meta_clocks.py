"""No test bounds wall-clock time: what else the machine does would decide whether it passes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests import conftest
from tests.clocks import LONGEST

if TYPE_CHECKING:
    from pathlib import Path

WALL_CLOCKS = {"time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns"}
# Files that may read a wall clock, and what for. None of them compares a duration with a bound.
ALLOWED = {
    "clocks.py": "wait_for gives up after LONGEST",
    "cli/test_completion.py": "waiting for a terminal gives up after LONGEST",
    "faults/fuzz.py": "for how long to fuzz",
    "faults/test_signals.py": "a clock that jumps",
    "files/test_atomic.py": "the time of a file",
    "display/test_notebook.py": "passes the clock on to a display",
    "weights/test_fuzz.py": "for how long to fuzz",
}
LEAST = 200  # seconds; a shorter timeout is a bound, LONGEST is for what hangs
PYTEST = 300  # seconds that pytest gives every test
SETTINGS = {"deadline", "suppress_health_check"}  # of Hypothesis
WAITING = {"run", "call", "check_call", "check_output", "communicate", "wait", "wait_for_ready", "execute_interactive"}


def read_clocks(node: ast.AST) -> str:
    """Return the wall clock that a piece of code names, or an empty string."""
    if isinstance(node, ast.ImportFrom) and node.module == "time":
        return ", ".join(alias.name for alias in node.names if alias.name in WALL_CLOCKS)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        called = f"{node.value.id}.{node.attr}"
        if called in {f"time.{name}" for name in WALL_CLOCKS} or called in ("timeit.timeit", "timeit.default_timer"):
            return called
    return ""


def read_short_wait(node: ast.AST) -> str:
    """Return the call that bounds how long a process or a test takes, or an empty string."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return ""
    limits = [number(each.value) for each in node.keywords if each.arg == "timeout"]
    if node.func.attr == "timeout" and ast.unparse(node.func) == "pytest.mark.timeout":
        return "pytest.mark.timeout" if any(0 < number(each) < PYTEST for each in node.args) else ""
    return node.func.attr if node.func.attr in WAITING and any(0 < limit < LEAST for limit in limits) else ""


def read_hypothesis(node: ast.AST) -> str:
    """Return the settings that give an example a deadline, or let Hypothesis fail because examples are slow."""
    if not isinstance(node, ast.Call) or not any(each.arg in SETTINGS for each in node.keywords):
        return ""
    given = {each.arg: ast.unparse(each.value) for each in node.keywords}
    checks = given.get("suppress_health_check", "too_slow")
    slow_is_fine = "too_slow" in checks or checks == "[*HealthCheck]"
    return "" if given.get("deadline", "None") == "None" and slow_is_fine else "settings"


def number(node: ast.expr) -> float:
    """Return a number as it is written in code; 0 for all else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else 0


def find(folder: Path) -> tuple[list[str], set[str]]:
    """Return all places in a folder of tests that depend on wall-clock time, and the files that may read a clock."""
    found, reading = [], set()
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(folder).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            clock = read_clocks(node)
            if clock and name in ALLOWED:
                reading.add(name)
                clock = ""
            if what := clock or read_short_wait(node) or read_hypothesis(node):
                found.append(f"{name}:{getattr(node, 'lineno', 0)}: {what}")
    return found, reading


def test_no_test_depends_on_wall_clock_time(repo: Path) -> None:
    found, reading = find(repo / "tests")
    assert found == [], "use tests/clocks.py: processor_time, least_processor_time, wait_for, LONGEST"
    assert reading == ALLOWED.keys(), "remove from ALLOWED what reads no wall clock"
    assert LEAST <= LONGEST < PYTEST


def test_files_that_the_order_and_the_marks_name_exist(repo: Path) -> None:
    assert [name for name in (*conftest.ENGINE_LOGIC, *conftest.LONG) if not (repo / "tests" / name).exists()] == []


@pytest.mark.parametrize(
    "code",
    [
        "began = time.monotonic()\nassert time.monotonic() - began < 5",
        "from time import perf_counter",
        "seconds = timeit.timeit(f)",
        "subprocess.run(command, timeout=60)",
        "process.communicate(timeout=1.5)",
        "@pytest.mark.timeout(30)\ndef test_a(): pass",
        "@settings(deadline=200)\ndef test_a(): pass",
        "@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])\ndef test_a(): pass",
    ],
)
def test_bounds_of_each_kind_are_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "test_a.py").write_text(code)
    assert len(find(tmp_path)[0]) == 1 + code.count("assert")
    (tmp_path / "test_a.py").write_text("subprocess.run(command, timeout=240)\nstart = time.process_time()\n")
    assert find(tmp_path) == ([], set())
