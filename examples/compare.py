"""Compare finished runs, with one line for each epoch.

    python examples/compare.py runs/quickstart-001 runs/quickstart-random-001

A run folder contains plain files: ``metrics.jsonl`` has a line of JSON for each epoch, ``result.json`` the results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main(folders: list[Path]) -> None:
    """Print the validation accuracy of every epoch and the test accuracy for each run."""
    histories = [read_history(folder / "metrics.jsonl") for folder in folders]
    results = [json.loads((folder / "result.json").read_bytes()) for folder in folders]
    table = Table("epoch", title="validation accuracy", title_justify="left", box=None)
    for folder in folders:
        weights = json.loads((folder / "weights.json").read_bytes())["source"]
        table.add_column(f"{folder.name}\nweights: {weights}", justify="right")
    for epoch in sorted(set().union(*histories)):  # epoch 0 fits the head
        table.add_row(str(epoch), *(accuracy(history.get(epoch, {}), "val_accuracy") for history in histories))
    table.add_row("test", *(accuracy(result, "test_accuracy") for result in results))
    table.add_row("seconds", *(f"{result['seconds']:.0f}" for result in results))
    Console().print(table)


def read_history(file: Path) -> dict[int, dict[str, float]]:
    """Return the metrics of each epoch."""
    return {line["epoch"]: line for line in map(json.loads, file.read_bytes().splitlines())}


def accuracy(found: dict[str, float], name: str) -> str:
    """Return an accuracy with three digits, or nothing if the run has none."""
    return f"{found[name]:.3f}" if found.get(name) is not None else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    for run in (runs := parser.parse_args().runs):
        if not (run / "result.json").is_file():
            parser.exit(2, f"no finished run in {run}: it has no result.json\n")
    main(runs)
