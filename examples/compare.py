"""Put finished runs side by side, an epoch a line.

    python examples/compare.py runs/quickstart-001 runs/quickstart-random-001

A run folder is plain files: ``metrics.jsonl`` has a line of JSON for each epoch, ``result.json`` what came of it all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def main(folders: list[Path]) -> None:
    """Print the validation accuracy of every epoch, and the test accuracy, of each run."""
    histories = [[json.loads(line) for line in text(folder, "metrics.jsonl").splitlines()] for folder in folders]
    results = [json.loads(text(folder, "result.json")) for folder in folders]
    table = Table("epoch", title="validation accuracy", title_justify="left", box=None)
    for folder in folders:
        weights = json.loads(text(folder, "weights.json"))["source"]
        table.add_column(f"{folder.name}\nweights: {weights}", justify="right")
    for epoch in range(max(len(history) for history in histories)):
        table.add_row(str(epoch + 1), *(accuracy(history[epoch : epoch + 1], "val_accuracy") for history in histories))
    table.add_row("test", *(accuracy([result], "test_accuracy") for result in results))
    table.add_row("seconds", *(f"{result['seconds']:.0f}" for result in results))
    Console().print(table)


def text(folder: Path, name: str) -> str:
    """Return a file of a run."""
    return (folder / name).read_text(encoding="utf-8")


def accuracy(found: list[dict[str, Any]], name: str) -> str:
    """Return an accuracy with three digits, or nothing for a run that has none here."""
    return f"{found[0][name]:.3f}" if found and found[0].get(name) is not None else ""


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
