"""A known fault, and the tests that cover it."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = {
    "R": "Interrupts and resuming",
    "C": "Checkpoints and weights files",
    "D": "Downloads and archives",
    "I": "Images and datasets",
    "N": "Numbers",
    "G": "Plugins",
    "Y": "Recipes and the command line",
    "W": "Threads, memory and limits",
    "T": "TensorBoard",
    "S": "Secrets and exports",
}
BAD = "bad inputs"  # in place of a test: the cases of this fault in the table of bad inputs


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, its tests as ``file::name``, and what they do not cover."""

    id: str
    what: str
    tests: tuple[str, ...] = ()
    gap: str = ""

    @property
    def files(self) -> list[str]:
        """The files of its tests, sorted."""
        return sorted({test.partition("::")[0] for test in self.tests if test != BAD})


def fault(text: str, *tests: str, gap: str = "") -> Fault:
    """Return a fault; ``text`` is its identifier and its name, and ``file::a b`` names two tests of one file."""
    name, _, what = text.partition(" ")
    return Fault(name, what, tuple(each for test in tests for each in several(test)), gap)


def several(tests: str) -> list[str]:
    """Return each test of one file as ``file::name``."""
    file, found, names = tests.partition("::")
    return [f"tests/{file}.py::test_{name}" for name in names.split()] if found else [tests]
