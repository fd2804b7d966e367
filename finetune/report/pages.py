"""Pages: templates filled with data; every value is escaped, and nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from finetune.display.terminal import make_printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment


@cache
def load_environment() -> Environment:
    """Return the environment of the templates, with the filters that they use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("finetune.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "percent": format_percent,
        "interval": format_interval,
        "number": format_number,
        "printable": lambda value: make_printable(str(value)),
    }
    return environment


def render_page(template: str, **data: Any) -> str:
    """Return a page in HTML."""
    page: str = load_environment().get_template(template).render(**data)
    return page


def format_percent(share: float | None) -> str:
    """Format a share as a percentage with one digit; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def format_interval(bounds: Sequence[float] | None) -> str:
    """Format a 95 % interval in percent; a dash for None."""
    return "–" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def format_number(value: Any) -> str:
    """Format a number in a few characters; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
