"""``lr``: find a learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import source
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Words

if TYPE_CHECKING:
    from finetune.training.rates import Found

Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the chart there, as SVG.")]
Steps = Annotated[int, typer.Option(metavar="N", min=20, max=10_000, help="Rates to test, each for one step.")]


@command("RECIPE [KEY=VALUE]...", "finetune lr mine.yaml", "finetune lr mine.yaml freeze.use=none --plot lr.svg")
def lr(words: Words = None, plot: Plot = None, steps: Steps = 100) -> Answer:
    """Find a learning rate for a recipe.

    Short steps at ever higher rates, as its first phase would make them, show
    where the loss falls fastest; that rate is suggested. Nothing else is kept.
    """
    from finetune.display.progress import Progress
    from finetune.training import rates

    asked, catalogue = source.asked(words), source.load_catalogue()
    found = rates.find(asked.plan(catalogue), catalogue, steps=steps, say=Progress().say)
    if plot is not None:
        write(plot, found)
    data = {
        "suggestion": found.suggestion,
        "recipe": found.recipe,
        "stages": found.stages,
        "rates": found.rates,
        "losses": found.losses,
    }
    return Answer(data=data, view=lambda: shown(found))


def write(file: Path, found: Found) -> None:
    """Write the chart as SVG."""
    from finetune.display import chart
    from finetune.files import atomic
    from finetune.files.atomic import disk_errors

    mark = (found.suggestion, found.losses[found.rates.index(found.suggestion)])
    drawn = chart.svg(lines(found), title="loss by learning rate", x="learning rate", y="loss, smoothed", mark=mark)
    with disk_errors(file):
        atomic.write_text(file, drawn)


def lines(found: Found) -> dict[str, Any]:
    """Return the curve as a line of a chart."""
    return {"": list(zip(found.rates, found.losses, strict=True))}


def shown(found: Found) -> str:
    """Return the chart in characters, and what it says."""
    from finetune.display import chart

    trained = ", ".join(found.stages)
    said = f"optimizer.lr={found.suggestion:.1e}"
    why = f"there the loss of {trained} falls fastest; the recipe has {found.recipe:g}"
    return f"{chart.characters(lines(found))}\n\n{said}  {why}\n"
