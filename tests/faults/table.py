"""The tables of faults in docs/faults.md.

    python -m tests.faults.table [--write]

Prints the tables; --write puts them into the page. ``tests/faults/test_table.py`` checks that every test in them
exists.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tests.faults.known import BAD, FAULTS, GROUPS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def table() -> list[str]:
    """Return the lines of all tables, one for each group of faults."""
    lines: list[str] = []
    for letter, title in GROUPS.items():
        lines += ["", f"### {title}", "", "| id | fault | tests |", "| --- | --- | --- |"]
        for each in (each for each in FAULTS if each.id[0] == letter):
            found = [f"`{re.sub('^tests/', '', file)}`" for file in each.files]
            found += [BAD] * (BAD in each.tests)
            found += [f"({each.gap})"] * bool(each.gap)
            lines.append(f"| {each.id} | {each.what} | {', '.join(found)} |")
    return lines[1:]


def main() -> None:
    """Print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    lines = table()
    if parser.parse_args().write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}", encoding="utf-8")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
