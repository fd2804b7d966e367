"""No test bounds wall-clock time: what else the machine does would decide whether it passes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.clocks import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WALL_CLOCKS = {"time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns"}
# Files that may read a wall clock, and what for. None of them compares a duration with a bound.
ALLOWED = {
    "clocks.py": "wait_for gives up after LONGEST",
    "cli/test_completion.py": "waiting for a terminal gives up after LONGEST",
    "faults/fuzz.py": "for how long to fuzz",
    "faults/test_signals.py": "a clock that jumps",
    "test_atomic.py": "the time of a file",
    "test_notebook.py": "passes the clock on to a display",
    "weights/test_fuzz.py": "for how long to fuzz",
}
LEAST = 200  # seconds; a shorter timeout is a bound, LONGEST is for what hangs
PYTEST = 300  # seconds that pytest gives every test
WAITING = {"run", "call", "check_call", "check_output", "communicate", "wait", "wait_for_ready", "execute_interactive"}


def read_clocks(tree: ast.AST) -> Iterator[str]:
    """Yield where code names a wall clock."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"{node.lineno}: {alias.name}" for alias in node.names if alias.name in WALL_CLOCKS)
        elif isinstance(node, ast.Attribute):
            called = ast.unparse(node)
            if called in {f"time.{name}" for name in WALL_CLOCKS} or node.attr in ("default_timer", "timeit"):
                yield f"{node.lineno}: {called}"


def read_short_waits(tree: ast.AST) -> Iterator[str]:
    """Yield where code bounds how long a process or a test takes."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called = ast.unparse(node.func)
        given = {each.arg: each.value for each in node.keywords}
        if called == "pytest.mark.timeout":
            yield from (f"{node.lineno}: {called}" for each in node.args if 0 < number(each) < PYTEST)
        elif node.func.attr in WAITING and 0 < number(given.get("timeout")) < LEAST:
            yield f"{node.lineno}: {called}"


def read_hypothesis(tree: ast.AST) -> Iterator[str]:
    """Yield where code gives an example a deadline, or lets Hypothesis fail because examples are slow."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("settings", "settings.register_profile"):
            continue
        given = {each.arg: ast.unparse(each.value) for each in node.keywords}
        checks = given.get("suppress_health_check", "too_slow")
        if given.get("deadline", "None") != "None" or not ("too_slow" in checks or checks == "[*HealthCheck]"):
            yield f"{node.lineno}: {ast.unparse(node.func)}"


def number(node: ast.expr | None) -> float:
    """Return a number as it is written in code; 0 for all else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else 0


def find(folder: Path) -> list[str]:
    """Return all places in a folder of tests that depend on wall-clock time."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        name, tree = file.relative_to(folder).as_posix(), ast.parse(file.read_text(encoding="utf-8"))
        places = [*read_short_waits(tree), *read_hypothesis(tree)]
        if name not in ALLOWED:
            places += read_clocks(tree)
        found += [f"{name}:{place}" for place in places]
    return found


def test_no_test_depends_on_wall_clock_time(repo: Path) -> None:
    assert find(repo / "tests") == [], "use tests/clocks.py: processor_time, least_processor_time, wait_for, LONGEST"
    assert LEAST <= LONGEST < PYTEST


def test_what_is_allowed_is_still_there(repo: Path) -> None:
    for name in ALLOWED:
        tree = ast.parse((repo / "tests" / name).read_text(encoding="utf-8"))
        assert [*read_clocks(tree)], f"{name} reads no wall clock; remove it from ALLOWED"


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
    assert len(find(tmp_path)) >= 1
    (tmp_path / "test_a.py").write_text("subprocess.run(command, timeout=240)\nstart = time.process_time()\n")
    assert find(tmp_path) == []
