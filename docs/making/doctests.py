"""Extension of mkdocstrings: shows the ``>>>`` lines of docstrings as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

PROMPTS = re.compile(r"(?:^>>> .*\n?)+", re.M)


class Doctests(Extension):
    """Puts fences around examples, which Markdown would render as quotations."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of an object in place."""
        if obj.docstring is not None:
            obj.docstring.value = PROMPTS.sub(add_fences, obj.docstring.value)


def add_fences(lines: re.Match[str]) -> str:
    """Return the lines of an example, without prompts, as a block of code."""
    return "```python\n" + re.sub(r"^>>> ", "", lines[0].rstrip("\n"), flags=re.M) + "\n```\n"
