"""All bad inputs, with the exit code and the message that each leads to.

    python -m tests.faults.bad_inputs [--write]

Runs every case in this process and prints the table; --write puts it into docs/faults.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import (
    bad_data,
    bad_folders,
    bad_images,
    bad_models,
    bad_options,
    bad_outputs,
    bad_plugins,
    bad_recipes,
    bad_runs,
    bad_weights,
)
from tests.faults.case import outcome, told

if TYPE_CHECKING:
    from tests.faults.case import Case, Outcome

MODULES = (
    *(bad_recipes, bad_options, bad_data, bad_folders, bad_images, bad_models, bad_runs, bad_outputs, bad_weights),
    bad_plugins,
)
CASES: list[Case] = [each for module in MODULES for each in module.CASES]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- bad inputs: begin -->", "<!-- bad inputs: end -->"
SECONDS, MB = 1.0, 200.0  # limits for each case, not counting the imports that every command needs


def wrong(each: Case, found: Outcome) -> list[str]:
    """Return how the outcome differs from what the case expects."""
    missing = [f"does not say {text!r}" for text in each.says if text not in found.message]
    if found.code != each.code:
        missing.append(f"exit code {found.code}, not {each.code}")
    if "Traceback" in found.stderr:
        missing.append("a traceback")
    if found.seconds > SECONDS or found.mb > MB:
        missing.append(f"took {found.seconds:.1f} s and {found.mb:.0f} MB")
    return missing


def row(each: Case) -> tuple[str, list[str]]:
    """Run a case; return its row of the table and how its outcome differs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        found = outcome(each, folder)
        message = told(each, found, folder).replace("|", "\\|").replace("`", "'")
    return f"| {each.fault} | {each.name} | {found.code} | `{message}` |", wrong(each, found)


def table() -> tuple[list[str], list[str]]:
    """Return the lines of the table, and a line for each difference from what a case expects."""
    import mindspore  # noqa: F401 - imported first, so that its time counts for no case

    rows = [row(each) for each in CASES]
    faults = [f"{each}: {text}" for each, (_, texts) in zip(CASES, rows, strict=True) for text in texts]
    return ["| fault | input | exit code | message |", "| --- | --- | --- | --- |", *(line for line, _ in rows)], faults


def main() -> None:
    """Print or write the table; exit with 1 if the outcome of a case differs from what it expects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    lines, faults = table()
    if asked.write and not faults:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}", encoding="utf-8")
    print(*lines, "", f"{len(CASES)} bad inputs, {len(faults)} wrong", *faults, sep="\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
