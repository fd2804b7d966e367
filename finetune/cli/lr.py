"""``lr``: find a learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import source
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Force, Words, make_output_option
from finetune.files.outputs import STDOUT, Output

if TYPE_CHECKING:
    from finetune.training.lr_finder import RateTest

FEW_STEPS = 100  # steps; a shorter run is too short for any learning rate
Plot = Annotated[
    Path | None, make_output_option("--plot", help="Write the chart to this SVG file; - is standard output.")
]
Steps = Annotated[
    int, typer.Option(metavar="N", min=20, max=10_000, help="Number of rates to test, with one step each.")
]


@command(
    "RECIPE [KEY=VALUE]...",
    "finetune lr mine.yaml",
    "finetune lr mine.yaml freeze.use=none --plot lr.svg",
    alone="plot",
)
def lr(words: Words = None, plot: Plot = None, steps: Steps = 100, force: Force = False) -> Answer:
    """Find a learning rate for a recipe.

    A few steps at increasing rates show where the loss falls fastest, or where it
    rises if the head is fitted first. The test covers the first phase, or the phase
    that trains most if the head is fitted first. The weights are not changed.
    """
    from finetune.display.progress import Progress
    from finetune.training import preflight

    asked, catalogue = source.parse_words(words), source.load_catalogue()
    plan = asked.plan(catalogue)
    chart = plot and Output(path=plot, command="lr --plot", force=force, inputs=asked.inputs(plan))
    if chart:
        chart.check()
    preflight.check_device(plan)
    from finetune.training import lr_finder

    progress = Progress()
    found = lr_finder.find_rate(plan, catalogue, steps=steps, say=progress.say)
    content = chart.write(draw_svg(found).encode()) if chart else None
    if plot == STDOUT:
        progress.say(describe_suggestion(found))
    data = {
        "suggestion": found.suggestion,
        "recipe": found.recipe,
        "stages": found.stages,
        "rates": found.rates,
        "losses": found.losses,
        "steps": found.steps,
    }
    return Answer(data=data, view=lambda: render_chart(found), content=content)


def draw_svg(found: RateTest) -> str:
    """Return the chart as SVG."""
    from finetune.display import chart

    nearest = min(range(len(found.rates)), key=lambda at: abs(math.log(found.rates[at] / found.suggestion)))
    mark = (found.suggestion, found.losses[nearest])
    return chart.draw_svg(
        make_curve(found), title="loss by learning rate", x="learning rate", y="loss, smoothed", mark=mark
    )


def make_curve(found: RateTest) -> dict[str, Any]:
    """Return the curve as a line of a chart."""
    return {"": list(zip(found.rates, found.losses, strict=True))}


def render_chart(found: RateTest) -> str:
    """Return the chart as text, with the suggested rate."""
    from finetune.display import chart

    return f"{chart.draw_characters(make_curve(found))}\n\n{describe_suggestion(found)}\n"


def describe_suggestion(found: RateTest) -> str:
    """Return the suggested rate and the reason."""
    trained = ", ".join(found.stages)
    text = f"optimizer.lr={found.suggestion:.1e}  {trained}: {found.why}; the recipe has {found.recipe}"
    return f"{text}\n{warn_of_few_steps(found)}" if 0 < found.steps < FEW_STEPS else text


def warn_of_few_steps(found: RateTest) -> str:
    """Return the warning that a run is too short for any rate."""
    said = f"train.epochs: the recipe makes {found.steps} optimizer steps, too few for any learning rate"
    return f"warning: {said}; set train.epochs=auto"
