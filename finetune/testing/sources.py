"""What MindSpore needs of the code of a cell to compile it: a source file, and methods that say ``self``."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def uncompilable(cell: Any) -> Iterator[str]:
    """Yield why the classes of a cell and of all cells in it cannot be compiled, and what to do."""
    for kind in dict.fromkeys(type(each) for _, each in cell.cells_and_names()):
        if kind.__module__.partition(".")[0] != "mindspore":
            yield from of_class(kind)


def of_class(kind: type) -> Iterator[str]:
    """Yield what is wrong with a class."""
    for name, function in vars(kind).items():
        if not isinstance(function, FunctionType) or (name.startswith("__") and name.endswith("__")):
            continue
        first = next(iter(inspect.signature(function).parameters), "nothing")
        if first != "self":
            text = f"{name} of class {kind.__name__} calls its first argument '{first}'"
            yield f"{text}; call it self, by which MindSpore tells that it is not one of the arguments passed"
    try:
        inspect.getsource(kind.construct)  # type: ignore[attr-defined]
    except (OSError, TypeError):
        text = f"construct of class {kind.__name__} has no source file, which MindSpore compiles from"
        yield f"{text}; put the class into a module, not into exec or a terminal"
